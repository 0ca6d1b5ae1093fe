//! The repetition penalty.

/// Marks which tokens were seen, without clearing a set at each step.
///
/// A token is seen when its mark is the current generation's, so a new step only
/// counts one up.
#[derive(Debug)]
pub(super) struct RepetitionPenalty {
    penalty: f32,
    marks: Vec<u32>,
    generation: u32,
}

impl RepetitionPenalty {
    /// `None` when a penalty of 1 changes nothing.
    pub(super) fn new(penalty: f32, vocab_size: usize) -> Option<Self> {
        (penalty != 1.0).then(|| Self {
            penalty,
            marks: vec![0; vocab_size],
            generation: 0,
        })
    }

    /// Penalises each token of `history` once, however often it was seen.
    /// Tokens outside the vocabulary are passed over.
    pub(super) fn apply(&mut self, logits: &mut [f32], history: &[u32]) {
        self.generation = match self.generation.checked_add(1) {
            Some(next) => next,
            None => {
                self.marks.fill(0);
                1
            }
        };
        for &token in history {
            let index = token as usize;
            let (Some(mark), Some(logit)) = (self.marks.get_mut(index), logits.get_mut(index))
            else {
                continue;
            };
            if *mark == self.generation {
                continue;
            }
            *mark = self.generation;
            if logit.is_finite() {
                let penalised = if *logit > 0.0 {
                    *logit / self.penalty
                } else {
                    *logit * self.penalty
                };
                // An overflow stays the largest number instead of leaving the choice.
                *logit = penalised.clamp(f32::MIN, f32::MAX);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn divides_positive_and_multiplies_negative_logits_once() {
        let mut penalty = RepetitionPenalty::new(2.0, 4).unwrap();
        for _ in 0..3 {
            let mut logits = [4.0, -4.0, 0.0, 4.0];
            penalty.apply(&mut logits, &[0, 1, 0, 2, 1, 0]);
            assert_eq!(logits, [2.0, -8.0, 0.0, 4.0]);
        }
    }

    #[test]
    fn one_is_off_and_odd_input_is_harmless() {
        assert!(RepetitionPenalty::new(1.0, 4).is_none());
        let mut penalty = RepetitionPenalty::new(1e-30, 3).unwrap();
        let mut logits = [1e20, f32::NEG_INFINITY, f32::NAN];
        penalty.apply(&mut logits, &[0, 1, 2, 3, u32::MAX]);
        assert_eq!(logits[0], f32::MAX);
        assert_eq!(logits[1], f32::NEG_INFINITY);
        assert!(logits[2].is_nan());
    }

    #[test]
    fn marks_survive_the_counter_running_over() {
        let mut penalty = RepetitionPenalty::new(2.0, 2).unwrap();
        penalty.generation = u32::MAX - 1;
        for _ in 0..4 {
            let mut logits = [2.0, 2.0];
            penalty.apply(&mut logits, &[1]);
            assert_eq!(logits, [2.0, 1.0]);
        }
    }
}
