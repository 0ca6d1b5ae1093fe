//! Text out of tokens as they come, never half a character.

use super::codec::Codec;
use super::decoder::Scheme;
use super::error::TextError;

/// Tokens a decoder of an unknown kind may leave unresolved before its text is
/// taken as it is.
const LONGEST_WAIT: usize = 16;
/// Bytes reserved for a token and the beginning of a character before it: above
/// the longest tokens of the Llamas.
const RESERVED: usize = 1024;

/// Turns tokens into text, one by one.
///
/// The pieces put together are what [`Codec::decode`] makes of all tokens. The
/// work for a token does not grow with the text before it.
#[derive(Debug)]
pub(crate) struct Detokeniser<'a> {
    codec: &'a Codec,
    skip_special_tokens: bool,
    state: State,
}

#[derive(Debug)]
enum State {
    Bytes {
        /// The beginning of a character.
        pending: Vec<u8>,
        /// What may still be dropped at the start of the text.
        strip: Option<(char, usize)>,
        /// One U+FFFD for each byte that is none of a character, as SentencePiece
        /// has it; otherwise one for each broken sequence, as `from_utf8_lossy` has it.
        replace_each_byte: bool,
    },
    Window {
        /// Tokens already turned into text, which the next ones are decoded with.
        context: usize,
        ids: Vec<u32>,
    },
}

impl<'a> Detokeniser<'a> {
    /// A detokeniser for one text.
    ///
    /// SentencePiece drops the space at the start of a text. `at_start` is true
    /// for an answer of its own, false for one that continues the prompt's words.
    pub(crate) fn new(codec: &'a Codec, skip_special_tokens: bool, at_start: bool) -> Self {
        let pending = Vec::with_capacity(RESERVED);
        let state = match codec.scheme() {
            Scheme::ByteLevel => State::Bytes {
                pending,
                strip: None,
                replace_each_byte: false,
            },
            Scheme::ByteFallback(fallback) => State::Bytes {
                pending,
                strip: fallback.strip.filter(|_| at_start),
                replace_each_byte: true,
            },
            Scheme::Other => State::Window {
                context: 0,
                ids: Vec::new(),
            },
        };
        Self {
            codec,
            skip_special_tokens,
            state,
        }
    }

    /// Appends to `out` the text that became final with this token. Ids the
    /// tokenizer does not know have no text.
    pub(crate) fn push(&mut self, id: u32, out: &mut String) -> Result<(), TextError> {
        match &mut self.state {
            State::Bytes {
                pending,
                strip,
                replace_each_byte,
            } => {
                self.codec.push_bytes(id, self.skip_special_tokens, pending);
                take_characters(pending, *replace_each_byte, |text| {
                    push_stripped(text, strip, out);
                });
                Ok(())
            }
            State::Window { context, ids } => {
                if self.codec.token(id, self.skip_special_tokens).is_none() {
                    return Ok(());
                }
                ids.push(id);
                let waited = ids.len() - *context;
                let text = new_text(self.codec, ids, *context, self.skip_special_tokens)?;
                let unresolved = text.is_empty() || text.ends_with(char::REPLACEMENT_CHARACTER);
                if !unresolved || waited >= LONGEST_WAIT {
                    out.push_str(&text);
                    ids.drain(..*context);
                    *context = ids.len();
                }
                Ok(())
            }
        }
    }

    /// The tokens have ended: appends what was waiting, U+FFFD for broken characters.
    pub(crate) fn finish(&mut self, out: &mut String) {
        match &mut self.state {
            State::Bytes {
                pending,
                strip,
                replace_each_byte,
            } => {
                let count = if *replace_each_byte {
                    pending.len()
                } else {
                    usize::from(!pending.is_empty())
                };
                pending.clear();
                for _ in 0..count {
                    push_stripped("\u{FFFD}", strip, out);
                }
            }
            State::Window { context, ids } => {
                // These tokens were decoded before; an error now has no text to lose.
                if let Ok(text) = new_text(self.codec, ids, *context, self.skip_special_tokens) {
                    out.push_str(&text);
                }
                ids.clear();
                *context = 0;
            }
        }
    }
}

