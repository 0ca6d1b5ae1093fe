//! The sampler: one token from one row of logits.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

use super::filters::{self, Candidate};
use super::options::{SamplingError, SamplingOptions};
use super::penalty::RepetitionPenalty;

/// Chooses tokens for one generation.
///
/// Buffers are kept from token to token. The generator is ChaCha8, whose stream
/// is the same on every platform: equal logits, options and seed give equal tokens.
#[derive(Debug)]
pub(crate) struct Sampler {
    options: SamplingOptions,
    vocab_size: usize,
    rng: ChaCha8Rng,
    penalty: Option<RepetitionPenalty>,
    penalised: Vec<f32>,
    candidates: Vec<Candidate>,
    scratch: Vec<Candidate>,
}

impl Sampler {
    /// A sampler for logits of `vocab_size` tokens.
    pub(crate) fn new(options: &SamplingOptions, vocab_size: usize) -> Result<Self, SamplingError> {
        options.validate()?;
        let rng = match options.seed {
            Some(seed) => ChaCha8Rng::seed_from_u64(seed),
            None => ChaCha8Rng::from_os_rng(),
        };
        let penalty = RepetitionPenalty::new(options.repetition_penalty, vocab_size);
        let drawn = if options.is_greedy() { 0 } else { vocab_size };
        let filtered = options.top_k > 0 || options.top_p < 1.0;
        Ok(Self {
            options: options.clone(),
            vocab_size,
            rng,
            penalised: Vec::with_capacity(if penalty.is_some() { vocab_size } else { 0 }),
            penalty,
            candidates: Vec::with_capacity(drawn),
            scratch: Vec::with_capacity(if filtered { drawn } else { 0 }),
        })
    }

    /// Chooses the next token.
    ///
    /// `history` is what the repetition penalty counts as seen. Logits that are
    /// not finite are never chosen: minus infinity is how a token is masked, and
    /// the rest are faults.
    pub(crate) fn sample(&mut self, logits: &[f32], history: &[u32]) -> Result<u32, SamplingError> {
        if logits.len() != self.vocab_size {
            return Err(SamplingError::WrongVocabulary {
                got: logits.len(),
                expected: self.vocab_size,
            });
        }
        let logits = match &mut self.penalty {
            Some(penalty) => {
                self.penalised.clear();
                self.penalised.extend_from_slice(logits);
                penalty.apply(&mut self.penalised, history);
                self.penalised.as_slice()
            }
            None => logits,
        };
        let chosen = if self.options.is_greedy() {
            most_probable(logits)
        } else {
            self.candidates.clear();
            self.candidates.extend(
                (0u32..)
                    .zip(logits)
                    .filter(|(_, logit)| logit.is_finite())
                    .map(|(id, &logit)| Candidate {
                        id,
                        logit,
                        weight: 0.0,
                    }),
            );
            filter(&self.options, &mut self.candidates, &mut self.scratch);
            draw(&self.candidates, &mut self.rng)
        };
        chosen.ok_or(SamplingError::NoFiniteLogit {
            vocab_size: self.vocab_size,
        })
    }
}

/// The highest finite logit; the lowest id among equals.
fn most_probable(logits: &[f32]) -> Option<u32> {
    // Two passes that the compiler turns into vector code, where one that keeps
    // the place of the highest would go through the vocabulary number by number.
    let mut highest = [f32::NEG_INFINITY; 16];
    let (chunks, rest) = logits.as_chunks::<16>();
    for chunk in chunks {
        for (high, &logit) in highest.iter_mut().zip(chunk) {
            let finite = if logit.is_finite() { logit } else { *high };
            *high = if finite > *high { finite } else { *high };
        }
    }
    let finite = rest.iter().filter(|logit| logit.is_finite());
    let highest = finite
        .chain(&highest)
        .fold(f32::NEG_INFINITY, |a, &b| a.max(b));
    if !highest.is_finite() {
        return None;
    }
    let at = chunks.iter().position(|chunk| {
        // No early end inside a chunk, so that it is compared at once.
        chunk
            .iter()
            .fold(false, |found, &logit| found | (logit == highest))
    });
    let start = at.unwrap_or(chunks.len()) * 16;
    let place = logits[start..].iter().position(|&logit| logit == highest)?;
    u32::try_from(start + place).ok()
}

fn filter(
    options: &SamplingOptions,
    candidates: &mut Vec<Candidate>,
    scratch: &mut Vec<Candidate>,
) {
    filters::top_k(candidates, options.top_k, scratch);
    filters::weigh(candidates, options.temperature);
    filters::top_p(candidates, options.top_p, scratch);
    filters::min_p(candidates, options.min_p);
}

