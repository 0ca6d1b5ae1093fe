//! A word as tokens that merge, the best pair first.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::merges::Merges;

/// No neighbour.
const NONE: usize = usize::MAX;

/// A token in a word, linked to its neighbours.
#[derive(Clone, Copy, Debug)]
struct Symbol {
    token: u32,
    /// Bytes of the word that it stands for; 0: merged into one before it.
    bytes: usize,
    before: usize,
    after: usize,
}

/// A row of tokens.
#[derive(Debug, Default)]
pub(super) struct Word(Vec<Symbol>);

impl Word {
    /// Adds a token that stands for some bytes of the word.
    pub(super) fn push(&mut self, token: u32, bytes: usize) {
        let here = self.0.len();
        if let Some(last) = self.0.last_mut() {
            last.after = here;
        }
        self.0.push(Symbol {
            token,
            bytes,
            before: here.checked_sub(1).unwrap_or(NONE),
            after: NONE,
        });
    }

    /// Merges pairs, the lowest rank first and the leftmost of equals, until none is left.
    pub(super) fn merge(&mut self, merges: &Merges) {
        let symbols = &mut self.0;
        // Least rank, then least position; what it makes, to know a stale entry by.
        let mut queue = BinaryHeap::with_capacity(symbols.len());
        let entry = |symbols: &[Symbol], left: usize, right: usize| {
            let (l, r) = (symbols.get(left)?, symbols.get(right)?);
            let merge = merges.get(l.token, r.token)?;
            Some(Reverse((merge.rank, left, merge.product)))
        };
        queue.extend((1..symbols.len()).filter_map(|right| entry(symbols, right - 1, right)));
        while let Some(Reverse((_, at, product))) = queue.pop() {
            let (left, next) = (symbols[at], symbols[at].after);
            if left.bytes == 0 || next == NONE {
                continue;
            }
            let right = symbols[next];
            let merge = merges.get(left.token, right.token);
            if merge.is_none_or(|merge| merge.product != product) {
                continue;
            }
            symbols[at] = Symbol {
                token: product,
                bytes: left.bytes + right.bytes,
                after: right.after,
                ..left
            };
            symbols[next].bytes = 0;
            if let Some(after) = symbols.get_mut(right.after) {
                after.before = at;
            }
            queue.extend(entry(symbols, left.before, at));
            queue.extend(entry(symbols, at, right.after));
        }
        symbols.retain(|symbol| symbol.bytes > 0);
    }

    /// The tokens, each with the bytes that it stands for.
    pub(super) fn tokens(&self) -> impl ExactSizeIterator<Item = (u32, usize)> {
        self.0.iter().map(|symbol| (symbol.token, symbol.bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::super::merges::Rule;
    use super::*;

    fn merged(tokens: &[u32], rules: &[[u32; 3]]) -> Vec<(u32, usize)> {
        let rules: Vec<Rule> = rules
            .iter()
            .map(|&[left, right, product]| Rule {
                left,
                right,
                product,
            })
            .collect();
        let mut word = Word::default();
        for &token in tokens {
            word.push(token, 1);
        }
        word.merge(&Merges::new(&rules, 10));
        word.tokens().collect()
    }

    #[test]
    fn the_lowest_rank_goes_first_and_the_leftmost_of_equals() {
        assert_eq!(merged(&[0, 0, 0], &[[0, 0, 1]]), [(1, 2), (0, 1)]);
        assert_eq!(
            merged(&[0, 1, 2], &[[1, 2, 4], [0, 1, 3]]),
            [(0, 1), (4, 2)]
        );
        assert_eq!(
            merged(&[0, 1, 2, 0, 1], &[[0, 1, 3], [3, 2, 4], [4, 3, 5]]),
            [(5, 5)]
        );
        assert_eq!(merged(&[7, 8], &[[8, 7, 1]]), [(7, 1), (8, 1)]);
        assert_eq!(merged(&[], &[[0, 0, 1]]), []);
    }
}
