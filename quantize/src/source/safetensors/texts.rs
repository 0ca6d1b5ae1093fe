//! Tokenizer, chat template and generation settings of a Hugging Face folder.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::json::{read_bounded, read_json};
use super::largest_id::largest_token_id;
use crate::error::{Error, Result};
use crate::source::TextFiles;

const TOKENIZER: &str = "tokenizer.json";
const TOKENIZER_CONFIG: &str = "tokenizer_config.json";
const CHAT_TEMPLATE: &str = "chat_template.jinja";
const GENERATION_CONFIG: &str = "generation_config.json";

// Llama 3's tokenizer.json has 17 MB.
const MAX_TOKENIZER_BYTES: u64 = 128 << 20;
const MAX_TEXT_BYTES: u64 = 16 << 20;

/// Those of the folder's text files that are there.
pub(crate) fn files(folder: &Path) -> Vec<PathBuf> {
    [
        TOKENIZER,
        TOKENIZER_CONFIG,
        CHAT_TEMPLATE,
        GENERATION_CONFIG,
    ]
    .iter()
    .map(|name| folder.join(name))
    .filter(|path| path.is_file())
    .collect()
}

/// Reads the text side; `config` is the parsed `config.json`.
pub(crate) fn read(folder: &Path, config: &Value, vocab_size: usize) -> Result<TextFiles> {
    Ok(TextFiles {
        tokenizer: tokenizer(folder, vocab_size)?,
        tokenizer_config: tokenizer_config(folder)?,
        generation_config: generation_config(folder, config, vocab_size)?,
    })
}

fn tokenizer(folder: &Path, vocab_size: usize) -> Result<Vec<u8>> {
    let path = folder.join(TOKENIZER);
    if !path.is_file() {
        let remedy = "write one with transformers: \
             AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER)";
        return Err(if folder.join("tokenizer.model").is_file() {
            Error::unsupported(
                folder,
                format!("the folder has a tokenizer.model but no tokenizer.json; {remedy}"),
            )
        } else {
            Error::not_a_model(
                folder,
                format!("the folder has no tokenizer.json; {remedy}"),
            )
        });
    }
    let bytes = read_bounded(&path, MAX_TOKENIZER_BYTES)?;
    let largest = largest_token_id(&bytes)
        .map_err(|error| Error::malformed(&path, format!("JSON: {error}")))?;
    if largest >= vocab_size as u64 {
        return Err(Error::malformed(
            &path,
            format!("token id {largest} has no row in the embedding of {vocab_size}"),
        ));
    }
    Ok(bytes)
}

fn tokenizer_config(folder: &Path) -> Result<Value> {
    let path = folder.join(TOKENIZER_CONFIG);
    let mut config = if path.is_file() {
        read_json(&path, MAX_TEXT_BYTES)?
    } else {
        json!({"tokenizer_class": "PreTrainedTokenizerFast"})
    };
    let Some(fields) = config.as_object_mut() else {
        return Err(Error::malformed(&path, "not a JSON object"));
    };
    let separate = folder.join(CHAT_TEMPLATE);
    if separate.is_file() {
        let template = String::from_utf8(read_bounded(&separate, MAX_TEXT_BYTES)?)
            .map_err(|_| Error::malformed(&separate, "not UTF-8"))?;
        fields.insert("chat_template".into(), template.into());
    } else if let Some(template) = fields.get("chat_template").and_then(default_template) {
        fields.insert("chat_template".into(), template);
    }
    Ok(config)
}

/// Of several named templates (`[{"name": …, "template": …}]`), the one for plain chat.
fn default_template(templates: &Value) -> Option<Value> {
    templates
        .as_array()?
        .iter()
        .find(|entry| entry.get("name").and_then(Value::as_str) == Some("default"))?
        .get("template")
        .cloned()
}

fn generation_config(folder: &Path, config: &Value, vocab_size: usize) -> Result<Value> {
    let path = folder.join(GENERATION_CONFIG);
    let mut generation: Value = if path.is_file() {
        read_json(&path, MAX_TEXT_BYTES)?
    } else {
        json!({})
    };
    let Some(fields) = generation.as_object_mut() else {
        return Err(Error::malformed(&path, "not a JSON object"));
    };
    for name in ["bos_token_id", "eos_token_id"] {
        if fields.get(name).is_none_or(Value::is_null) {
            let id = config.get(name).cloned().unwrap_or(Value::Null);
            fields.insert(name.into(), id);
        }
        let value = fields.get(name).unwrap_or(&Value::Null);
        if value.is_null() && name == "bos_token_id" {
            continue;
        }
        check_ids(&path, name, value, vocab_size)?;
    }
    Ok(generation)
}

