//! `y = x Wᵀ` with 4- or 8-bit weights, whatever the activations are encoded in.

use std::ops::Range;

use super::blocks::BlockMatrix;
use super::encoding::{Encoded, Precision};
use super::{float, int8};

pub(crate) use super::int8::Then;

/// A raw window on the output, `x.rows` rows of `w.rows` columns, of which each
/// thread writes its own columns.
#[derive(Clone, Copy)]
pub(crate) struct Output {
    start: *mut f32,
    stride: usize,
}

// SAFETY: `linear` lets each thread write only the columns of its own range.
unsafe impl Send for Output {}
// SAFETY: as above.
unsafe impl Sync for Output {}

impl Output {
    /// A window on `y`, rows of `stride` values that are the columns from `first`
    /// on.
    pub(crate) fn new(y: &mut [f32], stride: usize, first: usize) -> Self {
        Self {
            // Outside of `y`, but only columns from `first` on are written.
            start: y.as_mut_ptr().wrapping_sub(first),
            stride,
        }
    }

    /// # Safety
    /// `row * stride + column` is inside the output, and no other thread
    /// writes that column.
    #[inline(always)]
    pub(super) unsafe fn set(self, row: usize, column: usize, value: f32) {
        // SAFETY: inside the output by the contract.
        unsafe { *self.start.wrapping_add(row * self.stride + column) = value }
    }
}

impl Output {
    /// The window whose row and column 0 are these.
    pub(super) fn at(self, row: usize, column: usize) -> Self {
        Self {
            start: self.start.wrapping_add(row * self.stride + column),
            stride: self.stride,
        }
    }

    /// Writes columns that follow each other.
    ///
    /// # Safety
    /// As for [`Self::set`], for each.
    #[inline(always)]
    pub(super) unsafe fn set_all<const N: usize>(
        self,
        row: usize,
        column: usize,
        values: [f32; N],
    ) {
        // SAFETY: inside the output by the contract.
        unsafe {
            let at = self.start.wrapping_add(row * self.stride + column);
            at.cast::<[f32; N]>().write_unaligned(values);
        }
    }
}

