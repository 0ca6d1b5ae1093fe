//! Activations as the products read them.
//!
//! A row of activations is encoded once and read by every product that takes it
//! (Q, K and V; gate and up). The encoding puts the values into the order in
//! which a backend meets the weights' quants, so that the weights are used as
//! they lie in the file.

use super::backend::Backend;
use super::blocks::{BLOCK, Bits, HALF};
use super::int8::{self, encode};

/// What activations are computed with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Precision {
    /// f32: the reference for quality.
    Float,
    /// int8 with a scale for each block of 32, as llama.cpp's Q8_0: three to four
    /// times the work per instruction.
    Int8,
}

/// Rows up to which, in int8, what comes out for a row is the same to the bit,
/// whatever rows are computed with it. More rows are encoded in tiles, where a
/// backend has kernels for them.
pub(crate) const EXACT_ROWS: usize = encode::TILE - 1;

/// How a row of activations is encoded for the products with one kind of
/// weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Encoding {
    pub(super) backend: Backend,
    precision: Precision,
    bits: Bits,
    columns: usize,
}

impl Encoding {
    /// For weights of `bits` with `columns` columns, a multiple of 32.
    pub(crate) fn new(backend: Backend, precision: Precision, bits: Bits, columns: usize) -> Self {
        Self {
            backend,
            precision,
            bits,
            columns,
        }
    }

    /// Activations in a row.
    pub(crate) fn columns(&self) -> usize {
        self.columns
    }

    /// The weights that this is for.
    pub(crate) fn bits(&self) -> Bits {
        self.bits
    }

    pub(crate) fn precision(&self) -> Precision {
        self.precision
    }

    /// Of [`Precision::Int8`]: the order of the values.
    pub(super) fn order(&self) -> encode::Order {
        int8::order(self.backend, self.bits)
    }

    /// Bytes of an encoded row.
    pub(crate) fn row_bytes(&self) -> usize {
        match self.precision {
            Precision::Float => (self.columns + self.columns / BLOCK) * size_of::<f32>(),
            Precision::Int8 => encode::row_bytes(self.columns),
        }
        .next_multiple_of(ALIGNMENT)
    }

    /// Encodes `x`, whole blocks of row `row` from block `first` on. The rows are
    /// `rows` in all and begin at `to`.
    ///
    /// # Safety
    /// `to` is `rows` times [`Self::row_bytes`] writable bytes aligned to
    /// [`ALIGNMENT`], and no other thread touches the same blocks of the row
    /// meanwhile (others may write other blocks).
    pub(crate) unsafe fn encode(
        &self,
        x: &[f32],
        first: usize,
        row: usize,
        rows: usize,
        to: *mut u8,
    ) {
        assert!(
            x.len().is_multiple_of(BLOCK) && first * BLOCK + x.len() <= self.columns && row < rows,
            "{} activations at block {first} of {} columns, row {row} of {rows}",
            x.len(),
            self.columns
        );
        match self.precision {
            Precision::Float => {
                for (i, block) in x.chunks_exact(BLOCK).enumerate() {
                    // SAFETY: the block lies inside the row, by the assertion
                    // above, and nobody else touches it, by the contract.
                    unsafe {
                        let to = to.add(row * self.row_bytes());
                        self.encode_float(block, first + i, to.cast());
                    }
                }
            }
            Precision::Int8 => {
                let place = encode::Place::new(self.order(), self.columns, rows, row);
                // SAFETY: whole aligned rows; the blocks are ours by the contract.
                let to = unsafe { encode::Target::new(to) };
                encode::encode(self.backend, x, first, place, to);
            }
        }
    }

    /// 4 bits: the 16 values of even index, then the 16 of odd index, as a byte
    /// holds an even and an odd quant. 8 bits: as they come. The sums of the
    /// blocks, which zero points are multiplied with, follow the values.
    ///
    /// # Safety
    /// `block` is inside the row at `to`, and no other thread touches it.
    unsafe fn encode_float(&self, x: &[f32], block: usize, to: *mut f32) {
        // SAFETY: 32 values at the block and one sum, inside the row by the contract.
        let (values, sum) = unsafe {
            (
                std::slice::from_raw_parts_mut(to.add(block * BLOCK), BLOCK),
                &mut *to.add(self.columns + block),
            )
        };
        match self.bits {
            Bits::Four => {
                let (even, odd) = values.split_at_mut(HALF);
                for ((pair, e), o) in x.chunks_exact(2).zip(even).zip(odd) {
                    *e = pair[0];
                    *o = pair[1];
                }
            }
            Bits::Eight => values.copy_from_slice(x),
        }
        *sum = x.iter().sum();
    }
}

/// What an encoded row begins at a multiple of: a cache line, and the widest
/// vector.
pub(crate) const ALIGNMENT: usize = 64;

/// Encoded rows.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Encoded<'a> {
    encoding: Encoding,
    bytes: &'a [u8],
}

