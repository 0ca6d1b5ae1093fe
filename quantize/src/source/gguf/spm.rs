//! The model part of `tokenizer.json` for a SentencePiece BPE vocabulary.
//!
//! SentencePiece (and llama.cpp) join the two neighbours whose union has the highest
//! score; the tokenizers crate wants the joins listed by rank. As in `transformers`'
//! converter, every way to split a token into two tokens is a join, ranked by the
//! score of the whole.

use std::cmp::Ordering;
use std::collections::HashMap;

use serde_json::{Value, json};

use super::bpe::vocabulary_json;
use super::file::File;
use super::vocabulary::{Kind, Vocabulary};
use crate::error::Result;

const SCORES: &str = "tokenizer.ggml.scores";

/// Vocabulary and reconstructed merges.
pub(super) fn model(file: &File, vocabulary: &Vocabulary) -> Result<Value> {
    let scores = file
        .floats(SCORES)?
        .ok_or_else(|| file.malformed(format!("metadata {SCORES} is missing")))?;
    if scores.len() < vocabulary.tokens.len() {
        return Err(file.malformed(format!(
            "{SCORES} has {} entries for {} tokens",
            scores.len(),
            vocabulary.tokens.len()
        )));
    }
    if scores.iter().any(|score| score.is_nan()) {
        return Err(file.malformed(format!("{SCORES} holds a NaN")));
    }
    let unknown = vocabulary.special.unk.and_then(|id| vocabulary.text(id));
    Ok(json!({
        "type": "BPE",
        "dropout": null,
        "unk_token": unknown,
        "continuing_subword_prefix": null,
        "end_of_word_suffix": null,
        "fuse_unk": true,
        "byte_fallback": vocabulary.kinds.contains(&Kind::Byte),
        "ignore_merges": false,
        "vocab": vocabulary_json(vocabulary),
        "merges": merges(&vocabulary.tokens, &vocabulary.ids, &scores),
    }))
}

/// Pairs of tokens whose union is a token, best first.
fn merges<'a>(
    tokens: &'a [String],
    ids: &HashMap<String, u32>,
    scores: &[f32],
) -> Vec<(&'a str, &'a str)> {
    let mut merges = Vec::new();
    for (token, &score) in tokens.iter().zip(scores) {
        let mut splits: Vec<_> = token
            .char_indices()
            .skip(1)
            .filter_map(|(middle, _)| {
                let (left, right) = token.split_at_checked(middle)?;
                Some((*ids.get(left)?, *ids.get(right)?, left, right))
            })
            .collect();
        splits.sort_unstable();
        merges.extend(
            splits
                .iter()
                .map(|&(_, _, left, right)| (score, left, right)),
        );
    }
    // Stable: equal scores stay in the order of the tokens.
    merges.sort_by(|(a, ..), (b, ..)| b.partial_cmp(a).unwrap_or(Ordering::Equal));
    merges
        .into_iter()
        .map(|(_, left, right)| (left, right))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn merges_are_ranked_by_the_score_of_the_union() {
        let tokens: Vec<String> = ["a", "b", "ab", "aba", "ba"].map(Into::into).to_vec();
        let ids = tokens.iter().cloned().zip(0..).collect();
        let ranked = merges(&tokens, &ids, &[-1.0, -1.0, -3.0, -5.0, -2.0]);
        let expected = [("b", "a"), ("a", "b"), ("a", "ba"), ("ab", "a")];
        assert_eq!(ranked, expected);
    }
}