/// Computes the columns `rows` (rows of `w`) of `y = x Wᵀ`. `then` is what the
/// thread reads next, if that does not follow in `w`: a hint.
///
/// # Safety
/// `y` has `x.rows()` rows with the columns `rows` and lives through the call, and
/// nobody else touches these columns meanwhile.
pub(crate) unsafe fn linear(
    w: &BlockMatrix<'_>,
    x: &Encoded<'_>,
    rows: Range<usize>,
    y: Output,
    then: Option<Then<'_>>,
) {
    let encoding = x.encoding();
    assert!(rows.end <= w.rows());
    assert!(
        (w.bits(), w.columns()) == (encoding.bits(), encoding.columns()),
        "activations encoded for other weights"
    );
    match encoding.precision() {
        // SAFETY: the shapes were checked; the output is as promised to us.
        Precision::Float => unsafe { float::linear(encoding.backend, w, x, rows, y) },
        Precision::Int8 => {
            let job = int8::Job {
                w,
                x: x.bytes().as_ptr(),
                x_stride: encoding.row_bytes(),
                x_rows: x.rows(),
                order: encoding.order(),
                y,
                then,
            };
            // SAFETY: as above; the rows are encoded for this backend.
            unsafe { int8::linear(encoding.backend, &job, rows) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Backend;
    use super::super::blocks::tests::{Lcg, Owned};
    use super::super::blocks::{BLOCK, Bits, Floats, ZeroPoints};
    use super::super::encoding::{EXACT_ROWS, Encoding, Precision, tests::Owned as Activations};
    use super::*;

    /// In f64, from the dequantised rows: independent of the kernels' order.
    fn reference(w: &BlockMatrix<'_>, x: &[f32]) -> Vec<(f64, f64)> {
        let mut row = vec![0.0; w.columns()];
        let mut y = Vec::new();
        for x in x.chunks_exact(w.columns()) {
            for r in 0..w.rows() {
                w.dequantise_row(r, &mut row);
                let products = row
                    .iter()
                    .zip(x)
                    .map(|(&a, &b)| f64::from(a) * f64::from(b));
                let size = products.clone().map(f64::abs).sum();
                y.push((products.sum(), size));
            }
        }
        y
    }

    const PRECISIONS: [Precision; 2] = [Precision::Float, Precision::Int8];

    #[test]
    fn every_backend_agrees_with_the_reference() {
        println!("backends run: {:?}", Backend::available());
        // Units of one, two and four rows, whole and not.
        for (rows, columns) in [(1, 32), (3, 64), (5, 96), (9, 576), (16, 1536), (130, 160)] {
            for bits in [Bits::Four, Bits::Eight] {
                let owned = Owned::random(rows, columns, bits, (rows * columns) as u64);
                for x_rows in [1, 2, 3, 4, 5, 8, 17, 35] {
                    let x = Lcg(7 + x_rows as u64).units(x_rows * columns);
                    for w in owned.views() {
                        for precision in PRECISIONS {
                            for backend in Backend::available() {
                                compare(backend, precision, &w, &x, x_rows);
                            }
                        }
                    }
                }
            }
        }
    }

    /// All of `y`, the rows of W in two parts.
    fn compute(w: &BlockMatrix<'_>, x: &Activations, x_rows: usize) -> Vec<f32> {
        let rows = w.rows();
        let mut y = vec![f32::NAN; x_rows * rows];
        let out = Output::new(&mut y, rows, 0);
        let middle = rows / 3;
        for part in [0..middle, middle..rows] {
            // SAFETY: `y` has the shape and this thread alone.
            unsafe { linear(w, &x.view(), part, out, Some((*w, 0))) };
        }
        y
    }

    /// A backend against the reference on what its activations stand for.
    fn compare(
        backend: Backend,
        precision: Precision,
        w: &BlockMatrix<'_>,
        x: &[f32],
        x_rows: usize,
    ) {
        let (rows, columns) = (w.rows(), w.columns());
        let encoding = Encoding::new(backend, precision, w.bits(), columns);
        let activations = Activations::new(encoding, x);
        let expected = reference(w, &activations.decoded());
        let largest = match w.bits() {
            Bits::Four => 15.0,
            Bits::Eight => 255.0,
        };
        let y = compute(w, &activations, x_rows);
        for (i, (&got, &(want, size))) in y.iter().zip(&expected).enumerate() {
            // Zero points make the two halves of a product cancel: the bound
            // is relative to them.
            let bound = 1e-5 * (size + largest * columns as f64 * 0.1) + 1e-6;
            assert!(
                (f64::from(got) - want).abs() <= bound,
                "{backend:?} {precision:?} {rows}x{columns} x {x_rows}, {i}: {got} for {want}"
            );
        }
    }

    /// Prompt lookup decoding relies on it.
    #[test]
    fn an_int8_row_does_not_depend_on_the_rows_beside_it() {
        for (rows, columns) in [(9, 576), (7, 128), (5, 96)] {
            for bits in [Bits::Four, Bits::Eight] {
                let owned = Owned::random(rows, columns, bits, 11);
                let x = Lcg(5).units(EXACT_ROWS * columns);
                for w in owned.views() {
                    for backend in Backend::available() {
                        let encoding = Encoding::new(backend, Precision::Int8, bits, columns);
                        let alone: Vec<f32> = x
                            .chunks_exact(columns)
                            .flat_map(|x| compute(&w, &Activations::new(encoding, x), 1))
                            .collect();
                        for x_rows in [2, 4, 7, 8, EXACT_ROWS] {
                            let x = &x[..x_rows * columns];
                            let y = compute(&w, &Activations::new(encoding, x), x_rows);
                            assert_eq!(y, alone[..y.len()], "{backend:?} {x_rows}");
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn extreme_activations_do_not_pass_the_integers() {
        // The largest products that a lane can meet, of one sign.
        for bits in [Bits::Four, Bits::Eight] {
            for quant in [0u8, 0x0f, 0xf0, 0xff] {
                let (rows, columns) = (4, 1536);
                let quants = vec![quant; rows * columns / BLOCK * bits.block_bytes()];
                let scales = vec![1.0; rows * columns / BLOCK];
                let w = BlockMatrix::new(
                    rows,
                    columns,
                    bits,
                    &quants,
                    Floats::F32(&scales),
                    ZeroPoints::Symmetric,
                )
                .unwrap();
                for value in [1e-30, -1.0, 1e30] {
                    let x = vec![value; columns * 9];
                    for backend in Backend::available() {
                        compare_relative(backend, &w, &x);
                    }
                }
            }
        }
    }

    fn compare_relative(backend: Backend, w: &BlockMatrix<'_>, x: &[f32]) {
        let encoding = Encoding::new(backend, Precision::Int8, w.bits(), w.columns());
        let activations = Activations::new(encoding, x);
        let expected = reference(w, &activations.decoded());
        let y = compute(w, &activations, x.len() / w.columns());
        for (&got, &(want, size)) in y.iter().zip(&expected) {
            assert!(
                (f64::from(got) - want).abs() <= 1e-5 * size,
                "{backend:?}: {got} for {want}"
            );
        }
    }

    #[test]
    fn zero_activations_give_zero() {
        for bits in [Bits::Four, Bits::Eight] {
            let owned = Owned::random(7, 64, bits, 3);
            for w in owned.views() {
                for backend in Backend::available() {
                    for precision in PRECISIONS {
                        for x_rows in [1, 6] {
                            let encoding = Encoding::new(backend, precision, bits, 64);
                            let x = Activations::new(encoding, &vec![0.0; 64 * x_rows]);
                            let y = compute(&w, &x, x_rows);
                            assert!(y.iter().all(|&v| v == 0.0), "{backend:?}: {y:?}");
                        }
                    }
                }
            }
        }
    }

    /// A fault must be seen, not hidden: an infinite scale or activation gives
    /// numbers that no token can be chosen from.
    #[test]
    fn infinities_come_out_as_what_they_are() {
        let owned = Owned::random(4, 128, Bits::Four, 9);
        let w = owned.views()[0];
        for backend in Backend::available() {
            let encoding = Encoding::new(backend, Precision::Int8, Bits::Four, 128);
            for fault in [f32::INFINITY, f32::NEG_INFINITY, f32::NAN] {
                let mut x = Lcg(1).units(128);
                x[77] = fault;
                let y = compute(&w, &Activations::new(encoding, &x), 1);
                assert!(y.iter().all(|v| !v.is_finite()), "{backend:?}: {y:?}");
            }
        }
    }
}
