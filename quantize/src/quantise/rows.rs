//! Quantises rows of a source's tensor, in parallel.

use std::ops::Range;

use half::f16;
use rayon::prelude::*;

use super::{
    ErrorSums, Fit, Form, Importance, fit_absmax, fit_asymmetric, fit_symmetric, pack_nibbles,
};
use crate::error::{Error, Result};
use crate::source::Source;
use chaski_manifest::BLOCK_SIZE;

/// Weights that one task holds as f32: 512 KiB, so they stay in a core's cache.
const TASK_WEIGHTS: usize = 1 << 17;

/// Rows of a tensor in 4 or 8 bits.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct QuantisedRows {
    /// 16 or 32 bytes a block.
    pub quants: Vec<u8>,
    /// One a block.
    pub scales: Vec<f16>,
    /// Packed two to a byte, each row from a byte of its own; none when symmetric.
    pub zero_points: Vec<u8>,
    /// Difference from the source.
    pub error: ErrorSums,
}

impl QuantisedRows {
    /// Appends a block and returns its zero point.
    fn push<const BYTES: usize>(&mut self, fit: Fit<BYTES>) -> u8 {
        self.quants.extend(fit.quants);
        self.scales.push(fit.scale);
        self.error.squared_error += f64::from(fit.squared_error);
        fit.zero_point
    }
}

/// How many rows of that many columns one parallel task takes.
pub fn rows_per_task(columns: usize) -> usize {
    (TASK_WEIGHTS / columns.max(1)).max(1)
}

/// Cuts rows into the ranges of the parallel tasks.
pub(super) fn tasks(rows: Range<usize>, columns: usize) -> Vec<Range<usize>> {
    let step = rows_per_task(columns);
    rows.clone()
        .step_by(step)
        .map(|first| first..rows.end.min(first.saturating_add(step)))
        .collect()
}

/// Reads and quantises rows; `importance` has as many columns as the tensor.
pub fn quantise_rows(
    source: &dyn Source,
    tensor: &str,
    rows: Range<usize>,
    form: Form,
    importance: &Importance,
) -> Result<QuantisedRows> {
    let columns = importance.blocks().len() * BLOCK_SIZE;
    let parts: Vec<_> = tasks(rows, columns)
        .into_par_iter()
        .map(|rows| quantise_task(source, tensor, rows, form, importance))
        .collect();
    let mut whole = QuantisedRows::default();
    // In row order, so that sums and the first error do not depend on timing.
    for part in parts {
        let part = part?;
        whole.quants.extend(part.quants);
        whole.scales.extend(part.scales);
        whole.zero_points.extend(part.zero_points);
        whole.error.add(part.error);
    }
    Ok(whole)
}

fn quantise_task(
    source: &dyn Source,
    tensor: &str,
    rows: Range<usize>,
    form: Form,
    importance: &Importance,
) -> Result<QuantisedRows> {
    let columns = importance.blocks().len() * BLOCK_SIZE;
    let mut weights = vec![0.0f32; rows.len() * columns];
    source.read_rows(tensor, rows.clone(), &mut weights)?;
    check_finite(tensor, rows.start, columns, &weights)?;

    let blocks = weights.len() / BLOCK_SIZE;
    let mut out = QuantisedRows {
        quants: Vec::with_capacity(blocks * form.bits().block_bytes()),
        scales: Vec::with_capacity(blocks),
        ..QuantisedRows::default()
    };
    let mut zero_points = Vec::with_capacity(columns / BLOCK_SIZE);
    for (row, row_weights) in rows.zip(weights.chunks_exact(columns)) {
        zero_points.clear();
        let (row_blocks, _) = row_weights.as_chunks::<BLOCK_SIZE>();
        for (block, (weights, factors)) in row_blocks.iter().zip(importance.blocks()).enumerate() {
            zero_points.push(match form {
                Form::Symmetric4 => out.push(fit_symmetric(weights, factors)),
                Form::Asymmetric4 => out.push(fit_asymmetric(weights, factors)),
                Form::Symmetric8 => out.push(fit_absmax(weights)),
            });
            if out.scales.last().is_none_or(|scale| !scale.is_finite()) {
                return Err(too_large(tensor, row, block * BLOCK_SIZE));
            }
            out.error.squared_weights += squares(weights);
        }
        if form.has_zero_points() {
            pack_nibbles(&zero_points, &mut out.zero_points);
        }
    }
    Ok(out)
}