/// Hands on the whole characters at the front of `bytes`, and keeps a beginning
/// of one at the end.
fn take_characters(bytes: &mut Vec<u8>, replace_each_byte: bool, mut sink: impl FnMut(&str)) {
    let mut done = 0;
    while let Some(rest) = bytes.get(done..) {
        match std::str::from_utf8(rest) {
            Ok(text) => {
                sink(text);
                done = bytes.len();
                break;
            }
            Err(error) => {
                let valid = error.valid_up_to();
                if let Some(Ok(text)) = rest.get(..valid).map(std::str::from_utf8) {
                    sink(text);
                }
                done += valid;
                let Some(broken) = error.error_len() else {
                    break;
                };
                for _ in 0..(if replace_each_byte { broken } else { 1 }) {
                    sink("\u{FFFD}");
                }
                done += broken;
            }
        }
    }
    bytes.drain(..done.min(bytes.len()));
}

/// Appends text, less the characters that are to be dropped at the start.
fn push_stripped(mut text: &str, strip: &mut Option<(char, usize)>, out: &mut String) {
    while let Some((character, left)) = *strip {
        if text.is_empty() {
            return;
        }
        match text.strip_prefix(character) {
            Some(rest) if left > 0 => {
                text = rest;
                *strip = Some((character, left - 1));
            }
            _ => *strip = None,
        }
    }
    out.push_str(text);
}

/// What the tokens after the context add to the text.
fn new_text(
    codec: &Codec,
    ids: &[u32],
    context: usize,
    skip_special_tokens: bool,
) -> Result<String, TextError> {
    let before = codec.decode_row(ids.get(..context).unwrap_or(ids), skip_special_tokens)?;
    let after = codec.decode_row(ids, skip_special_tokens)?;
    Ok(after.get(before.len()..).unwrap_or_default().to_owned())
}

#[cfg(test)]
mod tests {
    use rand_chacha::ChaCha8Rng;
    use rand_chacha::rand_core::{RngCore, SeedableRng};

    use super::super::test_tokenizers::{byte_fallback, byte_level, word_piece};
    use super::*;

    fn stream(codec: &Codec, ids: &[u32], skip: bool) -> Vec<String> {
        let mut detokeniser = Detokeniser::new(codec, skip, true);
        let mut pieces = Vec::new();
        for &id in ids {
            let mut piece = String::new();
            detokeniser.push(id, &mut piece).unwrap();
            pieces.push(piece);
        }
        let mut piece = String::new();
        detokeniser.finish(&mut piece);
        pieces.push(piece);
        pieces
    }

    fn ids(codec: &Codec, tokens: &[&str]) -> Vec<u32> {
        tokens
            .iter()
            .map(|t| codec.id(t).unwrap_or_else(|| panic!("no token {t}")))
            .collect()
    }

