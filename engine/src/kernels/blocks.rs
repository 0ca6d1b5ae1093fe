//! Quantised weights where they lie: a borrowed view of a matrix in the mapped
//! data file, in blocks of 4 or of 8 bits.

use std::ops::Range;

use super::f16::finite_f16;
use super::vector::Vector;

/// Weights that share a scale.
pub(crate) const BLOCK: usize = 32;
/// Half a block: what the kernels pair up. See [`Layout`].
pub(crate) const HALF: usize = BLOCK / 2;

/// Bits of a quant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bits {
    Four,
    Eight,
}

impl Bits {
    /// From the number in a node's attribute.
    pub(crate) fn new(bits: i64) -> Option<Self> {
        match bits {
            4 => Some(Self::Four),
            8 => Some(Self::Eight),
            _ => None,
        }
    }

    /// Bytes of a block's quants.
    pub(crate) const fn block_bytes(self) -> usize {
        match self {
            Self::Four => BLOCK / 2,
            Self::Eight => BLOCK,
        }
    }

    /// The zero point of all blocks where none are stored.
    fn symmetric_zero_point(self) -> f32 {
        match self {
            Self::Four => 8.0,
            Self::Eight => 128.0,
        }
    }

    /// Bytes of a row's integer zero points.
    pub(super) fn zero_point_bytes(self, blocks: usize) -> usize {
        match self {
            Self::Four => blocks.div_ceil(2),
            Self::Eight => blocks,
        }
    }
}

/// How a block's quants are read: as two vectors for each step through half a
/// block, which belong to the two halves of the block's activations in the order
/// of [`Self::BITS`] (see [`super::activations::Activations`]).
pub(crate) trait Layout {
    const BITS: Bits;

    /// The quants `part..part + V::LANES` of both halves.
    ///
    /// # Safety
    /// The vector's target features; a whole block's bytes at `block`, and
    /// `part + V::LANES` at most [`HALF`].
    unsafe fn pair<V: Vector>(block: *const u8, part: usize) -> (V, V);
}

/// 4 bits: a byte holds elements 2i (low nibble) and 2i + 1, so the halves are
/// the even and the odd elements.
pub(crate) struct Nibbles;

impl Layout for Nibbles {
    const BITS: Bits = Bits::Four;

    #[inline(always)]
    unsafe fn pair<V: Vector>(block: *const u8, part: usize) -> (V, V) {
        // SAFETY: features and bytes by the contract.
        unsafe { V::nibbles(block.add(part)) }
    }
}

/// 8 bits: the halves are the first and the last 16 elements.
pub(crate) struct Bytes;

impl Layout for Bytes {
    const BITS: Bits = Bits::Eight;

    #[inline(always)]
    unsafe fn pair<V: Vector>(block: *const u8, part: usize) -> (V, V) {
        // SAFETY: features and bytes by the contract.
        unsafe { (V::bytes(block.add(part)), V::bytes(block.add(HALF + part))) }
    }
}

/// Numbers stored as f16 bits or as f32.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Floats<'a> {
    F16(&'a [u16]),
    F32(&'a [f32]),
}

impl Floats<'_> {
    pub(crate) fn len(&self) -> usize {
        match self {
            Floats::F16(v) => v.len(),
            Floats::F32(v) => v.len(),
        }
    }

    fn get(&self, index: usize) -> f32 {
        match self {
            Floats::F16(v) => finite_f16(v[index]),
            Floats::F32(v) => v[index],
        }
    }

    /// Widens `range` into `out`, of the same length.
    #[inline(always)]
    fn widen(&self, range: Range<usize>, out: &mut [f32]) {
        match self {
            Floats::F16(v) => {
                for (o, &bits) in out.iter_mut().zip(&v[range]) {
                    *o = finite_f16(bits);
                }
            }
            Floats::F32(v) => out.copy_from_slice(&v[range]),
        }
    }
}

/// What is subtracted from a quant before it is scaled.
#[derive(Clone, Copy, Debug)]
pub(crate) enum ZeroPoints<'a> {
    /// The middle of the range for every block: 8 or 128.
    Symmetric,
    /// Integers of the quants' bits; of 4, two to a byte, the even block in the
    /// low nibble, and each row begins at a byte.
    Packed(&'a [u8]),
    /// One a block.
    Fractional(Floats<'a>),
}

/// A matrix of quantised weights, `[rows, columns]`, in the layout of
/// `com.microsoft.MatMulNBits` with block size 32 (see `docs/model-folder.md`).
#[derive(Clone, Copy, Debug)]
pub(crate) struct BlockMatrix<'a> {
    rows: usize,
    blocks: usize,
    bits: Bits,
    quants: &'a [u8],
    scales: Floats<'a>,
    zero_points: ZeroPoints<'a>,
}

