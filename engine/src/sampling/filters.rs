//! Top-k, top-p and min-p without sorting the vocabulary.
//!
//! All three keep a head of the list of candidates ordered by falling logit, the
//! lower id first among equals. The head is found by selection; the candidates
//! themselves stay in the order of their ids, so that sums over them do not
//! depend on how a library's selection happens to permute.

use std::cmp::Ordering;

/// A token that may still be chosen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Candidate {
    pub(super) id: u32,
    pub(super) logit: f32,
    /// Probability relative to the most probable candidate: 0 to 1.
    pub(super) weight: f32,
}

/// Falling logit, then rising id: a total order, as logits are finite here.
fn rank(a: &Candidate, b: &Candidate) -> Ordering {
    b.logit
        .partial_cmp(&a.logit)
        .unwrap_or(Ordering::Equal)
        .then(a.id.cmp(&b.id))
}

/// Keeps the `k` best; 0 keeps all.
pub(super) fn top_k(candidates: &mut Vec<Candidate>, k: usize, scratch: &mut Vec<Candidate>) {
    if k == 0 || k >= candidates.len() {
        return;
    }
    scratch.clear();
    scratch.extend_from_slice(candidates);
    let (_, last, _) = scratch.select_nth_unstable_by(k - 1, rank);
    let last = *last;
    candidates.retain(|c| rank(c, &last) != Ordering::Greater);
}

/// Sets each weight to `exp((logit - highest) / temperature)`.
///
/// `libm` and not the platform's `exp`: the same logits and seed then give the
/// same token on every machine.
pub(super) fn weigh(candidates: &mut [Candidate], temperature: f32) {
    let highest = candidates
        .iter()
        .fold(f32::NEG_INFINITY, |m, c| m.max(c.logit));
    for c in candidates {
        c.weight = libm::expf((c.logit - highest) / temperature);
    }
}

/// Keeps the fewest best candidates whose share of the weight reaches `p`; at least one.
pub(super) fn top_p(candidates: &mut Vec<Candidate>, p: f32, scratch: &mut Vec<Candidate>) {
    if p >= 1.0 || candidates.len() <= 1 {
        return;
    }
    let total: f64 = candidates.iter().map(|c| f64::from(c.weight)).sum();
    let wanted = total * f64::from(p);

    scratch.clear();
    scratch.extend_from_slice(candidates);
    // The head is short as a rule, so it is sorted in growing blocks until it
    // is heavy enough.
    let mut rest = scratch.as_mut_slice();
    let mut block = 64;
    let mut sum = 0.0;
    while !rest.is_empty() {
        if block < rest.len() {
            rest.select_nth_unstable_by(block, rank);
        }
        let (head, tail) = rest.split_at_mut(block.min(rest.len()));
        head.sort_unstable_by(rank);
        for last in head.iter() {
            sum += f64::from(last.weight);
            if sum >= wanted {
                let last = *last;
                candidates.retain(|c| rank(c, &last) != Ordering::Greater);
                return;
            }
        }
        rest = tail;
        block = block.saturating_mul(4);
    }
}

/// Drops candidates less probable than `p` times the most probable.
pub(super) fn min_p(candidates: &mut Vec<Candidate>, p: f32) {
    if p <= 0.0 {
        return;
    }
    let highest = candidates.iter().fold(0.0f32, |m, c| m.max(c.weight));
    candidates.retain(|c| c.weight >= p * highest);
}

#[cfg(test)]
mod tests {
    use rand_chacha::ChaCha8Rng;
    use rand_chacha::rand_core::{RngCore, SeedableRng};

    use super::*;

    fn candidates(logits: &[f32], temperature: f32) -> Vec<Candidate> {
        let mut list: Vec<Candidate> = logits
            .iter()
            .enumerate()
            .map(|(id, &logit)| Candidate {
                id: id as u32,
                logit,
                weight: 0.0,
            })
            .collect();
        weigh(&mut list, temperature);
        list
    }