impl<'a> Encoded<'a> {
    /// `None` when `bytes` are not whole aligned rows.
    pub(crate) fn new(encoding: Encoding, bytes: &'a [u8]) -> Option<Self> {
        (bytes.len().is_multiple_of(encoding.row_bytes())
            && bytes.as_ptr().addr().is_multiple_of(ALIGNMENT))
        .then_some(Self { encoding, bytes })
    }

    pub(crate) fn rows(&self) -> usize {
        self.bytes.len() / self.encoding.row_bytes()
    }

    pub(crate) fn encoding(&self) -> Encoding {
        self.encoding
    }

    /// The rows as they lie.
    pub(super) fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// Of [`Precision::Float`]: a row's values and the sums of its blocks.
    #[inline(always)]
    pub(super) fn floats(&self, row: usize) -> (&'a [f32], &'a [f32]) {
        let bytes = self.encoding.row_bytes();
        let floats: &[f32] = bytemuck::cast_slice(&self.bytes[row * bytes..][..bytes]);
        let (values, rest) = floats.split_at(self.encoding.columns);
        (values, &rest[..self.encoding.columns / BLOCK])
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Aligned memory for encoded rows.
    #[derive(Clone, Copy)]
    #[repr(align(64))]
    pub(crate) struct Line(
        #[expect(dead_code, reason = "memory to be pointed to")] [u8; ALIGNMENT],
    );

    /// Encoded rows that own their memory.
    pub(crate) struct Owned {
        encoding: Encoding,
        lines: Vec<Line>,
    }

    impl Owned {
        /// Encodes `x`, rows of the encoding's columns.
        pub(crate) fn new(encoding: Encoding, x: &[f32]) -> Self {
            let rows = x.len() / encoding.columns();
            let total = rows * encoding.row_bytes();
            // Filled with what must not be read: every byte is written over.
            let mut lines = vec![Line([0xff; ALIGNMENT]); total / ALIGNMENT];
            let start: *mut u8 = lines.as_mut_ptr().cast();
            for (row, x) in x.chunks_exact(encoding.columns()).enumerate() {
                // In two parts, as threads do it.
                let half = x.len() / BLOCK / 2;
                let (first, second) = x.split_at(half * BLOCK);
                // SAFETY: the row is inside `lines`, aligned, and ours alone.
                unsafe {
                    encoding.encode(second, half, row, rows, start);
                    encoding.encode(first, 0, row, rows, start);
                }
            }
            Self { encoding, lines }
        }

        /// The activations that the encoded rows stand for.
        pub(crate) fn decoded(&self) -> Vec<f32> {
            let (encoding, view) = (self.encoding, self.view());
            (0..view.rows())
                .flat_map(|row| match encoding.precision {
                    Precision::Float => match encoding.bits {
                        Bits::Four => {
                            let halves = |b: &[f32]| -> Vec<f32> {
                                (0..BLOCK).map(|i| b[i / 2 + i % 2 * HALF]).collect()
                            };
                            let (values, _) = view.floats(row);
                            values.chunks_exact(BLOCK).flat_map(halves).collect()
                        }
                        Bits::Eight => view.floats(row).0.to_vec(),
                    },
                    Precision::Int8 => encode::tests::decode(
                        view.bytes(),
                        encoding.columns,
                        encoding.order(),
                        view.rows(),
                        row,
                    ),
                })
                .collect()
        }

        pub(crate) fn view(&self) -> Encoded<'_> {
            let bytes = self.lines.len() * ALIGNMENT;
            // SAFETY: `lines` are that many initialised bytes.
            let bytes = unsafe { std::slice::from_raw_parts(self.lines.as_ptr().cast(), bytes) };
            Encoded::new(self.encoding, bytes).unwrap()
        }
    }

    #[test]
    fn floats_are_evens_then_odds_and_the_sum() {
        let x: Vec<f32> = (0..64).map(|i| i as f32).collect();
        let encode = |bits| {
            let encoding = Encoding::new(Backend::SCALAR, Precision::Float, bits, 64);
            Owned::new(encoding, &x)
        };
        let four = encode(Bits::Four);
        assert_eq!(four.view().rows(), 1);
        let (values, sums) = four.view().floats(0);
        assert_eq!(&values[..3], &[0.0, 2.0, 4.0]);
        assert_eq!(&values[16..19], &[1.0, 3.0, 5.0]);
        assert_eq!(&values[32..34], &[32.0, 34.0]);
        assert_eq!(sums, &[496.0, 1520.0]);
        let eight = encode(Bits::Eight);
        let (values, sums) = eight.view().floats(0);
        assert_eq!(values, x);
        assert_eq!(sums, &[496.0, 1520.0]);
    }

    #[test]
    fn lengths_and_alignment_are_checked() {
        let encoding = Encoding::new(Backend::SCALAR, Precision::Float, Bits::Four, 64);
        let owned = Owned::new(encoding, &[0.0; 128]);
        let bytes = owned.view().bytes;
        assert!(Encoded::new(encoding, &bytes[..encoding.row_bytes()]).is_some());
        assert!(Encoded::new(encoding, &bytes[..encoding.row_bytes() - 1]).is_none());
        assert!(Encoded::new(encoding, &bytes[4..][..encoding.row_bytes()]).is_none());
    }
}