impl<'a> BlockMatrix<'a> {
    /// `None` when a part's length does not fit the shape.
    pub(crate) fn new(
        rows: usize,
        columns: usize,
        bits: Bits,
        quants: &'a [u8],
        scales: Floats<'a>,
        zero_points: ZeroPoints<'a>,
    ) -> Option<Self> {
        let blocks = columns / BLOCK;
        let total = rows.checked_mul(blocks)?;
        let zero_points_fit = match zero_points {
            ZeroPoints::Symmetric => true,
            ZeroPoints::Packed(v) => v.len() == rows.checked_mul(bits.zero_point_bytes(blocks))?,
            ZeroPoints::Fractional(v) => v.len() == total,
        };
        (columns > 0
            && columns.is_multiple_of(BLOCK)
            && quants.len() == total.checked_mul(bits.block_bytes())?
            && scales.len() == total
            && zero_points_fit)
            .then_some(Self {
                rows,
                blocks,
                bits,
                quants,
                scales,
                zero_points,
            })
    }

    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    pub(crate) fn columns(&self) -> usize {
        self.blocks * BLOCK
    }

    /// Blocks in a row.
    pub(crate) fn blocks(&self) -> usize {
        self.blocks
    }

    pub(crate) fn bits(&self) -> Bits {
        self.bits
    }

