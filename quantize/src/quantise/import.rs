//! Takes over blocks that have the wanted bits already, without a second loss.
//!
//! Q4_0 is this format with the zero point 8 and Q8_0 with 128: nothing changes.
//! Q4_1 stores `q * scale + min`, which is `(q - zero_point) * scale` with the fractional
//! zero point `-min / scale`; what rounding it costs is measured.

use std::ops::Range;

use half::f16;
use rayon::prelude::*;

use super::Bits;
use super::rows::tasks;
use crate::error::{Error, Result};
use crate::source::{Q4Blocks, Q8Blocks, Source};
use chaski_manifest::BLOCK_SIZE;

/// Zero points of a tensor are stored as f16 unless that moves a weight by
/// more than this part of a quantisation step. Rounding to f16 stays below it
/// for every zero point below 64; those between 0 and 15, where zero is among
/// the block's values, move by 1/256 at most.
pub const MAX_F16_DEVIATION: f64 = 1.0 / 64.0;

/// Rows taken over from Q4_0, Q4_1 or Q8_0.
#[derive(Clone, Debug, Default)]
pub struct ImportedRows {
    /// 16 or 32 bytes a block.
    pub quants: Vec<u8>,
    /// One a block.
    pub scales: Vec<f16>,
    /// Of Q4_1 alone.
    pub zero_points: Option<FractionalZeroPoints>,
    /// Sum of the squared weights.
    pub squared_weights: f64,
}

/// Zero points of Q4_1 blocks and what storing them costs.
#[derive(Clone, Debug, Default)]
pub struct FractionalZeroPoints {
    /// One a block.
    pub values: Vec<f32>,
    /// Largest movement of a weight, in quantisation steps, when stored as f16.
    pub f16_deviation: f64,
    /// The same when stored as f32.
    pub f32_deviation: f64,
    /// Sum of squared movements of weights when stored as f16.
    pub f16_squared_error: f64,
    /// The same when stored as f32.
    pub f32_squared_error: f64,
}

impl FractionalZeroPoints {
    /// Whether f16 carries them within [`MAX_F16_DEVIATION`].
    pub fn fit_f16(&self) -> bool {
        self.f16_deviation <= MAX_F16_DEVIATION
    }

    /// Sum of squared movements of weights, stored as they fit.
    pub fn squared_error(&self) -> f64 {
        if self.fit_f16() {
            self.f16_squared_error
        } else {
            self.f32_squared_error
        }
    }

    /// Adds the zero points of the rows that follow.
    pub fn append(&mut self, other: Self) {
        self.values.extend(other.values);
        self.f16_deviation = self.f16_deviation.max(other.f16_deviation);
        self.f32_deviation = self.f32_deviation.max(other.f32_deviation);
        self.f16_squared_error += other.f16_squared_error;
        self.f32_squared_error += other.f32_squared_error;
    }
}

/// Reads rows of a tensor that is Q4_0 or Q4_1 (for 4 bits) or Q8_0 (for 8);
/// `None` where it is stored otherwise.
pub fn import_rows(
    source: &dyn Source,
    tensor: &str,
    rows: Range<usize>,
    columns: usize,
    bits: Bits,
) -> Result<Option<ImportedRows>> {
    let parts: Vec<_> = tasks(rows, columns)
        .into_par_iter()
        .map(|rows| import_task(source, tensor, rows, columns, bits))
        .collect();
    let mut whole: Option<ImportedRows> = None;
    for part in parts {
        let Some(part) = part? else { return Ok(None) };
        match &mut whole {
            None => whole = Some(part),
            Some(whole) => whole.append(part),
        }
    }
    Ok(whole)
}

impl ImportedRows {
    fn append(&mut self, other: Self) {
        self.quants.extend(other.quants);
        self.scales.extend(other.scales);
        self.squared_weights += other.squared_weights;
        if let (Some(mine), Some(others)) = (&mut self.zero_points, other.zero_points) {
            mine.append(others);
        }
    }
}

