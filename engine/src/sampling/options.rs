//! What a caller may ask of the sampler, and what is refused.

use thiserror::Error;

/// How the next token is chosen from the logits.
///
/// The defaults are greedy: `temperature` 0 takes the most probable token and
/// ignores the rest but the repetition penalty.
#[derive(Clone, Debug, PartialEq)]
pub struct SamplingOptions {
    /// Divides the logits; 0 is greedy.
    pub temperature: f32,
    /// Keep the `k` most probable tokens; 0 keeps all.
    pub top_k: usize,
    /// Keep the smallest set whose probability reaches `p`; 1 keeps all.
    pub top_p: f32,
    /// Drop tokens less probable than `p` times the most probable; 0 drops none.
    pub min_p: f32,
    /// Divides positive and multiplies negative logits of tokens seen (CTRL, Keskar et al. 2019); 1 is off.
    pub repetition_penalty: f32,
    /// Seed of the generator; `None` draws one from the system.
    pub seed: Option<u64>,
}

impl Default for SamplingOptions {
    fn default() -> Self {
        Self {
            temperature: 0.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            repetition_penalty: 1.0,
            seed: None,
        }
    }
}

impl SamplingOptions {
    /// Refuses values no distribution can be made of, naming the field and its range.
    ///
    /// # Errors
    /// [`SamplingError::OutOfRange`] for the first field that is not a number or
    /// outside its range.
    pub fn validate(&self) -> Result<(), SamplingError> {
        let finite = |v: f32| v.is_finite();
        let unit = |v: f32| (0.0..=1.0).contains(&v);
        check(
            "temperature",
            self.temperature,
            "a finite number of at least 0",
            finite(self.temperature) && self.temperature >= 0.0,
        )?;
        check("top_p", self.top_p, "from 0 to 1", unit(self.top_p))?;
        check("min_p", self.min_p, "from 0 to 1", unit(self.min_p))?;
        check(
            "repetition_penalty",
            self.repetition_penalty,
            "a finite number above 0",
            finite(self.repetition_penalty) && self.repetition_penalty > 0.0,
        )
    }

    /// True when the most probable token is taken and no generator is needed.
    pub(super) fn is_greedy(&self) -> bool {
        self.temperature == 0.0
    }
}

fn check(
    field: &'static str,
    value: f32,
    allowed: &'static str,
    ok: bool,
) -> Result<(), SamplingError> {
    if ok {
        Ok(())
    } else {
        Err(SamplingError::OutOfRange {
            field,
            value,
            allowed,
        })
    }
}

/// Why no token can be chosen.
#[derive(Clone, Debug, Error, PartialEq)]
#[non_exhaustive]
pub enum SamplingError {
    /// An option outside its range.
    #[error("{field} is {value}: it must be {allowed}")]
    OutOfRange {
        /// The option's name.
        field: &'static str,
        /// What was given.
        value: f32,
        /// What is allowed.
        allowed: &'static str,
    },
    /// The logits are not those of the model the sampler was made for.
    #[error("the model gave {got} logits where its vocabulary has {expected}")]
    WrongVocabulary {
        /// Logits received.
        got: usize,
        /// Vocabulary size the sampler was made for.
        expected: usize,
    },
    /// Nothing to choose from.
    #[error(
        "none of the model's {vocab_size} logits is a finite number: \
         its weights are damaged or overflow (check the model folder, or quantise it again)"
    )]
    NoFiniteLogit {
        /// Logits received.
        vocab_size: usize,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(change: impl FnOnce(&mut SamplingOptions)) -> Result<(), SamplingError> {
        let mut options = SamplingOptions::default();
        change(&mut options);
        options.validate()
    }

    #[test]
    fn defaults_and_limits_of_the_ranges_are_accepted() {
        assert_eq!(SamplingOptions::default().validate(), Ok(()));
        assert_eq!(with(|o| o.temperature = 100.0), Ok(()));
        assert_eq!(with(|o| o.top_p = 0.0), Ok(()));
        assert_eq!(with(|o| o.min_p = 1.0), Ok(()));
        assert_eq!(with(|o| o.top_k = usize::MAX), Ok(()));
        assert_eq!(with(|o| o.repetition_penalty = f32::MIN_POSITIVE), Ok(()));
    }

    #[test]
    fn refusals_name_the_field_and_the_range() {
        let refused = [
            (with(|o| o.temperature = -0.1), "temperature"),
            (with(|o| o.temperature = f32::INFINITY), "temperature"),
            (with(|o| o.temperature = f32::NAN), "temperature"),
            (with(|o| o.top_p = 1.01), "top_p"),
            (with(|o| o.top_p = f32::NAN), "top_p"),
            (with(|o| o.min_p = -0.5), "min_p"),
            (with(|o| o.repetition_penalty = 0.0), "repetition_penalty"),
            (
                with(|o| o.repetition_penalty = f32::NAN),
                "repetition_penalty",
            ),
        ];
        for (result, name) in refused {
            match result {
                Err(SamplingError::OutOfRange { field, .. }) => assert_eq!(field, name),
                other => panic!("{name}: {other:?}"),
            }
        }
        let message = with(|o| o.top_p = 2.0).unwrap_err().to_string();
        assert_eq!(message, "top_p is 2: it must be from 0 to 1");
    }
}
