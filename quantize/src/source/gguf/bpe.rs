//! The model part of `tokenizer.json` for a byte-level BPE vocabulary.

use std::collections::HashSet;

use serde_json::{Map, Value, json};

use super::file::File;
use super::vocabulary::Vocabulary;
use crate::error::Result;

const MERGES: &str = "tokenizer.ggml.merges";

/// Vocabulary and merges in order of rank.
pub(super) fn model(file: &File, vocabulary: &Vocabulary, ignore_merges: bool) -> Result<Value> {
    let lines = file
        .texts(MERGES)?
        .ok_or_else(|| file.malformed(format!("metadata {MERGES} is missing")))?;
    let mut merges = Vec::with_capacity(lines.len());
    let mut seen = HashSet::with_capacity(lines.len());
    for (rank, line) in lines.into_iter().enumerate() {
        let (left, right) = split(line).ok_or_else(|| {
            file.malformed(format!("{MERGES}: entry {rank} is no pair: {line:?}"))
        })?;
        // Of equal pairs the first counts in llama.cpp, the last in the tokenizers crate.
        if !seen.insert((left, right)) {
            continue;
        }
        for part in [left, right, &[left, right].concat()] {
            if !vocabulary.ids.contains_key(part) {
                return Err(file.malformed(format!(
                    "{MERGES}: entry {rank}, {line:?}, needs a token {part:?} that is not there"
                )));
            }
        }
        merges.push(json!([left, right]));
    }
    Ok(json!({
        "type": "BPE",
        "dropout": null,
        "unk_token": null,
        "continuing_subword_prefix": null,
        "end_of_word_suffix": null,
        "fuse_unk": false,
        "byte_fallback": false,
        "ignore_merges": ignore_merges,
        "vocab": vocabulary_json(vocabulary),
        "merges": merges,
    }))
}

/// At the first space after the first character, which may be a space itself.
fn split(line: &str) -> Option<(&str, &str)> {
    let first = line.chars().next()?.len_utf8();
    let space = first + line.get(first..)?.find(' ')?;
    Some((line.get(..space)?, line.get(space + 1..)?))
}

/// Token to id, in order of id.
pub(super) fn vocabulary_json(vocabulary: &Vocabulary) -> Map<String, Value> {
    vocabulary
        .tokens
        .iter()
        .cloned()
        .zip((0u32..).map(Value::from))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn merges_split_at_the_first_inner_space() {
        assert_eq!(split("Ġ t"), Some(("Ġ", "t")));
        assert_eq!(split("  x"), Some((" ", "x")));
        assert_eq!(split("ab"), None);
        assert_eq!(split(""), None);
    }
}