fn import_task(
    source: &dyn Source,
    tensor: &str,
    rows: Range<usize>,
    columns: usize,
    bits: Bits,
) -> Result<Option<ImportedRows>> {
    let Some(blocks) = read_blocks(source, tensor, rows.clone(), bits)? else {
        return Ok(None);
    };
    let block_bytes = bits.block_bytes();
    let count = rows.len() * (columns / BLOCK_SIZE);
    let Blocks {
        mut quants,
        mut scales,
        mins,
    } = blocks;
    if quants.len() != count * block_bytes
        || scales.len() != count
        || !(mins.is_empty() || mins.len() == count)
    {
        return Err(Error::read(
            tensor,
            format!("{count} blocks expected, others given"),
        ));
    }
    let place = |block: usize| {
        let row_blocks = (columns / BLOCK_SIZE).max(1);
        (
            rows.start + block / row_blocks,
            block % row_blocks * BLOCK_SIZE,
        )
    };
    let mut squared_weights = 0.0;
    let mut zero_points = (!mins.is_empty()).then(FractionalZeroPoints::default);
    for (block, (quants, scale)) in quants
        .chunks_exact_mut(block_bytes)
        .zip(&mut scales)
        .enumerate()
    {
        let min = mins.get(block).copied();
        if !scale.is_finite() || min.is_some_and(|min| !min.is_finite()) {
            let (row, column) = place(block);
            return Err(Error::BadWeight {
                tensor: tensor.to_owned(),
                row,
                column,
                reason: "begins a block whose scale or minimum is not finite".to_owned(),
            });
        }
        let min = match (&mut zero_points, min) {
            (Some(points), Some(min)) => {
                if *scale == f16::ZERO && min != f16::ZERO {
                    // All weights equal the minimum, which no zero point says
                    // where the scale is 0: one step of that size does.
                    quants.fill(0x11);
                    *scale = min;
                    points.push(0.0, 0.0);
                    f64::from(0.0f32)
                } else {
                    points.push_quotient(*scale, min);
                    f64::from(min)
                }
            }
            _ => -f64::from(bits.symmetric_zero_point()) * f64::from(*scale),
        };
        squared_weights += squared_sum(bits, quants, f64::from(*scale), min);
    }
    Ok(Some(ImportedRows {
        quants,
        scales,
        zero_points,
        squared_weights,
    }))
}

/// Blocks as a source gives them, of either number of bits.
struct Blocks {
    quants: Vec<u8>,
    scales: Vec<f16>,
    /// One a block, or none where the zero point is implied.
    mins: Vec<f16>,
}

fn read_blocks(
    source: &dyn Source,
    tensor: &str,
    rows: Range<usize>,
    bits: Bits,
) -> Result<Option<Blocks>> {
    let (mut q4, mut q8) = (Q4Blocks::default(), Q8Blocks::default());
    let found = match bits {
        Bits::Four => source.read_q4_rows(tensor, rows, &mut q4)?,
        Bits::Eight => source.read_q8_rows(tensor, rows, &mut q8)?,
    };
    let (quants, scales) = match bits {
        Bits::Four => (q4.quants, q4.scales),
        Bits::Eight => (q8.quants, q8.scales),
    };
    Ok(found.then_some(Blocks {
        quants,
        scales,
        mins: q4.mins,
    }))
}

impl FractionalZeroPoints {
    fn push_quotient(&mut self, scale: f16, min: f16) {
        if scale == f16::ZERO {
            return self.push(0.0, 0.0);
        }
        self.push(-f64::from(min) / f64::from(scale), f64::from(scale));
    }

    fn push(&mut self, exact: f64, scale: f64) {
        let single = exact as f32;
        let in_f16 = (f64::from(f16::from_f32(single)) - exact).abs();
        let in_f32 = (f64::from(single) - exact).abs();
        self.values.push(single);
        self.f16_deviation = self.f16_deviation.max(in_f16);
        self.f32_deviation = self.f32_deviation.max(in_f32);
        let squares = |deviation: f64| BLOCK_SIZE as f64 * (deviation * scale).powi(2);
        self.f16_squared_error += squares(in_f16);
        self.f32_squared_error += squares(in_f32);
    }
}

