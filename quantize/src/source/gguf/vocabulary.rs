//! Tokens, their kinds and the special ids of a GGUF's tokenizer.

use std::collections::{BTreeSet, HashMap};

use super::file::File;
use crate::error::Result;

/// Longer tokens do not occur (Llama 3's longest has 128 bytes), and work on a token
/// can grow with the square of its length.
const MAX_TOKEN_BYTES: usize = 4096;

/// Names that llama.cpp takes for the end of an answer, whatever the metadata say, and
/// for special tokens even where the file calls them normal ones.
const END_NAMES: [&str; 12] = [
    "<|eot_id|>",
    "<|im_end|>",
    "<|end|>",
    "<end_of_turn>",
    "<|endoftext|>",
    "<|eom_id|>",
    "<EOT>",
    "_<EOT>",
    "[EOT]",
    "<|end_of_text|>",
    "<end_of_utterance>",
    "</s>",
];

/// What a token stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Normal,
    Unknown,
    Control,
    UserDefined,
    Unused,
    Byte,
}

/// Ids with a meaning of their own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct SpecialIds {
    pub(super) bos: Option<u32>,
    pub(super) eos: Option<u32>,
    pub(super) unk: Option<u32>,
    pub(super) pad: Option<u32>,
    /// All that end an answer, `eos` first.
    pub(super) ends: Vec<u32>,
}

/// The tokens by id.
pub(super) struct Vocabulary {
    pub(super) tokens: Vec<String>,
    pub(super) kinds: Vec<Kind>,
    pub(super) ids: HashMap<String, u32>,
    pub(super) special: SpecialIds,
}

impl Vocabulary {
    /// Reads and checks the tokens; `defaults` are the special ids that count where the
    /// metadata tell none.
    pub(super) fn read(file: &File, vocab_size: usize, defaults: SpecialIds) -> Result<Self> {
        let key = "tokenizer.ggml.tokens";
        let texts = file
            .texts(key)?
            .ok_or_else(|| file.malformed(format!("metadata {key} is missing")))?;
        if texts.len() != vocab_size {
            return Err(file.malformed(format!(
                "{key} has {} entries, the embedding {vocab_size} rows",
                texts.len()
            )));
        }
        let mut tokens = Vec::with_capacity(texts.len());
        let mut ids = HashMap::with_capacity(texts.len());
        // `Architecture::check` bounds the vocabulary far below u32.
        for (id, text) in (0u32..).zip(texts) {
            if text.len() > MAX_TOKEN_BYTES {
                return Err(file.malformed(format!("token {id} has {} bytes", text.len())));
            }
            // The name llama.cpp gives them, which tells them apart.
            let text = match text {
                "" => format!("[EMPTY_{id}]"),
                text => text.to_owned(),
            };
            if let Some(other) = ids.insert(text.clone(), id) {
                return Err(file.malformed(format!("tokens {other} and {id} are both {text:?}")));
            }
            tokens.push(text);
        }
        let kinds = kinds(file, &tokens)?;
        let special = special_ids(file, &tokens, &ids, defaults)?;
        Ok(Self {
            tokens,
            kinds,
            ids,
            special,
        })
    }

    /// The text of a token.
    pub(super) fn text(&self, id: u32) -> Option<&str> {
        self.tokens.get(id as usize).map(String::as_str)
    }
}

fn kinds(file: &File, tokens: &[String]) -> Result<Vec<Kind>> {
    let key = "tokenizer.ggml.token_type";
    let mut kinds = match file.integers(key)? {
        None => vec![Kind::Normal; tokens.len()],
        Some(codes) if codes.len() >= tokens.len() => codes
            .iter()
            .take(tokens.len())
            .map(|code| match code {
                2 => Kind::Unknown,
                3 => Kind::Control,
                4 => Kind::UserDefined,
                5 => Kind::Unused,
                6 => Kind::Byte,
                _ => Kind::Normal,
            })
            .collect(),
        Some(codes) => {
            return Err(file.malformed(format!(
                "{key} has {} entries for {} tokens",
                codes.len(),
                tokens.len()
            )));
        }
    };
    for (kind, token) in kinds.iter_mut().zip(tokens) {
        if END_NAMES.contains(&token.as_str()) {
            *kind = Kind::Control;
        }
    }
    Ok(kinds)
}

fn special_ids(
    file: &File,
    tokens: &[String],
    ids: &HashMap<String, u32>,
    defaults: SpecialIds,
) -> Result<SpecialIds> {
    let read = |name: &str, default: Option<u32>| -> Result<Option<u32>> {
        let key = format!("tokenizer.ggml.{name}_token_id");
        let default = default.filter(|&id| (id as usize) < tokens.len());
        match file.count(&key)? {
            None => Ok(default),
            // "None" of some converters.
            Some(id) if id == u32::MAX as usize => Ok(default),
            Some(id) if id < tokens.len() => Ok(u32::try_from(id).ok()),
            Some(id) => {
                Err(file.malformed(format!("{key} is {id}, there are {} tokens", tokens.len())))
            }
        }
    };
    let eos = read("eos", defaults.eos)?;
    let mut others = BTreeSet::new();
    others.extend(read("eot", None)?);
    others.extend(read("eom", None)?);
    others.extend(END_NAMES.iter().filter_map(|name| ids.get(*name)));
    let ends = eos
        .into_iter()
        .chain(others.into_iter().filter(|&id| Some(id) != eos));
    Ok(SpecialIds {
        bos: read("bos", defaults.bos)?,
        eos,
        unk: read("unknown", defaults.unk)?,
        pad: read("padding", defaults.pad)?,
        ends: ends.collect(),
    })
}