    fn ids(list: &[Candidate]) -> Vec<u32> {
        list.iter().map(|c| c.id).collect()
    }

    /// The definition, by a full sort in double precision.
    fn reference(logits: &[f32], temperature: f32, k: usize, p: f32, min: f32) -> Vec<u32> {
        let mut order: Vec<usize> = (0..logits.len()).collect();
        order.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]).then(a.cmp(&b)));
        if k > 0 {
            order.truncate(k);
        }
        let highest = f64::from(logits[order[0]]);
        let weight = |i: usize| ((f64::from(logits[i]) - highest) / f64::from(temperature)).exp();
        let total: f64 = order.iter().map(|&i| weight(i)).sum();
        let mut kept = Vec::new();
        let mut sum = 0.0;
        for &i in &order {
            kept.push(i);
            sum += weight(i);
            if p < 1.0 && sum >= total * f64::from(p) {
                break;
            }
        }
        kept.retain(|&i| weight(i) >= f64::from(min));
        let mut kept: Vec<u32> = kept.into_iter().map(|i| i as u32).collect();
        kept.sort_unstable();
        kept
    }

    #[test]
    fn filters_equal_a_full_sort_on_random_logits() {
        let mut rng = ChaCha8Rng::seed_from_u64(11);
        let mut scratch = Vec::new();
        for round in 0..400 {
            let vocab = 1 + (rng.next_u32() % 2000) as usize;
            // Coarse steps make many ties.
            let steps = if round % 2 == 0 { 16.0 } else { 65536.0 };
            let logits: Vec<f32> = (0..vocab)
                .map(|_| ((rng.next_u32() % 65536) as f32 / 65536.0 * steps).floor() / steps * 12.0)
                .collect();
            let temperature = 0.25 + (rng.next_u32() % 16) as f32 / 8.0;
            let k = (rng.next_u32() % 3 * (rng.next_u32() % 300)) as usize;
            // Thresholds no sum of weights hits by rounding.
            let p = (rng.next_u32() % 1000) as f32 / 997.3;
            let min = (rng.next_u32() % 4) as f32 * 0.071;

            let mut list = candidates(&logits, temperature);
            top_k(&mut list, k, &mut scratch);
            weigh(&mut list, temperature);
            top_p(&mut list, p, &mut scratch);
            min_p(&mut list, min);
            assert_eq!(
                ids(&list),
                reference(&logits, temperature, k, p, min),
                "round {round}: vocab {vocab}, temperature {temperature}, k {k}, p {p}, min {min}"
            );
        }
    }

    #[test]
    fn ties_at_the_edge_go_to_the_lower_ids() {
        let mut scratch = Vec::new();
        let mut list = candidates(&[1.0, 2.0, 1.0, 1.0], 1.0);
        top_k(&mut list, 2, &mut scratch);
        assert_eq!(ids(&list), [0, 1]);

        let mut list = candidates(&[0.0; 10], 1.0);
        top_p(&mut list, 0.35, &mut scratch);
        assert_eq!(ids(&list), [0, 1, 2, 3]);
    }

    #[test]
    fn top_p_keeps_at_least_the_best() {
        let mut scratch = Vec::new();
        let mut list = candidates(&[1.0, 3.0, 2.0], 1.0);
        top_p(&mut list, 0.0, &mut scratch);
        assert_eq!(ids(&list), [1]);
        let mut list = candidates(&[1.0, 3.0, 2.0], 1.0);
        min_p(&mut list, 1.0);
        assert_eq!(ids(&list), [1]);
    }

    #[test]
    fn flat_distributions_take_more_than_one_block() {
        let mut scratch = Vec::new();
        let mut list = candidates(&vec![0.5; 5000], 1.0);
        top_p(&mut list, 0.9, &mut scratch);
        assert_eq!(list.len(), 4500);
    }
}
