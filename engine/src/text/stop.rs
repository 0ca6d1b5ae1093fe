//! Stop strings over a stream of text.

/// Bytes reserved for a piece that comes after what is held back.
const RESERVED: usize = 1024;

/// Passes text on until one of several strings is complete.
///
/// Text that may be the beginning of a stop string is held back until it turns
/// out not to be. The match that completes first ends the stream, and of those
/// that complete together the longest, so the outcome does not depend on how the
/// text was cut into pieces.
#[derive(Debug)]
pub(crate) struct StopMatcher {
    stops: Vec<Automaton>,
    /// The end of the text so far, which some automaton is in the middle of.
    held: String,
    stopped: bool,
}

impl StopMatcher {
    /// Looks for any of `stops`; empty ones are ignored.
    pub(crate) fn new<S: AsRef<str>>(stops: &[S]) -> Self {
        let stops: Vec<Automaton> = stops
            .iter()
            .map(AsRef::as_ref)
            .filter(|s| !s.is_empty())
            .map(Automaton::new)
            .collect();
        let longest = stops.iter().map(|s| s.pattern.len()).max().unwrap_or(0);
        Self {
            stops,
            held: String::with_capacity(longest + RESERVED),
            stopped: false,
        }
    }

    /// Takes the next piece, whole characters, and appends to `out` what belongs
    /// to the text for certain. True when a stop string is complete: then and
    /// from then on nothing more comes out.
    pub(crate) fn push(&mut self, text: &str, out: &mut String) -> bool {
        if self.stopped {
            return true;
        }
        if self.stops.is_empty() {
            out.push_str(text);
            return false;
        }
        let before = self.held.len();
        self.held.push_str(text);
        for (offset, byte) in text.bytes().enumerate() {
            let longest = self
                .stops
                .iter_mut()
                .filter_map(|stop| stop.step(byte))
                .max();
            if let Some(length) = longest {
                let start = (before + offset + 1).saturating_sub(length);
                out.push_str(self.held.get(..start).unwrap_or_default());
                self.held.clear();
                self.stopped = true;
                return true;
            }
        }
        let pending = self.stops.iter().map(|s| s.matched).max().unwrap_or(0);
        let certain = self.held.len().saturating_sub(pending);
        // A stop string begins with the first byte of a character, so the cut
        // lies between characters.
        if let Some(text) = self.held.get(..certain) {
            out.push_str(text);
            self.held.drain(..certain);
        }
        false
    }

    /// The stream has ended: what was held back belongs to the text.
    pub(crate) fn finish(&mut self, out: &mut String) {
        out.push_str(&self.held);
        self.held.clear();
    }

    /// Whether a stop string was complete.
    pub(crate) fn stopped(&self) -> bool {
        self.stopped
    }
}

/// Knuth, Morris and Pratt's search for one string, a byte at a time.
#[derive(Debug)]
struct Automaton {
    pattern: Vec<u8>,
    /// For each length matched, the longest proper prefix that is also its suffix.
    fallback: Vec<usize>,
    /// Bytes of the pattern the text ends in.
    matched: usize,
}

impl Automaton {
    fn new(pattern: &str) -> Self {
        let pattern = pattern.as_bytes().to_vec();
        let mut fallback = vec![0; pattern.len() + 1];
        let mut border = 0;
        for i in 1..pattern.len() {
            while border > 0 && pattern[i] != pattern[border] {
                border = fallback[border];
            }
            if pattern[i] == pattern[border] {
                border += 1;
            }
            fallback[i + 1] = border;
        }
        Self {
            pattern,
            fallback,
            matched: 0,
        }
    }

    /// The pattern's length when `byte` completes it.
    fn step(&mut self, byte: u8) -> Option<usize> {
        while self.matched > 0 && self.pattern[self.matched] != byte {
            self.matched = self.fallback[self.matched];
        }
        if self.pattern[self.matched] == byte {
            self.matched += 1;
        }
        let length = self.pattern.len();
        (self.matched == length).then(|| {
            self.matched = self.fallback[length];
            length
        })
    }
}

#[cfg(test)]
mod tests {
    use rand_chacha::ChaCha8Rng;
    use rand_chacha::rand_core::{RngCore, SeedableRng};

