//! The tokens of a vocabulary and their ids.

use std::hash::{BuildHasher as _, RandomState};

/// Tokens one behind the other in one string. They are known by their index, the
/// order in which they came; ids are what the model calls them.
#[derive(Debug, Default)]
pub(crate) struct Vocabulary {
    text: String,
    /// Where each token ends in `text`.
    ends: Vec<u32>,
    ids: Vec<u32>,
    /// Indices by ascending id; empty where the tokens came in that order.
    by_id: Vec<u32>,
    /// A hash table of indices with linear probing, a power of two long.
    slots: Vec<u32>,
    /// Seeded anew each time: a file cannot have its tokens collide.
    hasher: RandomState,
    /// Different tokens.
    distinct: usize,
}

/// No index: a vocabulary has fewer tokens than bytes, and those are counted in 32 bits.
const EMPTY: u32 = u32::MAX;

impl Vocabulary {
    /// Adds a token, which is found after [`Self::index`]. False if the text has
    /// become too long.
    pub(super) fn push(&mut self, token: &str, id: u32) -> bool {
        self.text.push_str(token);
        match u32::try_from(self.text.len()) {
            Ok(end) if self.ids.len() < EMPTY as usize => {
                self.ends.push(end);
                self.ids.push(id);
                true
            }
            _ => false,
        }
    }

    /// Makes what was pushed findable. Of a token that came twice the last id counts.
    pub(super) fn index(&mut self) {
        self.text.shrink_to_fit();
        self.ends.shrink_to_fit();
        self.ids.shrink_to_fit();
        self.slots = vec![EMPTY; (self.ids.len() * 2).next_power_of_two()];
        self.distinct = 0;
        for index in 0..self.ids.len() as u32 {
            let slot = self.slot(self.token(index));
            match self.slots.get(slot).copied() {
                Some(EMPTY) => {
                    self.slots[slot] = index;
                    self.distinct += 1;
                }
                Some(first) => self.ids[first as usize] = self.ids[index as usize],
                None => {}
            }
        }
        if !self.ids.is_sorted() {
            let mut by_id: Vec<u32> = (0..self.ids.len() as u32).collect();
            by_id.sort_by_key(|&index| self.ids[index as usize]);
            self.by_id = by_id;
        }
    }

    /// The slot where a token is, or would be.
    fn slot(&self, token: &str) -> usize {
        let mask = self.slots.len() - 1;
        let mut slot = self.hasher.hash_one(token) as usize & mask;
        // Half of the slots at least are empty.
        while self.slots[slot] != EMPTY && self.token(self.slots[slot]) != token {
            slot = (slot + 1) & mask;
        }
        slot
    }

    /// The index of a token.
    pub(super) fn find(&self, token: &str) -> Option<u32> {
        if self.slots.is_empty() {
            return None;
        }
        Some(self.slots[self.slot(token)]).filter(|&index| index != EMPTY)
    }

    /// The token at an index below [`Self::len`].
    pub(super) fn token(&self, index: u32) -> &str {
        let index = index as usize;
        let start = index.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.text[start as usize..self.ends[index] as usize]
    }

    /// The id of the token at an index below [`Self::len`].
    pub(super) fn id(&self, index: u32) -> u32 {
        self.ids[index as usize]
    }

    /// The token of an id.
    pub(super) fn token_of_id(&self, id: u32) -> Option<&str> {
        let index = if self.by_id.is_empty() {
            // Most vocabularies have no gaps: the id is the index.
            match self.ids.get(id as usize) {
                Some(&found) if found == id => id,
                _ => self.ids.binary_search(&id).ok()? as u32,
            }
        } else {
            let id_at = |&index: &u32| self.ids[index as usize];
            self.by_id[self.by_id.binary_search_by_key(&id, id_at).ok()?]
        };
        Some(self.token(index))
    }

    /// Different tokens.
    pub(super) fn distinct(&self) -> usize {
        self.distinct
    }

    /// Indices in use.
    pub(super) fn len(&self) -> usize {
        self.ids.len()
    }

    /// All tokens with their ids.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, u32)> {
        (0..self.ids.len() as u32).map(|index| (self.token(index), self.id(index)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vocabulary(tokens: &[(&str, u32)]) -> Vocabulary {
        let mut vocabulary = Vocabulary::default();
        for (token, id) in tokens {
            assert!(vocabulary.push(token, *id));
        }
        vocabulary.index();
        vocabulary
    }

    #[test]
    fn tokens_are_found_by_text_and_by_id() {
        let orders: [&[(&str, u32)]; 4] = [
            &[("a", 0), ("", 1), ("Ġb", 2)],
            &[("a", 3), ("", 7), ("Ġb", u32::MAX)],
            &[("a", 9), ("", 0), ("Ġb", 5)],
            &[],
        ];
        for tokens in orders {
            let vocabulary = vocabulary(tokens);
            for (token, id) in tokens {
                let index = vocabulary.find(token).unwrap();
                assert_eq!(
                    (vocabulary.token(index), vocabulary.id(index)),
                    (*token, *id)
                );
                assert_eq!(vocabulary.token_of_id(*id), Some(*token));
            }
            assert_eq!(vocabulary.find("b"), None);
            assert_eq!(vocabulary.token_of_id(4), None);
            assert_eq!(vocabulary.distinct(), tokens.len());
            assert!(vocabulary.iter().eq(tokens.iter().copied()));
        }
    }

    #[test]
    fn the_last_id_of_a_token_counts() {
        let vocabulary = vocabulary(&[("a", 0), ("b", 1), ("a", 2)]);
        let index = vocabulary.find("a").unwrap();
        assert_eq!(vocabulary.id(index), 2);
        assert_eq!(vocabulary.distinct(), 2);
        assert_eq!(vocabulary.token_of_id(2), Some("a"));
    }

    #[test]
    fn an_empty_one_finds_nothing() {
        assert_eq!(Vocabulary::default().find("a"), None);
        assert_eq!(Vocabulary::default().token_of_id(0), None);
    }
}
