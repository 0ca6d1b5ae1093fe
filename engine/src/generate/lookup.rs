//! Prompt lookup: drafts of the coming tokens from the text so far.
//!
//! An answer often repeats runs of its prompt or of itself: names, code, quotes,
//! tables. The last tokens are looked up in the text before them, and what
//! followed there is the draft (A. Saxena, *Prompt Lookup Decoding*, 2023). A
//! draft is only worth verifying as far as it is likely to stand; how likely,
//! is learnt from the text: every token tells whether the match before it was
//! right, drafted or not, so text without repetition soon drafts nothing.

use std::collections::HashMap;

/// Longest run of tokens that is looked up; the shorter ones follow down to one.
const GRAM: usize = 3;
/// Matches of this length and longer count as equally good.
const LONGEST: usize = 8;
/// What verifying one more token costs, in steps of one token: a draft goes on
/// while it is likelier than this to be right so far. The true cost is small
/// where decoding waits for memory, and 0.5 to 0.75 where it computes, as that of
/// a prompt's token. Counting on 0.5 gives up a tenth of the gain on machines of
/// the first kind and next to nothing is lost on the second. It is no measured
/// time, so that equal input gives equal steps.
const ROW_COST: f32 = 0.5;
/// How fast the estimates follow the text.
const RATE: f32 = 0.125;
/// How often a match of each length is right, before the text has told.
const PRIOR: [f32; LONGEST] = [0.2, 0.4, 0.6, 0.7, 0.8, 0.8, 0.9, 0.9];

/// The last tokens of a run; what it is shorter than [`GRAM`] is filled up.
type Gram = [u32; GRAM];
/// No token of any vocabulary.
const NONE: u32 = u32::MAX;

/// Where the end of the text stood before.
#[derive(Clone, Copy, Debug)]
struct Match {
    /// The token that followed there: an index into the history.
    next: usize,
    /// Tokens that agree before it, 1 to [`LONGEST`].
    length: usize,
}

/// The runs of one text, as it grows. The work for a token does not depend on
/// how much text there is.
#[derive(Debug)]
pub(super) struct Lookup {
    /// What follows the most recent occurrence of each run of 1 to [`GRAM`] tokens.
    followers: HashMap<Gram, usize>,
    found: Option<Match>,
    /// How often a match of each length was right of late.
    reliability: [f32; LONGEST],
}

impl Lookup {
    /// A lookup for a text of at most `tokens`; it never grows.
    pub(super) fn new(tokens: usize) -> Self {
        Self {
            followers: HashMap::with_capacity(tokens.saturating_mul(GRAM)),
            found: None,
            reliability: PRIOR,
        }
    }

    /// Takes a prompt, from the start.
    pub(super) fn read(&mut self, prompt: &[u32]) {
        for len in 1..=prompt.len() {
            self.advance(&prompt[..len]);
        }
    }

    /// Takes the last token of `history`, the others having been taken before.
    pub(super) fn advance(&mut self, history: &[u32]) {
        let Some((&token, before)) = history.split_last() else {
            return;
        };
        let going_on = self.found.filter(|found| {
            let right = before[found.next] == token;
            let reliability = &mut self.reliability[found.length - 1];
            *reliability += RATE * (f32::from(u8::from(right)) - *reliability);
            right
        });
        for length in 1..=GRAM.min(before.len()) {
            self.followers.insert(gram(before, length), before.len());
        }
        self.found = match going_on {
            Some(Match { next, length }) => Some(Match {
                next: next + 1,
                length: LONGEST.min(length + 1),
            }),
            None => self.find(history),
        };
    }

    /// The most recent place where the longest run stood before.
    fn find(&self, history: &[u32]) -> Option<Match> {
        let (length, &next) = (1..=GRAM.min(history.len()))
            .rev()
            .find_map(|n| Some((n, self.followers.get(&gram(history, n))?)))?;
        let agree = history[..next]
            .iter()
            .rev()
            .zip(history.iter().rev())
            .take(LONGEST)
            .take_while(|(a, b)| a == b)
            .count();
        Some(Match {
            next,
            length: agree.max(length),
        })
    }