    use super::*;

    fn run(stops: &[&str], pieces: &[&str]) -> (Vec<String>, String, bool) {
        let mut matcher = StopMatcher::new(stops);
        let mut seen = Vec::new();
        for piece in pieces {
            let mut out = String::new();
            matcher.push(piece, &mut out);
            seen.push(out);
        }
        let mut rest = String::new();
        matcher.finish(&mut rest);
        (seen, rest, matcher.stopped())
    }

    /// The definition: the match with the first end, and of those the first start.
    fn reference<'t>(stops: &[String], text: &'t str) -> (&'t str, bool) {
        let first = stops
            .iter()
            .filter(|s| !s.is_empty())
            .flat_map(|s| {
                (0..text.len())
                    .filter(|&i| text.is_char_boundary(i) && text[i..].starts_with(s.as_str()))
                    .map(|i| (i + s.len(), i))
            })
            .min();
        match first {
            Some((_, start)) => (&text[..start], true),
            None => (text, false),
        }
    }

    #[test]
    fn holds_back_what_may_be_a_stop_string() {
        let (seen, rest, stopped) = run(&["###"], &["one #", "two ##", "x", "##"]);
        assert_eq!(seen, ["one ", "#two ", "##x", ""]);
        assert_eq!((rest.as_str(), stopped), ("##", false));
    }

    #[test]
    fn ends_before_the_match_and_stays_ended() {
        let (seen, rest, stopped) = run(&["User:"], &["Hello\nUs", "er", ": hi", "more"]);
        assert_eq!(seen, ["Hello\n", "", "", ""]);
        assert_eq!((rest.as_str(), stopped), ("", true));
    }

    #[test]
    fn a_false_start_inside_a_stop_string_is_not_lost() {
        let (seen, _, stopped) = run(&["aab"], &["a", "a", "a", "b"]);
        assert_eq!(seen, ["", "", "a", ""]);
        assert!(stopped);
    }

    #[test]
    fn of_several_the_first_to_complete_ends_it() {
        let (seen, _, stopped) = run(&["abcd", "bc"], &["xabcd"]);
        assert_eq!((seen[0].as_str(), stopped), ("xa", true));
        let (seen, _, stopped) = run(&["bc", "abc"], &["xabc"]);
        assert_eq!((seen[0].as_str(), stopped), ("x", true));
    }

    #[test]
    fn characters_of_several_bytes_are_never_cut() {
        // U+00E9 and U+00E8 share their first byte.
        let (seen, rest, stopped) = run(&["é!"], &["caf", "è", "é", "?", "é", "!"]);
        assert_eq!(seen, ["caf", "è", "", "é?", "", ""]);
        assert_eq!((rest.as_str(), stopped), ("", true));
    }

    #[test]
    fn without_stop_strings_everything_passes() {
        let (seen, rest, stopped) = run(&["", ""], &["a", "b"]);
        assert_eq!(seen, ["a", "b"]);
        assert_eq!((rest.as_str(), stopped), ("", false));
    }

    #[test]
    fn any_cutting_of_any_text_gives_the_same_end() {
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        let letters = ['a', 'b', 'é', 'è', '😀', '😁'];
        let mut word = |most: u32, least: u32| -> String {
            let length = least + rng.next_u32() % (most - least + 1);
            (0..length)
                .map(|_| letters[rng.next_u32() as usize % letters.len()])
                .collect()
        };
        let mut stopped_runs = 0;
        for _ in 0..3000 {
            let stops: Vec<String> = (0..3).map(|_| word(4, 1)).collect();
            let pieces: Vec<String> = (0..6).map(|_| word(3, 0)).collect();
            let text = pieces.concat();
            let mut matcher = StopMatcher::new(&stops);
            let mut out = String::new();
            for piece in &pieces {
                matcher.push(piece, &mut out);
                assert!(text.starts_with(&out), "{out:?} of {text:?}");
            }
            matcher.finish(&mut out);
            let (expected, ended) = reference(&stops, &text);
            assert_eq!((out.as_str(), matcher.stopped()), (expected, ended));
            stopped_runs += usize::from(ended);
        }
        assert!(stopped_runs > 300 && stopped_runs < 2990, "{stopped_runs}");
    }
}
