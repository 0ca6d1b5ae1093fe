//! `[stream]`: how the text of a streamed answer is put into messages.

use serde::Deserialize;

use super::check::Problems;

const MAX_CHUNK_MS: u64 = 5000;
const MAX_CHUNK_BYTES: usize = 65_536;

/// `[stream]`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Stream {
    /// Milliseconds that text may be held back to go with what follows; 0: none.
    pub chunk_ms: u64,
    /// Bytes of text that are not held back any longer.
    pub chunk_bytes: usize,
}

impl Default for Stream {
    fn default() -> Self {
        Self {
            chunk_ms: 50,
            chunk_bytes: 512,
        }
    }
}

impl Stream {
    pub(super) fn check(&self, found: &mut Problems) {
        if self.chunk_ms > MAX_CHUNK_MS {
            let message = format!("is {} ms; give at most {MAX_CHUNK_MS}", self.chunk_ms);
            found.add("stream.chunk-ms", message);
        }
        found.range("stream.chunk-bytes", self.chunk_bytes, 1, MAX_CHUNK_BYTES);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn both_have_a_range() {
        let keys = |chunk_ms, chunk_bytes| -> Vec<&str> {
            let mut config = Config::for_model("m");
            config.stream = Stream {
                chunk_ms,
                chunk_bytes,
            };
            config.problems().iter().map(|p| p.key).collect()
        };
        assert_eq!(keys(0, 1), [""; 0]);
        assert_eq!(keys(5000, 65_536), [""; 0]);
        assert_eq!(keys(5001, 0), ["stream.chunk-ms", "stream.chunk-bytes"]);
        assert_eq!(keys(50, 65_537), ["stream.chunk-bytes"]);
    }
}