    /// Appends to `draft` the tokens that are likely to follow `history`, the
    /// text taken so far: at most `most` of them.
    pub(super) fn draft(&self, history: &[u32], most: usize, draft: &mut Vec<u32>) {
        let Some(found) = self.found else {
            return;
        };
        let start = draft.len();
        let mut likely = 1.0;
        for i in 0..most {
            let length = LONGEST.min(found.length + i);
            likely *= self.reliability[length - 1];
            if likely <= ROW_COST {
                return;
            }
            // A run that overlaps its own repetition goes on in the draft.
            let at = found.next + i;
            let token = match history.get(at) {
                Some(&token) => token,
                None => draft[start + at - history.len()],
            };
            draft.push(token);
        }
    }
}

/// The last `length` tokens.
fn gram(tokens: &[u32], length: usize) -> Gram {
    let mut gram = [NONE; GRAM];
    gram[..length].copy_from_slice(&tokens[tokens.len() - length..]);
    gram
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drafted(history: &[u32], most: usize) -> Vec<u32> {
        let mut lookup = Lookup::new(history.len());
        lookup.read(history);
        let mut draft = vec![];
        lookup.draft(history, most, &mut draft);
        draft
    }

    #[test]
    fn the_longest_run_wins_and_of_those_the_last() {
        // Three tokens agree at the start, two later.
        let history = [1, 2, 3, 40, 9, 2, 3, 50, 8, 1, 2, 3];
        assert_eq!(drafted(&history, 1), [40]);
        // Two places of three tokens: the later one.
        let history = [1, 2, 3, 40, 1, 2, 3, 50, 1, 2, 3];
        assert_eq!(drafted(&history, 1), [50]);
    }

    #[test]
    fn text_without_repetition_has_no_draft() {
        assert!(drafted(&[], 8).is_empty());
        assert!(drafted(&[5], 8).is_empty());
        let all: Vec<u32> = (0..500).collect();
        assert!(drafted(&all, 8).is_empty());
    }

    #[test]
    fn a_repetition_overlaps_itself() {
        assert_eq!(drafted(&[7; 20], 5), [7; 5]);
        let two: Vec<u32> = (0..30).map(|i| i % 2).collect();
        assert_eq!(drafted(&two, 6), [0, 1, 0, 1, 0, 1]);
    }

    #[test]
    fn drafts_grow_with_success_and_cease_with_failure() {
        // A token that is followed by another one every time.
        let mut history: Vec<u32> = (0..400).flat_map(|i| [1, 1000 + i]).collect();
        history.push(1);
        assert!(drafted(&history, 8).is_empty());

        // The same, once runs have come that repeat: single tokens still
        // promise nothing, long matches do.
        let run: Vec<u32> = (10..60).collect();
        for _ in 0..3 {
            history.extend_from_slice(&run);
        }
        assert!(drafted(&[&history[..], &[1]].concat(), 8).is_empty());
        assert_eq!(drafted(&history, 8), run[..8]);
    }

    /// Against the definition, by a search through the whole text.
    #[test]
    fn matches_are_those_of_a_full_search() {
        let mut state = 12345u32;
        let mut history = vec![];
        let mut lookup = Lookup::new(3000);
        let capacity = lookup.followers.capacity();
        let mut found = 0;
        for _ in 0..3000 {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            history.push((state >> 24) % 12);
            let went_on = lookup
                .found
                .is_some_and(|m| Some(&history[m.next]) == history.last());
            lookup.advance(&history);
            let agree = |next: usize| {
                let pairs = history[..next].iter().rev().zip(history.iter().rev());
                pairs.take_while(|(a, b)| a == b).count()
            };
            let best = (1..history.len())
                .filter(|&next| agree(next) > 0)
                .max_by_key(|&next| (agree(next).min(GRAM), next));
            let Some(is) = lookup.found else {
                assert_eq!(best, None);
                continue;
            };
            found += 1;
            assert_eq!(is.length, agree(is.next).min(LONGEST));
            if !went_on {
                assert_eq!(Some(is.next), best);
            }
        }
        assert!(found > 2900, "{found}");
        assert_eq!(lookup.followers.capacity(), capacity, "the index grew");
    }
}
