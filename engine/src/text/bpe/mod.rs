//! Byte-pair encoding in little memory.
//!
//! The model of the `tokenizers` library keeps each token as two `String`s in two
//! hash maps and its merges in a third: 40 MB for Llama 3, and three times as much
//! while they are read. This one makes the same tokens from flat tables, some
//! 8 MB, and reads them as the JSON comes. All around the model (normaliser,
//! pre-tokeniser, added tokens, decoder) stays the library's.

mod merges;
mod read;
mod vocabulary;
mod word;

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use tokenizers::models::bpe::BpeTrainer;
use tokenizers::{Model, Token};

use self::merges::Merges;
use self::vocabulary::Vocabulary;
use self::word::Word;

/// A vocabulary with its merges.
#[derive(Debug)]
pub(super) struct Bpe {
    vocabulary: Vocabulary,
    merges: Merges,
    settings: Settings,
    /// The token of each byte, where all bytes of an unknown character shall have theirs.
    bytes: Vec<Option<u32>>,
}

/// What a `tokenizer.json` says of its BPE beside the tables.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Settings {
    /// Stands for what is not in the vocabulary.
    unk_token: Option<String>,
    /// One of them stands for several characters in a row.
    fuse_unk: bool,
    byte_fallback: bool,
    /// A word that is a token is that token, whatever the merges say.
    ignore_merges: bool,
}

impl Bpe {
    fn new(vocabulary: Vocabulary, merges: Merges, settings: Settings) -> Self {
        let bytes = if settings.byte_fallback {
            let token = |byte| vocabulary.find(&format!("<0x{byte:02X}>"));
            (0..=u8::MAX).map(token).collect()
        } else {
            Vec::new()
        };
        Self {
            vocabulary,
            merges,
            settings,
            bytes,
        }
    }

    /// The characters of a word as tokens, not merged yet.
    fn characters(&self, word: &str) -> tokenizers::Result<Word> {
        let mut row = Word::default();
        let mut unknown: Option<(u32, usize)> = None;
        let mut buffer = [0; 4];
        for c in word.chars() {
            let c = &*c.encode_utf8(&mut buffer);
            if let Some(token) = self.vocabulary.find(c) {
                if let Some((token, bytes)) = unknown.take() {
                    row.push(token, bytes);
                }
                row.push(token, c.len());
                continue;
            }
            let byte = |byte: u8| *self.bytes.get(usize::from(byte))?;
            if let Some(tokens) = c.bytes().map(byte).collect::<Option<Vec<_>>>() {
                tokens.into_iter().for_each(|token| row.push(token, 1));
                continue;
            }
            // Without a token for it an unknown character is left out.
            let Some(unk) = &self.settings.unk_token else {
                continue;
            };
            let token = self
                .vocabulary
                .find(unk)
                .ok_or_else(|| format!("unk_token {unk:?} is not in the vocabulary"))?;
            let before = match unknown.take() {
                Some((_, bytes)) if self.settings.fuse_unk => bytes,
                Some((token, bytes)) => {
                    row.push(token, bytes);
                    0
                }
                None => 0,
            };
            unknown = Some((token, before + c.len()));
        }
        if let Some((token, bytes)) = unknown {
            row.push(token, bytes);
        }
        Ok(row)
    }
}

impl Model for Bpe {
    type Trainer = BpeTrainer;

    fn tokenize(&self, word: &str) -> tokenizers::Result<Vec<Token>> {
        if self.settings.ignore_merges
            && let Some(token) = self.vocabulary.find(word)
        {
            let id = self.vocabulary.id(token);
            return Ok(vec![Token::new(id, word.to_owned(), (0, word.len()))]);
        }
        let mut row = self.characters(word)?;
        row.merge(&self.merges);
        let mut start = 0;
        let tokens = row.tokens().map(|(token, bytes)| {
            let offsets = (start, start + bytes);
            start += bytes;
            let text = self.vocabulary.token(token).to_owned();
            Token::new(self.vocabulary.id(token), text, offsets)
        });
        Ok(tokens.collect())
    }

    fn token_to_id(&self, token: &str) -> Option<u32> {
        Some(self.vocabulary.id(self.vocabulary.find(token)?))
    }

    fn id_to_token(&self, id: u32) -> Option<String> {
        self.vocabulary.token_of_id(id).map(str::to_owned)
    }

    fn get_vocab(&self) -> HashMap<String, u32> {
        let tokens = self.vocabulary.iter();
        tokens.map(|(token, id)| (token.to_owned(), id)).collect()
    }

    fn get_vocab_size(&self) -> usize {
        self.vocabulary.distinct()
    }

    fn save(&self, _: &Path, _: Option<&str>) -> tokenizers::Result<Vec<PathBuf>> {
        Err("the engine writes no tokenizer".into())
    }

    fn get_trainer(&self) -> BpeTrainer {
        BpeTrainer::default()
    }
}

#[cfg(test)]
mod tests;
