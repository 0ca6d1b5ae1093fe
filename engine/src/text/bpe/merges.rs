//! Which two tokens become one, and which pair goes first.

/// A merge as a file lists it: indices of tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rule {
    pub(super) left: u32,
    pub(super) right: u32,
    pub(super) product: u32,
}

/// A merge of a known left token.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Merge {
    right: u32,
    /// Its place in the file; the least goes first.
    pub(super) rank: u32,
    pub(super) product: u32,
}

/// All merges, by their left token and there by their right one: 12 bytes each,
/// where a hash map of pairs takes three times as much.
#[derive(Debug, Default)]
pub(crate) struct Merges {
    /// Where each left token's merges begin; one more for the end.
    starts: Vec<u32>,
    merges: Vec<Merge>,
}

impl Merges {
    /// Of rules in the order of their ranks, over tokens below `tokens`.
    pub(super) fn new(rules: &[Rule], tokens: usize) -> Self {
        let mut starts = vec![0u32; tokens + 1];
        for rule in rules {
            starts[rule.left as usize] += 1;
        }
        let mut end = 0;
        for start in &mut starts {
            end += *start;
            *start = end;
        }
        // Each start is the end as yet, and comes down with every merge put in.
        let mut merges = vec![Merge::default(); rules.len()];
        for (rank, rule) in rules.iter().enumerate().rev() {
            let start = &mut starts[rule.left as usize];
            *start -= 1;
            merges[*start as usize] = Merge {
                right: rule.right,
                rank: rank as u32,
                product: rule.product,
            };
        }
        for bounds in starts.windows(2) {
            let of_left = &mut merges[bounds[0] as usize..bounds[1] as usize];
            of_left.sort_unstable_by_key(|merge| (merge.right, merge.rank));
        }
        Self { starts, merges }
    }

    /// The merge of two tokens; of a pair that is listed twice, the last.
    pub(super) fn get(&self, left: u32, right: u32) -> Option<Merge> {
        let left = left as usize;
        let bounds = *self.starts.get(left)? as usize..*self.starts.get(left + 1)? as usize;
        let of_left = self.merges.get(bounds)?;
        let after = of_left.partition_point(|merge| merge.right <= right);
        let merge = *of_left.get(after.checked_sub(1)?)?;
        (merge.right == right).then_some(merge)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(left: u32, right: u32, product: u32) -> Rule {
        Rule {
            left,
            right,
            product,
        }
    }

    #[test]
    fn pairs_are_found_with_rank_and_product() {
        let rules = [
            rule(2, 3, 4),
            rule(0, 1, 2),
            rule(2, 0, 5),
            rule(0, 1, 3),
            rule(5, 5, 5),
        ];
        let merges = Merges::new(&rules, 6);
        let get = |l, r| merges.get(l, r).map(|m| (m.rank, m.product));
        assert_eq!(get(2, 3), Some((0, 4)));
        assert_eq!(get(2, 0), Some((2, 5)));
        assert_eq!(get(0, 1), Some((3, 3)), "the last of two");
        assert_eq!(get(5, 5), Some((4, 5)));
        for (left, right) in [(0, 0), (0, 2), (1, 0), (2, 1), (2, 4), (6, 0), (9, 9)] {
            assert_eq!(get(left, right), None);
        }
        assert_eq!(Merges::new(&[], 0).get(0, 0), None);
    }
}
