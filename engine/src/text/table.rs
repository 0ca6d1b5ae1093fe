//! The text of every token, ready before the first is decoded.
//!
//! The `tokenizers` library gives a token as a `String` of its own each time, in
//! the alphabet of its vocabulary. Here its bytes are worked out once, so that
//! a token on its way to the text costs a copy. For a vocabulary of 50,000 that
//! takes some 20 ms, so it is done while a model loads and the first prompt is
//! computed.

use std::sync::{Arc, LazyLock};

use tokenizers::Model as _;

use super::decoder::Scheme;
use super::tokenizer::Tokenizer;

/// The bytes that the tokens of a vocabulary stand for.
#[derive(Debug)]
pub(super) struct TokenTable {
    bytes: Vec<u8>,
    /// Where each token's bytes end in `bytes`.
    ends: Vec<u32>,
    /// Tokens that are no text but marks, such as the end of a turn.
    special: Vec<bool>,
}

impl TokenTable {
    /// The table of the ids below the vocabulary's size, which are all unless
    /// there are gaps. Empty for a scheme that has no bytes of single tokens.
    pub(super) fn new(tokenizer: &Tokenizer, scheme: &Scheme) -> Self {
        let added = tokenizer.get_added_vocabulary();
        // Not the library's own count, which makes a map of all tokens first. It may be
        // less: added tokens may be in the vocabulary too. Ids are no measure: a file
        // may have any.
        let size = match scheme {
            Scheme::Other => 0,
            _ => tokenizer.get_model().get_vocab_size() + added.get_added_tokens_decoder().len(),
        };
        let mut table = Self {
            bytes: Vec::with_capacity(size * 8),
            ends: Vec::with_capacity(size),
            special: vec![false; size],
        };
        for id in (0..).take(size) {
            let token = tokenizer.id_to_token(id).unwrap_or_default();
            scheme.token_bytes(&token, &mut table.bytes);
            let end = u32::try_from(table.bytes.len()).unwrap_or(u32::MAX);
            table.ends.push(end);
        }
        for (&id, token) in added.get_added_tokens_decoder() {
            if let Some(special) = table.special.get_mut(id as usize) {
                *special = token.special;
            }
        }
        table
    }

    /// The bytes of a token: empty if it is special and not wanted, none if it is
    /// not in the table.
    pub(super) fn bytes(&self, id: u32, skip_special_tokens: bool) -> Option<&[u8]> {
        let index = id as usize;
        let (&end, &special) = (self.ends.get(index)?, self.special.get(index)?);
        if special && skip_special_tokens {
            return Some(&[]);
        }
        let start = index.checked_sub(1).map_or(0, |before| self.ends[before]);
        self.bytes.get(start as usize..end as usize)
    }
}

/// A table that is on its way; the first use waits for it.
pub(super) type Coming = LazyLock<TokenTable, Box<dyn FnOnce() -> TokenTable + Send>>;

/// Has another thread work out the table.
pub(super) fn coming(tokenizer: &Arc<Tokenizer>, scheme: &Arc<Scheme>) -> Coming {
    let (tokenizer, scheme) = (Arc::clone(tokenizer), Arc::clone(scheme));
    let make = move || TokenTable::new(&tokenizer, &scheme);
    let thread = std::thread::Builder::new().name("token-table".into());
    let spawned = thread.spawn(make.clone());
    LazyLock::new(Box::new(move || {
        let table = spawned.ok().and_then(|thread| thread.join().ok());
        // No thread to be had: the user of the table makes it.
        table.unwrap_or_else(make)
    }))
}

#[cfg(test)]
mod tests {
    use super::super::test_tokenizers::{byte_fallback, byte_level, word_piece};

    #[test]
    fn every_token_has_the_bytes_that_its_scheme_gives_it() {
        for codec in [byte_level(), byte_fallback()] {
            let (mut some, mut special) = (0, 0);
            // Beyond the vocabulary too.
            for id in 0..codec.vocab_size() as u32 + 3 {
                for skip in [false, true] {
                    let mut expected = vec![];
                    if let Some(token) = codec.token(id, skip) {
                        codec.scheme().token_bytes(&token, &mut expected);
                    } else if codec.token(id, false).is_some() {
                        special += 1;
                    }
                    let mut found = vec![];
                    codec.push_bytes(id, skip, &mut found);
                    assert_eq!(found, expected, "token {id}");
                    some += usize::from(!found.is_empty());
                }
            }
            assert!(
                some > 300 && special > 0,
                "{some} with text, {special} special"
            );
        }
    }

    #[test]
    fn a_scheme_without_bytes_of_single_tokens_has_no_table() {
        let codec = word_piece();
        let mut found = vec![];
        for id in 0..codec.vocab_size() as u32 {
            codec.push_bytes(id, false, &mut found);
        }
        assert!(found.is_empty());
    }
}