/// Refuses what is no token id, or a list of them, by the setting's name.
pub(crate) fn check_ids(path: &Path, name: &str, value: &Value, vocab_size: usize) -> Result<()> {
    let ids = match value {
        Value::Array(ids) if !ids.is_empty() => ids.as_slice(),
        Value::Number(_) => std::slice::from_ref(value),
        _ => {
            return Err(Error::malformed(
                path,
                format!("neither it nor config.json tells {name}; add it there"),
            ));
        }
    };
    for id in ids {
        if id.as_u64().is_none_or(|id| id >= vocab_size as u64) {
            return Err(Error::malformed(
                path,
                format!("{name} {id} is not a token id below {vocab_size}"),
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    const VOCABULARY: &str = r#"{"model": {"type": "BPE", "vocab": {"a": 0, "b": 1}}}"#;

    fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            fs::write(folder.path().join(name), text).unwrap();
        }
        folder
    }

    fn texts(files: &[(&str, &str)], config: Value) -> Result<TextFiles> {
        read(folder(files).path(), &config, 10)
    }

    #[test]
    fn generation_settings_fall_back_to_the_config() {
        let ids = json!({"bos_token_id": 1, "eos_token_id": [2, 3]});
        let made = texts(&[(TOKENIZER, VOCABULARY)], ids.clone()).unwrap();
        assert_eq!(made.generation_config, ids);
        assert_eq!(made.tokenizer, VOCABULARY.as_bytes());
        let given = texts(
            &[
                (TOKENIZER, VOCABULARY),
                (
                    GENERATION_CONFIG,
                    r#"{"eos_token_id": 4, "temperature": 0.6}"#,
                ),
            ],
            ids,
        );
        let given = given.unwrap().generation_config;
        assert_eq!(
            given,
            json!({"bos_token_id": 1, "eos_token_id": 4, "temperature": 0.6})
        );
        let none = texts(&[(TOKENIZER, VOCABULARY)], json!({})).unwrap_err();
        assert!(none.to_string().contains("eos_token_id"), "{none}");
        let large = texts(&[(TOKENIZER, VOCABULARY)], json!({"eos_token_id": 10})).unwrap_err();
        assert!(large.to_string().contains("eos_token_id 10"), "{large}");
    }

    #[test]
    fn the_chat_template_may_be_a_file_or_a_list() {
        let config = json!({"eos_token_id": 2});
        let file = texts(
            &[
                (TOKENIZER, VOCABULARY),
                (
                    TOKENIZER_CONFIG,
                    r#"{"chat_template": "old", "bos_token": "<s>"}"#,
                ),
                (CHAT_TEMPLATE, "{{ new }}\n"),
            ],
            config.clone(),
        );
        let file = file.unwrap().tokenizer_config;
        assert_eq!(
            file,
            json!({"chat_template": "{{ new }}\n", "bos_token": "<s>"})
        );
        let list = texts(
            &[
                (TOKENIZER, VOCABULARY),
                (
                    TOKENIZER_CONFIG,
                    r#"{"chat_template": [{"name": "tool_use", "template": "t"},
                        {"name": "default", "template": "d"}]}"#,
                ),
            ],
            config,
        );
        assert_eq!(list.unwrap().tokenizer_config["chat_template"], "d");
    }

    #[test]
    fn bad_tokenizers_are_refused() {
        let config = json!({"eos_token_id": 2});
        let refused =
            |files: &[(&str, &str)]| texts(files, config.clone()).unwrap_err().to_string();
        assert!(refused(&[("tokenizer.model", "")]).contains("tokenizer.model but no"));
        assert!(refused(&[]).contains("no tokenizer.json"));
        assert!(refused(&[(TOKENIZER, "{")]).contains("JSON"));
        let large = r#"{"model": {"vocab": {"a": 10}}}"#;
        assert!(refused(&[(TOKENIZER, large)]).contains("token id 10"));
        assert!(refused(&[(TOKENIZER, VOCABULARY), (TOKENIZER_CONFIG, "[]")]).contains("object"));
    }
}