fn squares(weights: &[f32]) -> f64 {
    weights.iter().map(|&w| f64::from(w) * f64::from(w)).sum()
}

/// Refuses NaN and infinite weights, naming the first one's place.
pub fn check_finite(tensor: &str, first_row: usize, columns: usize, weights: &[f32]) -> Result<()> {
    match weights.iter().position(|weight| !weight.is_finite()) {
        None => Ok(()),
        Some(position) => Err(Error::BadWeight {
            tensor: tensor.to_owned(),
            row: first_row + position / columns.max(1),
            column: position % columns.max(1),
            reason: format!("is {}", weights[position]),
        }),
    }
}

fn too_large(tensor: &str, row: usize, column: usize) -> Error {
    Error::BadWeight {
        tensor: tensor.to_owned(),
        row,
        column,
        reason: "begins a block whose weights are too large for an f16 scale".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quantise::Bits;
    use crate::testing::{Held, tiny, weights};

    const NAME: &str = "m";

    fn source(rows: usize, columns: usize) -> crate::testing::Memory {
        let mut source = tiny();
        let values = weights(rows * columns, 1);
        source
            .tensors
            .insert(NAME.into(), (rows, columns, Held::Plain(values)));
        source
    }

    #[test]
    fn tasks_cover_all_rows_once() {
        let all: Vec<_> = tasks(3..100_000, 4096).into_iter().flatten().collect();
        assert_eq!(all, (3..100_000).collect::<Vec<_>>());
        assert_eq!(tasks(0..2, usize::MAX), [0..1, 1..2]);
    }

    #[test]
    fn parts_are_joined_in_row_order() {
        // Several tasks: each has 2^17 weights.
        let (rows, columns) = (5000, 96);
        let source = source(rows, columns);
        for form in [Form::Symmetric4, Form::Asymmetric4, Form::Symmetric8] {
            let alike = Importance::alike(columns);
            let quantise = |rows| quantise_rows(&source, NAME, rows, form, &alike).unwrap();
            let whole = quantise(0..rows);
            let row_bytes = 3 * form.bits().block_bytes();
            assert_eq!(whole.quants.len(), rows * row_bytes);
            assert_eq!(whole.scales.len(), rows * 3);
            let last = quantise(rows - 1..rows);
            assert_eq!(whole.quants[(rows - 1) * row_bytes..], last.quants);
            assert_eq!(whole.scales[(rows - 1) * 3..], last.scales);
            // Three zero points take two bytes, the last nibble is empty.
            let packed = if form.has_zero_points() { 2 } else { 0 };
            assert_eq!(whole.zero_points.len(), rows * packed);
            assert!(whole.zero_points.chunks(2).all(|row| row[1] < 16));
            assert_eq!(whole.zero_points[(rows - 1) * packed..], last.zero_points);
            let expected = match form.bits() {
                Bits::Four => 0.01..0.15,
                Bits::Eight => 0.001..0.01,
            };
            assert!(
                expected.contains(&whole.error.relative()),
                "{:?}",
                whole.error
            );
        }
    }

    #[test]
    fn bad_weights_are_refused_by_their_place() {
        for (bad, wanted) in [
            (f32::NAN, "row 4321, column 70 is NaN"),
            (f32::NEG_INFINITY, "row 4321, column 70 is -inf"),
            (
                1e30,
                "row 4321, column 64 begins a block whose weights are too large",
            ),
        ] {
            let mut source = source(6000, 96);
            source.plain(NAME)[4321 * 96 + 70] = bad;
            // In a later task, which may well be done first.
            source.plain(NAME)[5900 * 96] = f32::NAN;
            let alike = Importance::alike(96);
            for form in [Form::Symmetric4, Form::Asymmetric4, Form::Symmetric8] {
                let error = quantise_rows(&source, NAME, 0..6000, form, &alike);
                let message = error.unwrap_err().to_string();
                assert!(
                    message.contains(wanted) && message.contains("tensor m"),
                    "{message}"
                );
            }
        }
    }
}
