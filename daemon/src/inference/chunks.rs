//! Pieces of text put together, so that not every token is a message of its own.

use std::time::Instant;

use super::Chunking;

/// Text that was not sent yet.
///
/// There is no timer: text becomes due with the piece that finds it so, or with the
/// end of the answer. Tokens come steadily, so that is soon.
#[derive(Debug)]
pub(super) struct Chunks {
    chunking: Chunking,
    text: String,
    /// When the last chunk left; the first one does not wait.
    sent: Option<Instant>,
}

impl Chunks {
    pub(super) fn new(chunking: Chunking) -> Self {
        Self {
            chunking,
            text: String::new(),
            sent: None,
        }
    }

    /// Adds a piece.
    pub(super) fn push(&mut self, piece: &str) {
        self.text.push_str(piece);
    }

    /// The chunk that is due, if one is. Never empty.
    pub(super) fn due(&mut self, now: Instant) -> Option<String> {
        let Chunking { interval, bytes } = self.chunking;
        let waited = self.sent.map(|sent| now.saturating_duration_since(sent));
        let is_due = waited.is_none_or(|waited| waited >= interval) || self.text.len() >= bytes;
        if self.text.is_empty() || !is_due {
            return None;
        }
        self.sent = Some(now);
        Some(std::mem::take(&mut self.text))
    }

    /// What is left at the end. Never empty.
    pub(super) fn rest(self) -> Option<String> {
        Some(self.text).filter(|text| !text.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// What comes out of pieces that come so many milliseconds apart.
    fn sent(interval: u64, bytes: usize, apart: u64, pieces: &[&str]) -> Vec<String> {
        let mut chunks = Chunks::new(Chunking {
            interval: Duration::from_millis(interval),
            bytes,
        });
        let mut now = Instant::now();
        let mut sent = Vec::new();
        for piece in pieces {
            chunks.push(piece);
            sent.extend(chunks.due(now));
            now += Duration::from_millis(apart);
        }
        sent.extend(chunks.rest());
        sent
    }

    #[test]
    fn the_first_at_once_and_the_others_when_their_time_has_come() {
        assert_eq!(
            sent(50, 100, 20, &["a", "b", "c", "d", "e", "f"]),
            ["a", "bcd", "ef"]
        );
    }

    #[test]
    fn a_slow_generator_is_not_held_back() {
        assert_eq!(sent(50, 100, 50, &["a", "b", "c"]), ["a", "b", "c"]);
    }

    #[test]
    fn enough_bytes_do_not_wait() {
        assert_eq!(
            sent(50, 4, 0, &["a", "b", "cd", "éf", "g"]),
            ["a", "bcdéf", "g"]
        );
    }

    #[test]
    fn without_an_interval_each_piece_goes_by_itself() {
        assert_eq!(sent(0, 100, 0, &["a", "b", "c"]), ["a", "b", "c"]);
    }

    #[test]
    fn tokens_without_text_make_no_chunk_but_release_one() {
        assert_eq!(sent(50, 100, 30, &["", "a", "b", "", "c"]), ["a", "b", "c"]);
    }
}
