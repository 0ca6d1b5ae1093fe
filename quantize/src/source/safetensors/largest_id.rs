//! The largest token id of a `tokenizer.json`, found without keeping its vocabulary.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// The largest id the tokenizer can give; an error if it is no `tokenizer.json`.
pub(crate) fn largest_token_id(tokenizer: &[u8]) -> serde_json::Result<u64> {
    let file: TokenizerFile = serde_json::from_slice(tokenizer)?;
    let added = file.added_tokens.iter().map(|token| token.id).max();
    Ok(file.model.vocab.0.max(added.unwrap_or(0)))
}

#[derive(Deserialize)]
struct TokenizerFile {
    #[serde(default)]
    added_tokens: Vec<AddedToken>,
    model: Model,
}

#[derive(Deserialize)]
struct AddedToken {
    id: u64,
}

#[derive(Deserialize)]
struct Model {
    vocab: LargestId,
}

/// Of a map from token to id (BPE), or of a list whose places are the ids (Unigram).
struct LargestId(u64);

impl<'de> Deserialize<'de> for LargestId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Vocabulary;
        impl<'de> Visitor<'de> for Vocabulary {
            type Value = LargestId;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a vocabulary")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<LargestId, A::Error> {
                let mut largest = 0;
                while let Some((IgnoredAny, id)) = map.next_entry::<IgnoredAny, u64>()? {
                    largest = largest.max(id);
                }
                Ok(LargestId(largest))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<LargestId, A::Error> {
                let mut count = 0u64;
                while let Some(IgnoredAny) = list.next_element()? {
                    count += 1;
                }
                Ok(LargestId(count.saturating_sub(1)))
            }
        }
        deserializer.deserialize_any(Vocabulary)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_maps_lists_and_added_tokens() {
        let largest = |text: &str| largest_token_id(text.as_bytes());
        let map = r#"{"model": {"type": "BPE", "vocab": {"a": 0, "b": 7, "c": 3}, "merges": []}}"#;
        assert_eq!(largest(map).unwrap(), 7);
        let added =
            r#"{"added_tokens": [{"id": 9, "content": "x"}], "model": {"vocab": {"a": 0}}}"#;
        assert_eq!(largest(added).unwrap(), 9);
        assert_eq!(
            largest(r#"{"model": {"vocab": [["a", -1.0], ["b", -2.0]]}}"#).unwrap(),
            1
        );
        assert!(largest(r#"{"model": {"vocab": {"a": -1}}}"#).is_err());
        assert!(largest("[]").is_err());
    }
}
