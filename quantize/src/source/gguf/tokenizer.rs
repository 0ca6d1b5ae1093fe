//! `tokenizer.json` and its companions from a GGUF's metadata.
//!
//! The aim is a tokenizer that gives, in the tokenizers crate, the ids that llama.cpp
//! gives for the same text with special tokens parsed.

use serde_json::{Map, Value, json};

use super::file::File;
use super::pre_tokenizers::PreTokenizer;
use super::vocabulary::{Kind, SpecialIds, Vocabulary};
use super::{bpe, spm};
use crate::error::Result;
use crate::source::TextFiles;
use chaski_manifest::Architecture;

/// SentencePiece's mark for a space.
const SPACE: &str = "▁";

/// The parts that differ between the kinds of tokenizers.
struct Parts {
    model: Value,
    normalizer: Value,
    pre_tokenizer: Value,
    decoder: Value,
    add_bos: bool,
}

/// The text side of the model.
pub(super) fn text_files(file: &File, architecture: &Architecture) -> Result<TextFiles> {
    let key = "tokenizer.ggml.model";
    let vocab_size = architecture.vocab_size;
    let (vocabulary, parts) = match file.text(key)? {
        Some("gpt2") => {
            let vocabulary = Vocabulary::read(file, vocab_size, SpecialIds::default())?;
            let parts = byte_level(file, &vocabulary)?;
            (vocabulary, parts)
        }
        Some("llama") => {
            let defaults = SpecialIds {
                bos: Some(1),
                eos: Some(2),
                unk: Some(0),
                ..SpecialIds::default()
            };
            let vocabulary = Vocabulary::read(file, vocab_size, defaults)?;
            let parts = sentence_piece(file, &vocabulary)?;
            (vocabulary, parts)
        }
        Some(other) => {
            return Err(file.unsupported(format!(
                "tokenizer model {other}; gpt2 (byte-level BPE) and llama (SentencePiece BPE) \
                 can be converted"
            )));
        }
        None => return Err(file.malformed(format!("metadata {key} is missing"))),
    };
    let add_bos = file
        .flag("tokenizer.ggml.add_bos_token")?
        .unwrap_or(parts.add_bos);
    let add_eos = file.flag("tokenizer.ggml.add_eos_token")?.unwrap_or(false);
    let post_processor = post_processor(file, &vocabulary, add_bos, add_eos)?;
    let tokenizer = json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": added_tokens(&vocabulary),
        "normalizer": parts.normalizer,
        "pre_tokenizer": parts.pre_tokenizer,
        "post_processor": post_processor,
        "decoder": parts.decoder,
        "model": parts.model,
    });
    Ok(TextFiles {
        tokenizer: tokenizer.to_string().into_bytes(),
        tokenizer_config: tokenizer_config(file, &vocabulary, architecture, add_bos, add_eos)?,
        generation_config: generation_config(file, &vocabulary)?,
    })
}

fn byte_level(file: &File, vocabulary: &Vocabulary) -> Result<Parts> {
    let name = file.text("tokenizer.ggml.pre")?.unwrap_or("default");
    let pre_tokenizer = PreTokenizer::by_name(name)
        .ok_or_else(|| file.unsupported(format!("tokenizer.ggml.pre {name} is not known")))?;
    Ok(Parts {
        model: bpe::model(file, vocabulary, pre_tokenizer.ignore_merges)?,
        normalizer: Value::Null,
        pre_tokenizer: pre_tokenizer.to_json(),
        decoder: json!({
            "type": "ByteLevel",
            "add_prefix_space": true,
            "trim_offsets": true,
            "use_regex": true,
        }),
        add_bos: pre_tokenizer.add_bos,
    })
}

fn sentence_piece(file: &File, vocabulary: &Vocabulary) -> Result<Parts> {
    // A space before the text, and before what follows each special token.
    let prefix = file
        .flag("tokenizer.ggml.add_space_prefix")?
        .unwrap_or(true);
    let mut normalizers = Vec::new();
    let mut decoders = vec![
        json!({"type": "Replace", "pattern": {"String": SPACE}, "content": " "}),
        json!({"type": "ByteFallback"}),
        json!({"type": "Fuse"}),
    ];
    if prefix {
        normalizers.push(json!({"type": "Prepend", "prepend": SPACE}));
        decoders.push(json!({"type": "Strip", "content": " ", "start": 1, "stop": 0}));
    }
    normalizers.push(json!({"type": "Replace", "pattern": {"String": " "}, "content": SPACE}));
    Ok(Parts {
        model: spm::model(file, vocabulary)?,
        normalizer: json!({"type": "Sequence", "normalizers": normalizers}),
        pre_tokenizer: Value::Null,
        decoder: json!({"type": "Sequence", "decoders": decoders}),
        add_bos: true,
    })
}

