//! RoPE scaling of a GGUF: from metadata, or recovered from `rope_freqs.weight`.
//!
//! llama.cpp's converter does not keep the four parameters of Llama 3.1's scaling but
//! the divisor they give for each frequency.

use std::f64::consts::TAU;

use super::file::File;
use crate::error::Result;
use chaski_manifest::RopeScaling;

/// The tensor with the divisors.
pub(super) const ROPE_FREQS: &str = "rope_freqs.weight";

/// Relative difference that rounding to f32 explains.
const TOLERANCE: f64 = 1e-4;

/// The scaling of a model with this head and base.
pub(super) fn scaling(file: &File, head_dim: usize, theta: f64) -> Result<Option<RopeScaling>> {
    let told = told(file)?;
    let Some(tensor) = file.tensors.get(ROPE_FREQS) else {
        return Ok(told);
    };
    if told.is_some() {
        return Err(file.unsupported(format!(
            "both llama.rope.scaling and {ROPE_FREQS} scale the rotary embedding"
        )));
    }
    if tensor.shape != [head_dim as u64 / 2] {
        return Err(file.malformed(format!(
            "{ROPE_FREQS} has shape {:?}, expected [{}]",
            tensor.shape,
            head_dim / 2
        )));
    }
    // No larger than the bound of head_dim, checked by the caller.
    let mut divisors = vec![0.0; head_dim / 2];
    tensor
        .stored
        .read(ROPE_FREQS, &file.map, 0..1, |row| row, &mut divisors)?;
    recover(&divisors, theta).ok_or_else(|| {
        file.unsupported(format!(
            "{ROPE_FREQS} is none of the known llama3 scalings: {divisors:?}"
        ))
    })
}

fn told(file: &File) -> Result<Option<RopeScaling>> {
    let factor = match file.number("llama.rope.scaling.factor")? {
        Some(factor) => Some(factor),
        // How files of 2023 tell it.
        None => file.number("llama.rope.scale_linear")?,
    };
    match file.text("llama.rope.scaling.type")? {
        Some("none") => Ok(None),
        None | Some("linear") => Ok(factor
            .filter(|&factor| factor != 1.0 && factor != 0.0)
            .map(|factor| RopeScaling::Linear { factor })),
        Some(other) => Err(file.unsupported(format!(
            "RoPE scaling of type {other}; llama3 and linear can be converted"
        ))),
    }
}

/// `Some(None)` where nothing is scaled, `None` where no parameters give the divisors.
#[allow(clippy::option_option)]
fn recover(divisors: &[f32], theta: f64) -> Option<Option<RopeScaling>> {
    if divisors.iter().all(|&divisor| divisor == 1.0) {
        return Some(None);
    }
    // The lowest frequencies are divided by the whole factor.
    let factor = f64::from(*divisors.last()?);
    // 8192, 1 and 4 are Llama 3.1's and 3.2's own; the others occur in fine-tunings.
    let lengths = [8192, 4096, 2048, 16384, 32768, 65536, 131_072];
    let bands = [(1.0, 4.0), (1.0, 8.0), (1.0, 2.0), (2.0, 4.0), (1.0, 32.0)];
    for original_context_length in lengths {
        for (low_freq_factor, high_freq_factor) in bands {
            let scaling = Llama3 {
                factor,
                low: low_freq_factor,
                high: high_freq_factor,
                original: original_context_length as f64,
            };
            if scaling.gives(divisors, theta) {
                return Some(Some(RopeScaling::Llama3 {
                    factor,
                    low_freq_factor,
                    high_freq_factor,
                    original_context_length,
                }));
            }
        }
    }
    None
}

struct Llama3 {
    factor: f64,
    low: f64,
    high: f64,
    original: f64,
}

impl Llama3 {
    fn gives(&self, divisors: &[f32], theta: f64) -> bool {
        divisors.iter().enumerate().all(|(index, &divisor)| {
            let exponent = index as f64 / divisors.len() as f64;
            let expected = self.divisor(TAU * theta.powf(exponent));
            (f64::from(divisor) - expected).abs() <= TOLERANCE * expected
        })
    }

    /// What Llama 3.1 divides the frequency of a wavelength by.
    fn divisor(&self, wavelength: f64) -> f64 {
        if wavelength < self.original / self.high {
            1.0
        } else if wavelength > self.original / self.low {
            self.factor
        } else {
            let smooth = (self.original / wavelength - self.low) / (self.high - self.low);
            1.0 / ((1.0 - smooth) / self.factor + smooth)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn divisors(head_dim: usize, theta: f64, scaling: &Llama3) -> Vec<f32> {
        (0..head_dim / 2)
            .map(|i| scaling.divisor(TAU * theta.powf(2.0 * i as f64 / head_dim as f64)) as f32)
            .collect()
    }

    #[test]
    fn llama_3_1_and_3_2_are_recovered() {
        for (head_dim, factor) in [(128, 8.0), (64, 32.0), (128, 32.0)] {
            let own = Llama3 {
                factor,
                low: 1.0,
                high: 4.0,
                original: 8192.0,
            };
            let found = recover(&divisors(head_dim, 500_000.0, &own), 500_000.0);
            assert_eq!(
                found,
                Some(Some(RopeScaling::Llama3 {
                    factor,
                    low_freq_factor: 1.0,
                    high_freq_factor: 4.0,
                    original_context_length: 8192,
                }))
            );
        }
    }

    #[test]
    fn anything_else_is_not_guessed() {
        let own = Llama3 {
            factor: 8.0,
            low: 1.0,
            high: 4.0,
            original: 8192.0,
        };
        let mut spoilt = divisors(128, 500_000.0, &own);
        spoilt[40] *= 1.01;
        assert_eq!(recover(&spoilt, 500_000.0), None);
        assert_eq!(recover(&[f32::NAN; 64], 500_000.0), None);
        assert_eq!(recover(&[1.0; 64], 500_000.0), Some(None));
    }
}