fn squared_sum(bits: Bits, quants: &[u8], scale: f64, min: f64) -> f64 {
    let square = |quant: u8| (f64::from(quant) * scale + min).powi(2);
    match bits {
        Bits::Four => quants.iter().map(|q| square(q & 15) + square(q >> 4)).sum(),
        Bits::Eight => quants.iter().map(|&q| square(q)).sum(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Memory, q4_value, tiny};

    const NAME: &str = "model.layers.0.mlp.up_proj.weight";
    const ROWS: usize = 96;
    const COLUMNS: usize = 64;

    fn import(source: &Memory) -> ImportedRows {
        import_rows(source, NAME, 0..ROWS, COLUMNS, Bits::Four)
            .unwrap()
            .unwrap()
    }

    fn value(rows: &ImportedRows, zero_points: impl Fn(usize) -> f64, element: usize) -> f64 {
        let byte = rows.quants[element / 2];
        let quant = if element.is_multiple_of(2) {
            byte & 15
        } else {
            byte >> 4
        };
        let block = element / 32;
        (f64::from(quant) - zero_points(block)) * f64::from(rows.scales[block])
    }

    #[test]
    fn q4_0_is_taken_over_exactly() {
        let mut source = tiny();
        let blocks = source.hold_q4(NAME, false).clone();
        let rows = import(&source);
        assert_eq!(rows.quants, blocks.quants);
        assert_eq!(rows.scales, blocks.scales);
        assert!(rows.zero_points.is_none());
        for element in 0..ROWS * COLUMNS {
            let expected = f64::from(q4_value(&blocks, element));
            assert_eq!(value(&rows, |_| 8.0, element), expected);
        }
    }

    #[test]
    fn q8_0_is_taken_over_exactly() {
        let mut source = tiny();
        let blocks = source.hold_q8(NAME).clone();
        assert!(blocks.quants.contains(&0) && blocks.quants.contains(&255));
        let rows = import_rows(&source, NAME, 0..ROWS, COLUMNS, Bits::Eight)
            .unwrap()
            .unwrap();
        assert_eq!(rows.quants, blocks.quants);
        assert_eq!(rows.scales, blocks.scales);
        assert!(rows.zero_points.is_none());
        let mut values = vec![0.0; ROWS * COLUMNS];
        source.read_rows(NAME, 0..ROWS, &mut values).unwrap();
        let squares: f64 = values.iter().map(|&v| f64::from(v).powi(2)).sum();
        assert!((rows.squared_weights / squares - 1.0).abs() < 1e-9);
    }

    #[test]
    fn q4_1_keeps_to_the_stated_bound() {
        let mut source = tiny();
        let blocks = source.hold_q4(NAME, true).clone();
        let rows = import(&source);
        let points = rows.zero_points.as_ref().unwrap();
        assert!(points.fit_f16());
        assert!(points.f16_deviation > 0.0 && points.f16_deviation <= 1.0 / 256.0);
        let stored = |block: usize| f64::from(f16::from_f32(points.values[block]));
        let mut squares = 0.0;
        for element in 0..ROWS * COLUMNS {
            let scale = f64::from(blocks.scales[element / 32]);
            let min = f64::from(blocks.mins[element / 32]);
            let byte = blocks.quants[element / 2];
            let quant = if element.is_multiple_of(2) {
                byte & 15
            } else {
                byte >> 4
            };
            let difference = value(&rows, stored, element) - (f64::from(quant) * scale + min);
            let steps = (difference / scale).abs();
            assert!(steps <= points.f16_deviation * 1.0001, "{steps} {element}");
            squares += difference * difference;
        }
        let told = points.squared_error();
        assert!((squares / told - 1.0).abs() < 1e-3, "{squares} {told}");
    }

    #[test]
    fn distant_minimums_go_to_f32_and_constant_blocks_stay_exact() {
        let mut source = tiny();
        let blocks = source.hold_q4(NAME, true);
        // 0.1 with steps of 0.0001: the zero point is near -1000.
        blocks.scales[7] = f16::from_f32(0.0001);
        blocks.mins[7] = f16::from_f32(0.1);
        // All weights are -0.3: there is no step at all.
        blocks.scales[9] = f16::ZERO;
        blocks.mins[9] = f16::from_f32(-0.3);
        blocks.scales[11] = f16::ZERO;
        blocks.mins[11] = f16::ZERO;
        let expected: Vec<_> = (0..ROWS * COLUMNS).map(|i| q4_value(blocks, i)).collect();

        let rows = import(&source);
        let points = rows.zero_points.as_ref().unwrap();
        assert!(!points.fit_f16());
        assert!(points.f32_deviation < 1e-4, "{}", points.f32_deviation);
        let stored = |block: usize| f64::from(points.values[block]);
        for block in [7, 9, 11] {
            for (element, &expected) in expected.iter().enumerate().skip(block * 32).take(32) {
                let difference = value(&rows, stored, element) - f64::from(expected);
                let bound = if block == 7 { 1e-8 } else { 0.0 };
                assert!(difference.abs() <= bound, "{element} {difference}");
            }
        }
    }

    #[test]
    fn scales_that_are_no_numbers_are_refused() {
        let mut source = tiny();
        source.hold_q4(NAME, true).scales[5] = f16::NAN;
        let message = import_rows(&source, NAME, 0..ROWS, COLUMNS, Bits::Four)
            .unwrap_err()
            .to_string();
        assert!(message.contains("row 2, column 32"), "{message}");
        source.hold_q4(NAME, true).mins[191] = f16::NEG_INFINITY;
        let message = import_rows(&source, NAME, 0..ROWS, COLUMNS, Bits::Four)
            .unwrap_err()
            .to_string();
        assert!(message.contains("row 95, column 32"), "{message}");
        source.hold_q8(NAME).scales[190] = f16::INFINITY;
        let message = import_rows(&source, NAME, 0..ROWS, COLUMNS, Bits::Eight)
            .unwrap_err()
            .to_string();
        assert!(message.contains("row 95, column 0"), "{message}");
    }

    #[test]
    fn other_tensors_are_left_to_the_quantiser() {
        let imported = |source: &Memory, bits| {
            import_rows(source, NAME, 0..ROWS, COLUMNS, bits)
                .unwrap()
                .is_some()
        };
        let mut source = tiny();
        assert!(!imported(&source, Bits::Four) && !imported(&source, Bits::Eight));
        source.hold_q4(NAME, false);
        assert!(imported(&source, Bits::Four) && !imported(&source, Bits::Eight));
        source.hold_q8(NAME);
        assert!(!imported(&source, Bits::Four) && imported(&source, Bits::Eight));
    }
}