    /// Random rows, of bytes mostly, so that characters are cut everywhere.
    fn rows(codec: &Codec, seed: u64, count: usize) -> Vec<Vec<u32>> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let vocab = codec.vocab_size() as u32;
        (0..count)
            .map(|_| {
                let length = rng.next_u32() % 40;
                // Ids just past the vocabulary too.
                (0..length).map(|_| rng.next_u32() % (vocab + 3)).collect()
            })
            .collect()
    }

    #[test]
    fn byte_level_pieces_are_the_decoded_text() {
        let codec = byte_level();
        for skip in [false, true] {
            for row in rows(&codec, 5, 3000) {
                let whole = codec.decode_row(&row, skip).unwrap();
                assert_eq!(stream(&codec, &row, skip).concat(), whole, "{row:?}");
                assert_eq!(codec.decode(&row, skip).unwrap(), whole);
            }
        }
    }

    #[test]
    fn byte_level_text_encodes_and_streams_back() {
        let codec = byte_level();
        let text = "naïve 😀😁 中文\n\tend";
        let row = codec.encode(text, false).unwrap();
        let pieces = stream(&codec, &row, true);
        assert_eq!(pieces.concat(), text);
        assert!(pieces.iter().all(|p| !p.contains('\u{FFFD}')));
        assert!(pieces.iter().any(String::is_empty), "no character was cut");
    }

    /// SentencePiece's own rule for a row of tokens: bytes of a whole character
    /// are that character, any other byte is U+FFFD; one leading space goes.
    fn sentence_piece(codec: &Codec, row: &[u32], skip: bool) -> String {
        let mut bytes = Vec::new();
        for token in row.iter().filter_map(|&id| codec.token(id, skip)) {
            match token.strip_prefix("<0x").and_then(|t| t.strip_suffix('>')) {
                Some(hex) => bytes.push(u8::from_str_radix(hex, 16).unwrap()),
                None => bytes.extend_from_slice(token.replace('▁', " ").as_bytes()),
            }
        }
        let mut text = String::new();
        let mut at = 0;
        while at < bytes.len() {
            let character = (1..=4)
                .filter_map(|n| std::str::from_utf8(bytes.get(at..at + n)?).ok())
                .next();
            text.push_str(character.unwrap_or("\u{FFFD}"));
            at += character.map_or(1, str::len);
        }
        text.strip_prefix(' ').unwrap_or(&text).to_owned()
    }

    #[test]
    fn byte_fallback_pieces_are_the_decoded_text() {
        let codec = byte_fallback();
        let mut whole_rows = 0;
        for skip in [false, true] {
            for row in rows(&codec, 9, 3000) {
                let text = stream(&codec, &row, skip).concat();
                assert_eq!(text, sentence_piece(&codec, &row, skip), "{row:?}");
                assert_eq!(codec.decode(&row, skip).unwrap(), text);
                // `tokenizers` gives up a whole run of bytes for one that is
                // broken; where none is, it agrees.
                if !text.contains('\u{FFFD}') {
                    assert_eq!(codec.decode_row(&row, skip).unwrap(), text, "{row:?}");
                    whole_rows += 1;
                }
            }
        }
        assert!(whole_rows > 200, "{whole_rows}");
    }

    #[test]
    fn byte_fallback_rows_of_whole_characters_agree_with_tokenizers() {
        let codec = byte_fallback();
        let mut rng = ChaCha8Rng::seed_from_u64(21);
        let words = [" a", "é", "😀", "中", "\n", "  ", "Hello", "ß"];
        for _ in 0..1000 {
            let text: String = (0..rng.next_u32() % 12)
                .map(|_| words[rng.next_u32() as usize % words.len()])
                .collect();
            let row = codec.encode(&text, true).unwrap();
            let pieces = stream(&codec, &row, true);
            assert_eq!(pieces.concat(), codec.decode_row(&row, true).unwrap());
            assert_eq!(pieces.concat(), text, "{row:?}");
        }
    }

    #[test]
    fn a_character_waits_for_its_last_byte() {
        let codec = byte_fallback();
        let row = ids(
            &codec,
            &["▁Hello", "<0xF0>", "<0x9F>", "<0x98>", "<0x80>", "▁a"],
        );
        assert_eq!(
            stream(&codec, &row, true),
            ["Hello", "", "", "", "😀", " a", ""]
        );
    }

    #[test]
    fn only_the_space_at_the_start_of_a_text_goes() {
        let codec = byte_fallback();
        let row = ids(&codec, &["▁", "▁Hello", "▁Hello", "<0x20>"]);
        assert_eq!(
            stream(&codec, &row, true),
            ["", " Hello", " Hello", " ", ""]
        );
        // A special token in front does not count, nor does one that is shown.
        let row = ids(&codec, &["<s>", "▁Hello"]);
        assert_eq!(stream(&codec, &row, true).concat(), "Hello");
        assert_eq!(stream(&codec, &row, false).concat(), "<s> Hello");

        let mut continued = Detokeniser::new(&codec, true, false);
        let mut out = String::new();
        for id in row {
            continued.push(id, &mut out).unwrap();
        }
        assert_eq!(out, " Hello");
    }

    #[test]
    fn what_is_broken_at_the_end_becomes_replacement_characters() {
        let codec = byte_fallback();
        let row = ids(&codec, &["a", "<0xE4>", "<0xB8>"]);
        assert_eq!(
            stream(&codec, &row, true),
            ["a", "", "", "\u{FFFD}\u{FFFD}"]
        );
        assert_eq!(
            codec.decode_row(&row, true).unwrap(),
            "a\u{FFFD}\u{FFFD}",
            "as tokenizers has it"
        );
        let row = ids(&codec, &["<0xE4>", "a"]);
        assert_eq!(stream(&codec, &row, true), ["", "\u{FFFD}a", ""]);
    }

    #[test]
    fn a_decoder_of_another_kind_streams_through_a_window() {
        let codec = word_piece();
        for row in rows(&codec, 2, 500) {
            let whole = codec.decode_row(&row, true).unwrap();
            assert_eq!(stream(&codec, &row, true).concat(), whole, "{row:?}");
        }
        let mut detokeniser = Detokeniser::new(&codec, true, true);
        let mut out = String::new();
        for _ in 0..500 {
            for id in ids(&codec, &["[CLS]", "play", "##ing"]) {
                detokeniser.push(id, &mut out).unwrap();
            }
            match &detokeniser.state {
                State::Window { ids, .. } => assert!(ids.len() <= 2 * LONGEST_WAIT),
                State::Bytes { .. } => panic!("word pieces are no bytes"),
            }
        }
        assert!(out.starts_with("playing playing"));
    }
}