/// Tokens that are found in the text before anything else is done to it.
fn added_tokens(vocabulary: &Vocabulary) -> Vec<Value> {
    (0u32..)
        .zip(vocabulary.tokens.iter().zip(&vocabulary.kinds))
        .filter_map(|(id, (token, kind))| {
            let special = match kind {
                Kind::Control | Kind::Unknown => true,
                Kind::UserDefined => false,
                Kind::Normal | Kind::Unused | Kind::Byte => return None,
            };
            Some(json!({
                "id": id,
                "content": token,
                "single_word": false,
                "lstrip": false,
                "rstrip": false,
                "normalized": false,
                "special": special,
            }))
        })
        .collect()
}

/// BOS before and EOS after the text, where the model wants them.
fn post_processor(
    file: &File,
    vocabulary: &Vocabulary,
    add_bos: bool,
    add_eos: bool,
) -> Result<Value> {
    let wanted = |add: bool, id: Option<u32>, name: &str| {
        if !add {
            return Ok(None);
        }
        id.and_then(|id| Some((id, vocabulary.text(id)?)))
            .map(Some)
            .ok_or_else(|| file.malformed(format!("metadata tokenizer.ggml.{name} is missing")))
    };
    let bos = wanted(add_bos, vocabulary.special.bos, "bos_token_id")?;
    let eos = wanted(add_eos, vocabulary.special.eos, "eos_token_id")?;
    if bos.is_none() && eos.is_none() {
        return Ok(Value::Null);
    }
    let framed = |sequence: &str, type_id: u32| {
        let special = |token: &str| json!({"SpecialToken": {"id": token, "type_id": type_id}});
        let mut parts: Vec<Value> = bos.iter().map(|(_, token)| special(token)).collect();
        parts.push(json!({"Sequence": {"id": sequence, "type_id": type_id}}));
        parts.extend(eos.iter().map(|(_, token)| special(token)));
        parts
    };
    let special_tokens: Map<String, Value> = bos
        .iter()
        .chain(&eos)
        .map(|&(id, token)| {
            let entry = json!({"id": token, "ids": [id], "tokens": [token]});
            (token.to_owned(), entry)
        })
        .collect();
    let pair = [framed("A", 0), framed("B", 1)].concat();
    Ok(json!({
        "type": "TemplateProcessing",
        "single": framed("A", 0),
        "pair": pair,
        "special_tokens": special_tokens,
    }))
}

fn tokenizer_config(
    file: &File,
    vocabulary: &Vocabulary,
    architecture: &Architecture,
    add_bos: bool,
    add_eos: bool,
) -> Result<Value> {
    let special = &vocabulary.special;
    let mut config = Map::new();
    config.insert("add_bos_token".into(), add_bos.into());
    config.insert("add_eos_token".into(), add_eos.into());
    for (name, id) in [
        ("bos_token", special.bos),
        ("eos_token", special.eos),
        ("unk_token", special.unk),
        ("pad_token", special.pad),
    ] {
        if let Some(text) = id.and_then(|id| vocabulary.text(id)) {
            config.insert(name.into(), text.into());
        }
    }
    config.insert("clean_up_tokenization_spaces".into(), false.into());
    config.insert(
        "model_max_length".into(),
        architecture.context_length.into(),
    );
    config.insert("tokenizer_class".into(), "PreTrainedTokenizerFast".into());
    if let Some(template) = file.text("tokenizer.chat_template")? {
        config.insert("chat_template".into(), template.into());
    }
    Ok(config.into())
}

fn generation_config(file: &File, vocabulary: &Vocabulary) -> Result<Value> {
    let special = &vocabulary.special;
    let eos = match special.ends.as_slice() {
        [] => {
            return Err(file.malformed(
                "metadata tokenizer.ggml.eos_token_id is missing: nothing would end an answer",
            ));
        }
        [id] => json!(id),
        ids => json!(ids),
    };
    let mut config = Map::new();
    config.insert("bos_token_id".into(), special.bos.into());
    config.insert("eos_token_id".into(), eos);
    if let Some(pad) = special.pad {
        config.insert("pad_token_id".into(), pad.into());
    }
    Ok(config.into())
}

#[cfg(test)]
mod tests;
