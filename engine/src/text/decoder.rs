//! How a tokenizer's tokens become bytes of text.

use tokenizers::Decoder;
use tokenizers::decoders::DecoderWrapper;
use tokenizers::normalizers::Replace;

use super::tokenizer::Tokenizer;

/// The decoders of the Llama family, seen as a stream of bytes.
#[derive(Debug)]
pub(super) enum Scheme {
    /// Byte-level BPE (Llama 3, SmolLM2): each character of a token stands for a byte.
    ByteLevel,
    /// SentencePiece BPE (Llama 2, TinyLlama): tokens are text, `<0x0A>` and the
    /// like are single bytes.
    ByteFallback(ByteFallback),
    /// Another decoder, known only by what it makes of a row of tokens.
    Other,
}

/// What surrounds the byte tokens in a SentencePiece decoder.
#[derive(Debug)]
pub(super) struct ByteFallback {
    /// Applied to each token, as `▁` to a space.
    replacements: Vec<Replace>,
    /// A character dropped at the very start of the text, and how many of it at most.
    pub(super) strip: Option<(char, usize)>,
}

impl Scheme {
    /// Recognises the tokenizer's decoder.
    pub(super) fn of(tokenizer: &Tokenizer) -> Self {
        let chain: &[DecoderWrapper] = match tokenizer.get_decoder() {
            Some(DecoderWrapper::Sequence(sequence)) => sequence.get_decoders(),
            Some(single) => std::slice::from_ref(single),
            None => &[],
        };
        if matches!(chain, [DecoderWrapper::ByteLevel(_)]) {
            return Self::ByteLevel;
        }
        byte_fallback(chain).map_or(Self::Other, Self::ByteFallback)
    }

    /// Appends the bytes a token stands for. False if the scheme has none for single tokens.
    pub(super) fn token_bytes(&self, token: &str, out: &mut Vec<u8>) -> bool {
        match self {
            Self::ByteLevel => byte_level_bytes(token, out),
            Self::ByteFallback(fallback) => fallback.bytes(token, out),
            Self::Other => return false,
        }
        true
    }
}

/// Accepts `Replace`s, `ByteFallback`, `Fuse` and a `Strip` of leading characters.
fn byte_fallback(chain: &[DecoderWrapper]) -> Option<ByteFallback> {
    let at = chain
        .iter()
        .position(|d| matches!(d, DecoderWrapper::ByteFallback(_)))?;
    let (before, after) = (chain.get(..at)?, chain.get(at + 1..)?);
    let replacements = before
        .iter()
        .map(|d| match d {
            DecoderWrapper::Replace(replace) => Some(replace.clone()),
            _ => None,
        })
        .collect::<Option<Vec<_>>>()?;
    let strip = match after {
        [] | [DecoderWrapper::Fuse(_)] => None,
        [DecoderWrapper::Fuse(_), DecoderWrapper::Strip(strip)] if strip.stop == 0 => {
            Some((strip.content, strip.start))
        }
        _ => return None,
    };
    Some(ByteFallback {
        replacements,
        strip,
    })
}

impl ByteFallback {
    fn bytes(&self, token: &str, out: &mut Vec<u8>) {
        let mut parts = vec![token.to_owned()];
        for replace in &self.replacements {
            parts = match replace.decode_chain(parts) {
                Ok(parts) => parts,
                // A replacement has no way to fail; if it did, the token has no text.
                Err(_) => return,
            };
        }
        for part in parts {
            match byte_token(&part) {
                Some(byte) => out.push(byte),
                None => out.extend_from_slice(part.as_bytes()),
            }
        }
    }
}

/// The byte of a token like `<0x0A>`.
fn byte_token(token: &str) -> Option<u8> {
    let digits = token.strip_prefix("<0x")?.strip_suffix('>')?;
    (digits.len() == 2)
        .then(|| u8::from_str_radix(digits, 16).ok())
        .flatten()
}

/// Bytes that stand for themselves in the byte-level alphabet (GPT-2's).
const fn stands_for_itself(byte: u8) -> bool {
    matches!(byte, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF)
}

/// The bytes that the characters of the byte-level alphabet stand for, by code
/// point: those that do not print are counted up from U+0100.
const BYTES: [Option<u8>; 0x144] = {
    let mut bytes = [None; 0x144];
    let (mut byte, mut next) = (0, 0x100);
    while byte <= 0xFF {
        if stands_for_itself(byte as u8) {
            bytes[byte] = Some(byte as u8);
        } else {
            bytes[next] = Some(byte as u8);
            next += 1;
        }
        byte += 1;
    }
    bytes
};

fn byte_of(c: char) -> Option<u8> {
    *BYTES.get(u32::from(c) as usize)?
}

fn byte_level_bytes(token: &str, out: &mut Vec<u8>) {
    let start = out.len();
    for c in token.chars() {
        match byte_of(c) {
            Some(byte) => out.push(byte),
            None => {
                // Not of the alphabet: an added token, which is plain text.
                out.truncate(start);
                out.extend_from_slice(token.as_bytes());
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokenizers::pre_tokenizers::byte_level::ByteLevel;

    use super::*;

    #[test]
    fn the_byte_level_alphabet_is_that_of_tokenizers() {
        let mut bytes: Vec<u8> = ByteLevel::alphabet()
            .into_iter()
            .map(|c| byte_of(c).expect("a character of the alphabet"))
            .collect();
        bytes.sort_unstable();
        assert_eq!(bytes, (0..=u8::MAX).collect::<Vec<_>>());
        assert_eq!(byte_of('Ġ'), Some(b' '));
        assert_eq!(byte_of('Ċ'), Some(b'\n'));
        assert_eq!(byte_of(' '), None);
        assert_eq!(byte_of('中'), None);
    }

    #[test]
    fn byte_level_tokens_outside_the_alphabet_are_plain_text() {
        let mut out = Vec::new();
        byte_level_bytes("Ġa", &mut out);
        byte_level_bytes("a b", &mut out);
        byte_level_bytes("中", &mut out);
        assert_eq!(out, " aa b中".as_bytes());
    }

    #[test]
    fn byte_tokens_are_exactly_two_digits() {
        assert_eq!(byte_token("<0x0A>"), Some(10));
        assert_eq!(byte_token("<0xff>"), Some(255));
        for other in ["<0xA>", "<0x0AB>", "<0xGG>", "0x0A", "<0xé>", ""] {
            assert_eq!(byte_token(other), None, "{other}");
        }
    }
}