    /// The quants of a row: `blocks * bits.block_bytes()` bytes.
    #[inline(always)]
    pub(crate) fn quants(&self, row: usize) -> &'a [u8] {
        let bytes = self.blocks * self.bits.block_bytes();
        &self.quants[row * bytes..][..bytes]
    }

    /// All quants, scales and zero points, as they lie.
    #[inline(always)]
    pub(crate) fn parts(&self) -> (&'a [u8], Floats<'a>, ZeroPoints<'a>) {
        (self.quants, self.scales, self.zero_points)
    }

    /// A block's scale and zero point.
    pub(crate) fn scale_and_zero_point(&self, row: usize, block: usize) -> (f32, f32) {
        let index = row * self.blocks + block;
        let zero_point = match self.zero_points {
            ZeroPoints::Symmetric => self.bits.symmetric_zero_point(),
            ZeroPoints::Packed(v) => {
                let row = &v[row * self.bits.zero_point_bytes(self.blocks)..];
                f32::from(match self.bits {
                    Bits::Four => row[block / 2] >> (4 * (block % 2)) & 15,
                    Bits::Eight => row[block],
                })
            }
            ZeroPoints::Fractional(v) => v.get(index),
        };
        (self.scales.get(index), zero_point)
    }

    /// Writes a row's scales, and its zero points times their scales, one a
    /// block: what has to be multiplied with the sums of the activations.
    #[inline(always)]
    pub(crate) fn scales_and_offsets(&self, row: usize, scales: &mut [f32], offsets: &mut [f32]) {
        let range = row * self.blocks..(row + 1) * self.blocks;
        self.scales.widen(range.clone(), scales);
        match self.zero_points {
            ZeroPoints::Symmetric => offsets.fill(self.bits.symmetric_zero_point()),
            ZeroPoints::Packed(v) => {
                let bytes = self.bits.zero_point_bytes(self.blocks);
                let row = &v[row * bytes..][..bytes];
                for (i, o) in offsets.iter_mut().enumerate() {
                    *o = f32::from(match self.bits {
                        Bits::Four => row[i / 2] >> (4 * (i % 2)) & 15,
                        Bits::Eight => row[i],
                    });
                }
            }
            ZeroPoints::Fractional(v) => v.widen(range, offsets),
        }
        for (o, s) in offsets.iter_mut().zip(scales.iter()) {
            *o *= s;
        }
    }

    /// Dequantises a row in its natural order: `columns` values.
    pub(crate) fn dequantise_row(&self, row: usize, out: &mut [f32]) {
        let blocks = self.quants(row).chunks_exact(self.bits.block_bytes());
        for (b, (quants, out)) in blocks.zip(out.chunks_exact_mut(BLOCK)).enumerate() {
            let (scale, zero_point) = self.scale_and_zero_point(row, b);
            let value = |quant: u8| (f32::from(quant) - zero_point) * scale;
            match self.bits {
                Bits::Four => {
                    for (&byte, pair) in quants.iter().zip(out.chunks_exact_mut(2)) {
                        pair[0] = value(byte & 15);
                        pair[1] = value(byte >> 4);
                    }
                }
                Bits::Eight => {
                    for (&byte, out) in quants.iter().zip(out) {
                        *out = value(byte);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// An owned matrix of pseudo-random weights.
    pub(crate) struct Owned {
        pub(crate) rows: usize,
        pub(crate) columns: usize,
        bits: Bits,
        quants: Vec<u8>,
        scales: Vec<u16>,
        wide_scales: Vec<f32>,
        packed: Vec<u8>,
        fractional: Vec<f32>,
        narrow_fractional: Vec<u16>,
    }

    /// A small reproducible generator: the tests need spread, not quality.
    pub(crate) struct Lcg(pub(crate) u64);
    impl Lcg {
        pub(crate) fn next(&mut self) -> u32 {
            self.0 = self
                .0
                .wrapping_mul(6364136223846793005)
                .wrapping_add(1442695040888963407);
            (self.0 >> 33) as u32
        }
        /// In -1 to 1.
        pub(crate) fn unit(&mut self) -> f32 {
            self.next() as f32 / (1u32 << 30) as f32 - 1.0
        }
        pub(crate) fn units(&mut self, n: usize) -> Vec<f32> {
            (0..n).map(|_| self.unit()).collect()
        }
    }

    impl Owned {
        pub(crate) fn random(rows: usize, columns: usize, bits: Bits, seed: u64) -> Self {
            let mut rng = Lcg(seed);
            let blocks = columns / BLOCK;
            let total = rows * blocks;
            let scales: Vec<u16> = (0..total)
                .map(|i| if i % 7 == 3 { 0.0 } else { rng.unit() * 0.1 })
                .map(|s| half::f16::from_f32(s).to_bits())
                .collect();
            let fractional: Vec<f32> = (0..total).map(|_| rng.unit() * 15.0).collect();
            Self {
                rows,
                columns,
                bits,
                quants: (0..total * bits.block_bytes())
                    .map(|_| rng.next() as u8)
                    .collect(),
                wide_scales: scales.iter().map(|&s| finite_f16(s)).collect(),
                scales,
                packed: (0..rows * bits.zero_point_bytes(blocks))
                    .map(|_| rng.next() as u8)
                    .collect(),
                narrow_fractional: fractional
                    .iter()
                    .map(|&z| half::f16::from_f32(z).to_bits())
                    .collect(),
                fractional,
            }
        }

        /// The same quants with each kind of scales and zero points.
        pub(crate) fn views(&self) -> Vec<BlockMatrix<'_>> {
            let zero_points = [
                ZeroPoints::Symmetric,
                ZeroPoints::Packed(&self.packed),
                ZeroPoints::Fractional(Floats::F32(&self.fractional)),
                ZeroPoints::Fractional(Floats::F16(&self.narrow_fractional)),
            ];
            let view = |scales, zero_points| {
                let (rows, columns) = (self.rows, self.columns);
                BlockMatrix::new(rows, columns, self.bits, &self.quants, scales, zero_points)
                    .unwrap()
            };
            [Floats::F16(&self.scales), Floats::F32(&self.wide_scales)]
                .into_iter()
                .flat_map(|scales| zero_points.map(|z| view(scales, z)))
                .collect()
        }
    }

    #[test]
    fn a_block_by_hand() {
        let quants: Vec<u8> = (0..16).map(|i| i | (15 - i) << 4).collect();
        let scales = [half::f16::from_f32(0.5).to_bits()];
        let zero = ZeroPoints::Packed(&[3]);
        let m = BlockMatrix::new(1, 32, Bits::Four, &quants, Floats::F16(&scales), zero).unwrap();
        let mut row = [0.0; 32];
        m.dequantise_row(0, &mut row);
        for i in 0..16 {
            assert_eq!(row[2 * i], (i as f32 - 3.0) * 0.5);
            assert_eq!(row[2 * i + 1], ((15 - i) as f32 - 3.0) * 0.5);
        }
    }

    #[test]
    fn a_block_of_bytes_by_hand() {
        let quants: Vec<u8> = (0..32).map(|i| 120 + i).collect();
        let scales = Floats::F32(&[0.5]);
        let make = |zero| BlockMatrix::new(1, 32, Bits::Eight, &quants, scales, zero).unwrap();
        let mut row = [0.0; 32];
        make(ZeroPoints::Symmetric).dequantise_row(0, &mut row);
        assert_eq!((row[0], row[8], row[31]), (-4.0, 0.0, 11.5));
        make(ZeroPoints::Packed(&[130])).dequantise_row(0, &mut row);
        assert_eq!((row[0], row[31]), (-5.0, 10.5));
    }

    #[test]
    fn lengths_are_checked() {
        let quants = [0; 32];
        let scales = Floats::F32(&[1.0, 1.0]);
        let make = |rows, columns, zero| {
            BlockMatrix::new(rows, columns, Bits::Four, &quants, scales, zero)
        };
        assert!(make(2, 32, ZeroPoints::Symmetric).is_some());
        assert!(make(1, 64, ZeroPoints::Packed(&[0])).is_some());
        assert!(make(2, 32, ZeroPoints::Packed(&[0])).is_none());
        assert!(make(3, 32, ZeroPoints::Symmetric).is_none());
        assert!(make(2, 33, ZeroPoints::Symmetric).is_none());
        assert!(make(usize::MAX, 64, ZeroPoints::Symmetric).is_none());
        assert!(make(1, 64, ZeroPoints::Fractional(Floats::F32(&[0.0]))).is_none());
    }
}
