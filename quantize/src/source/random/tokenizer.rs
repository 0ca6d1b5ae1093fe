//! The text side of a random model: a token for each byte, and names for the rest.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::{Map, Value, json};

use crate::error::{Error, Result};
use crate::source::TextFiles;
use crate::source::safetensors::texts::check_ids;

const BOS: &str = "bos_token_id";
const EOS: &str = "eos_token_id";

/// Turns of a chat as lines, so that whoever asks the model gets an answer.
const CHAT_TEMPLATE: &str = "{% for message in messages %}{{ message['role'] }}: \
     {{ message['content'] }}\n{% endfor %}{% if add_generation_prompt %}assistant: {% endif %}";

/// A byte-level tokenizer of `vocab_size` tokens.
///
/// The special tokens have the ids that the config tells, the bytes the lowest
/// ids beside them; what is left are `<pad_ID>`. These are ordinary entries of
/// the vocabulary that no text is encoded to: a hundred thousand added tokens
/// would take long to load.
///
/// # Errors
/// Names the key when special ids lie beyond the vocabulary, or when it is too
/// small for the bytes.
pub(super) fn of_bytes(path: &Path, config: &Value, vocab_size: usize) -> Result<TextFiles> {
    let bos = config.get(BOS).cloned().unwrap_or(Value::Null);
    if !bos.is_null() {
        check_ids(path, BOS, &bos, vocab_size)?;
    }
    let eos = match config.get(EOS) {
        None | Some(Value::Null) => json!(vocab_size.saturating_sub(1)),
        Some(ids) => ids.clone(),
    };
    check_ids(path, EOS, &eos, vocab_size)?;
    let special: BTreeSet<usize> = ids(&bos).chain(ids(&eos)).collect();
    let needed = special.len() + 256;
    if vocab_size < needed {
        return Err(Error::malformed(
            path,
            format!(
                "vocab_size ({vocab_size}) is too small for a tokenizer of bytes, which has \
                 {needed} tokens; give another one with --tokenizer"
            ),
        ));
    }
    let name = |id: usize| format!("<special_{id}>");
    let mut vocabulary = Map::new();
    let mut bytes = byte_characters();
    for id in 0..vocab_size {
        let token = if special.contains(&id) {
            name(id)
        } else {
            bytes
                .next()
                .map_or_else(|| format!("<pad_{id}>"), String::from)
        };
        vocabulary.insert(token, id.into());
    }
    let added: Vec<_> = special
        .iter()
        .map(|&id| special_token(id, &name(id)))
        .collect();
    let byte_level = json!({
        "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true
    });
    let tokenizer = json!({
        "version": "1.0", "truncation": null, "padding": null,
        "added_tokens": added,
        "normalizer": null,
        "pre_tokenizer": byte_level, "post_processor": null, "decoder": byte_level,
        "model": {
            "type": "BPE", "dropout": null, "unk_token": null,
            "continuing_subword_prefix": null, "end_of_word_suffix": null,
            "fuse_unk": false, "byte_fallback": false,
            "vocab": vocabulary, "merges": [],
        },
    });
    let first = |value: &Value| ids(value).next().map(name);
    Ok(TextFiles {
        tokenizer: tokenizer.to_string().into_bytes(),
        tokenizer_config: json!({
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": first(&bos), "eos_token": first(&eos),
            "chat_template": CHAT_TEMPLATE,
        }),
        generation_config: json!({BOS: bos, EOS: eos}),
    })
}

/// The ids of a number or a list, which has been checked.
fn ids(value: &Value) -> impl Iterator<Item = usize> {
    let ids = match value {
        Value::Array(ids) => ids.as_slice(),
        id => std::slice::from_ref(id),
    };
    ids.iter()
        .filter_map(Value::as_u64)
        .filter_map(|id| usize::try_from(id).ok())
}

fn special_token(id: usize, content: &str) -> Value {
    json!({
        "id": id, "content": content, "single_word": false, "lstrip": false,
        "rstrip": false, "normalized": false, "special": true
    })
}

/// GPT-2's characters for the bytes: the visible ones of Latin-1 stand for
/// themselves, the others for those from U+0100 on, in order.
fn byte_characters() -> impl Iterator<Item = char> {
    let mut others = '\u{100}'..;
    (0..=u8::MAX).map(move |byte| {
        match byte {
            b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff => Some(char::from(byte)),
            _ => others.next(),
        }
        .unwrap_or(char::REPLACEMENT_CHARACTER)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokenizers::Tokenizer;

    fn made(config: Value, vocab_size: usize) -> Result<(Tokenizer, TextFiles)> {
        let texts = of_bytes(Path::new("config.json"), &config, vocab_size)?;
        let tokenizer = Tokenizer::from_bytes(&texts.tokenizer).expect("the crate loads it");
        Ok((tokenizer, texts))
    }

    #[test]
    fn every_text_is_bytes_and_comes_back() {
        let config = json!({BOS: 1, EOS: [2, 300]});
        let (tokenizer, texts) = made(config.clone(), 400).unwrap();
        assert_eq!(tokenizer.get_vocab_size(true), 400);
        assert_eq!(texts.generation_config, config);
        let text: String = (0..0x300u32).filter_map(char::from_u32).collect();
        let ids = tokenizer.encode(text.as_str(), false).unwrap();
        assert_eq!(ids.len(), text.len());
        let distinct: BTreeSet<_> = ids.get_ids().iter().collect();
        // The two-byte characters below U+0300 begin with 0xc2 to 0xcb.
        assert_eq!(distinct.len(), 128 + 64 + 10);
        assert_eq!(tokenizer.decode(ids.get_ids(), true).unwrap(), text);
        // Byte 0 is the first token beside the special ones, and 255 the last.
        assert_eq!(tokenizer.encode("\0", false).unwrap().get_ids(), [0]);
        assert_eq!(tokenizer.id_to_token(257).as_deref(), Some("ÿ"));
        assert_eq!(tokenizer.id_to_token(258).as_deref(), Some("<pad_258>"));
        assert_eq!(tokenizer.decode(&[1, 2, 300], true).unwrap(), "");
        assert_eq!(texts.tokenizer_config["eos_token"], "<special_2>");
    }

    #[test]
    fn a_config_without_special_tokens_gets_an_end() {
        let (tokenizer, texts) = made(json!({BOS: null}), 257).unwrap();
        assert_eq!(texts.generation_config, json!({BOS: null, EOS: 256}));
        assert_eq!(tokenizer.id_to_token(256).as_deref(), Some("<special_256>"));
    }

    #[test]
    fn what_does_not_fit_is_named() {
        for (config, vocab_size, wanted) in [
            (json!({}), 256, "vocab_size (256)"),
            (json!({}), 1, "vocab_size (1)"),
            (json!({BOS: 1, EOS: 2}), 257, "vocab_size (257)"),
            (json!({BOS: 400}), 400, "bos_token_id 400"),
            (json!({BOS: "one"}), 400, "bos_token_id"),
            (json!({EOS: [2, -1]}), 400, "eos_token_id -1"),
            (json!({EOS: []}), 400, "eos_token_id"),
        ] {
            let Err(error) = made(config, vocab_size) else {
                panic!("{wanted} was let pass");
            };
            let message = error.to_string();
            assert!(
                message.contains(wanted) && message.contains("config.json"),
                "{message}"
            );
        }
    }
}