/// Draws one candidate with a probability proportional to its weight.
fn draw(candidates: &[Candidate], rng: &mut ChaCha8Rng) -> Option<u32> {
    let total: f64 = candidates.iter().map(|c| f64::from(c.weight)).sum();
    // 53 random bits: every multiple of 2^-53 in [0, 1).
    let unit = (rng.next_u64() >> 11) as f64 / (1u64 << 53) as f64;
    let mut left = unit * total;
    let mut last = None;
    for c in candidates.iter().filter(|c| c.weight > 0.0) {
        left -= f64::from(c.weight);
        last = Some(c.id);
        if left < 0.0 {
            break;
        }
    }
    // Rounding may leave a little over after the last candidate: it is the one.
    last
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sampler(vocab: usize, change: impl FnOnce(&mut SamplingOptions)) -> Sampler {
        let mut options = SamplingOptions {
            temperature: 1.0,
            seed: Some(7),
            ..SamplingOptions::default()
        };
        change(&mut options);
        Sampler::new(&options, vocab).unwrap()
    }

    /// Counts `draws` samples and compares them with `expected` by Pearson's chi-square.
    fn chi_square(sampler: &mut Sampler, logits: &[f32], expected: &[f64], draws: usize) -> f64 {
        let mut counts = vec![0usize; logits.len()];
        for _ in 0..draws {
            counts[sampler.sample(logits, &[]).unwrap() as usize] += 1;
        }
        let mut sum = 0.0;
        for (&count, &p) in counts.iter().zip(expected) {
            if p == 0.0 {
                assert_eq!(count, 0, "a dropped token was drawn");
            } else {
                let mean = p * draws as f64;
                sum += (count as f64 - mean).powi(2) / mean;
            }
        }
        sum
    }

    fn softmax(logits: &[f32], temperature: f64) -> Vec<f64> {
        let weights: Vec<f64> = logits
            .iter()
            .map(|&l| (f64::from(l) / temperature).exp())
            .collect();
        let total: f64 = weights.iter().sum();
        weights.into_iter().map(|w| w / total).collect()
    }

    const LOGITS: [f32; 8] = [0.5, -1.0, 2.0, 0.0, 1.25, -3.0, 1.5, 0.75];

    #[test]
    fn draws_follow_the_softmax() {
        for temperature in [0.7f32, 1.0, 1.8] {
            let mut s = sampler(8, |o| o.temperature = temperature);
            let expected = softmax(&LOGITS, f64::from(temperature));
            // 7 degrees of freedom: 24.3 is passed once in a thousand.
            let x = chi_square(&mut s, &LOGITS, &expected, 40_000);
            assert!(x < 24.3, "temperature {temperature}: chi-square {x}");
        }
    }

    #[test]
    fn draws_follow_the_renormalised_survivors() {
        let mut s = sampler(8, |o| {
            o.top_k = 5;
            o.top_p = 0.9;
            o.min_p = 0.2;
        });
        // Best five: 2 (7.389), 6 (4.482), 4 (3.490), 7 (2.117), 0 (1.649); sum 19.127.
        // 90 % of it, 17.21, is reached with 7 (17.478). min-p 0.2 of 7.389 is 1.478: all stay.
        let kept = [2usize, 6, 4, 7];
        let full = softmax(&LOGITS, 1.0);
        let mass: f64 = kept.iter().map(|&i| full[i]).sum();
        let mut expected = vec![0.0; 8];
        for i in kept {
            expected[i] = full[i] / mass;
        }
        // 3 degrees of freedom: 16.3 is passed once in a thousand.
        let x = chi_square(&mut s, &LOGITS, &expected, 40_000);
        assert!(x < 16.3, "chi-square {x}");
    }

    #[test]
    fn greedy_takes_the_lowest_id_among_equals() {
        let mut s = sampler(5, |o| o.temperature = 0.0);
        assert_eq!(s.sample(&[1.0, 3.0, 3.0, -1.0, 3.0], &[]), Ok(1));
        assert_eq!(s.sample(&[-0.0, 0.0, 0.0, -1.0, 0.0], &[]), Ok(0));
    }

    #[test]
    fn greedy_is_the_first_highest_at_every_length() {
        let mut state = 1u32;
        for length in 1..70 {
            for _ in 0..40 {
                let logits: Vec<f32> = (0..length)
                    .map(|_| {
                        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                        match state >> 28 {
                            0 => f32::NAN,
                            1 => f32::INFINITY,
                            2 => f32::NEG_INFINITY,
                            high => high as f32 - 12.0,
                        }
                    })
                    .collect();
                let mut expected: Option<usize> = None;
                for (i, logit) in logits.iter().enumerate() {
                    if logit.is_finite() && expected.is_none_or(|best| *logit > logits[best]) {
                        expected = Some(i);
                    }
                }
                let expected = expected.map(|i| i as u32);
                assert_eq!(most_probable(&logits), expected, "{logits:?}");
            }
        }
    }

    #[test]
    fn top_k_of_one_is_greedy_at_any_temperature() {
        let mut s = sampler(5, |o| {
            o.top_k = 1;
            o.temperature = 5.0;
        });
        for _ in 0..50 {
            assert_eq!(s.sample(&[1.0, 3.0, 3.0, -1.0, 2.9], &[]), Ok(1));
        }
    }

    #[test]
    fn the_penalty_turns_a_greedy_choice() {
        let mut s = sampler(3, |o| {
            o.temperature = 0.0;
            o.repetition_penalty = 1.5;
        });
        let logits = [3.0, 2.5, -1.0];
        assert_eq!(s.sample(&logits, &[]), Ok(0));
        assert_eq!(s.sample(&logits, &[0, 0]), Ok(1));
        assert_eq!(s.sample(&logits, &[0, 1]), Ok(0));
        assert_eq!(s.sample(&logits, &[]), Ok(0));
    }

    #[test]
    fn equal_seeds_give_equal_tokens() {
        let run = |seed| -> Vec<u32> {
            let mut s = sampler(8, |o| o.seed = seed);
            (0..64).map(|_| s.sample(&LOGITS, &[]).unwrap()).collect()
        };
        assert_eq!(run(Some(1)), run(Some(1)));
        assert_ne!(run(Some(1)), run(Some(2)));

        // Without a seed each sampler has its own stream.
        assert_ne!(run(None), run(None));
    }

    /// The stream is part of what a seed promises: it must not change with a dependency.
    #[test]
    fn the_stream_of_a_seed_is_fixed() {
        let mut s = sampler(8, |o| o.seed = Some(42));
        let tokens: Vec<u32> = (0..16).map(|_| s.sample(&LOGITS, &[]).unwrap()).collect();
        assert_eq!(tokens, STREAM_OF_42);
    }
    const STREAM_OF_42: [u32; 16] = [6, 7, 2, 4, 2, 2, 2, 6, 6, 2, 4, 7, 7, 4, 6, 2];

    #[test]
    fn faulty_logits_are_errors_or_passed_over() {
        for temperature in [0.0, 1.0] {
            let mut s = sampler(3, |o| {
                o.temperature = temperature;
                o.top_k = 2;
                o.top_p = 0.5;
                o.min_p = 0.1;
            });
            let none = Err(SamplingError::NoFiniteLogit { vocab_size: 3 });
            assert_eq!(s.sample(&[f32::NAN; 3], &[]), none);
            assert_eq!(s.sample(&[f32::NEG_INFINITY; 3], &[]), none);
            assert_eq!(s.sample(&[f32::INFINITY, f32::NAN, -2.0], &[]), Ok(2));
            assert_eq!(s.sample(&[f32::MIN, f32::NAN, f32::MAX], &[]), Ok(2));
            assert_eq!(
                s.sample(&[0.0; 4], &[]),
                Err(SamplingError::WrongVocabulary {
                    got: 4,
                    expected: 3
                })
            );
        }
        let mut empty = sampler(0, |_| {});
        assert_eq!(
            empty.sample(&[], &[]),
            Err(SamplingError::NoFiniteLogit { vocab_size: 0 })
        );
    }

    #[test]
    fn extreme_temperatures_stay_distributions() {
        let mut cold = sampler(8, |o| o.temperature = f32::MIN_POSITIVE);
        let mut hot = sampler(8, |o| o.temperature = f32::MAX);
        let mut seen = [false; 8];
        for _ in 0..400 {
            assert_eq!(cold.sample(&LOGITS, &[]), Ok(2));
            seen[hot.sample(&LOGITS, &[]).unwrap() as usize] = true;
        }
        assert_eq!(seen, [true; 8]);
    }

    #[test]
    fn no_buffer_grows_after_it_was_made() {
        let mut s = sampler(1000, |o| {
            o.top_k = 40;
            o.top_p = 0.9;
            o.repetition_penalty = 1.1;
        });
        let logits: Vec<f32> = (0..1000).map(|i| (i as f32 * 0.37).sin() * 5.0).collect();
        let before = (
            s.candidates.capacity(),
            s.scratch.capacity(),
            s.penalised.capacity(),
        );
        let mut history = Vec::new();
        for _ in 0..50 {
            let token = s.sample(&logits, &history).unwrap();
            history.push(token);
        }
        let after = (
            s.candidates.capacity(),
            s.scratch.capacity(),
            s.penalised.capacity(),
        );
        assert_eq!(before, after);
    }
}
