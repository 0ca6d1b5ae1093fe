//! Activations in int8: one scale for each block of 32, as llama.cpp's Q8_0.
//!
//! An encoded row of a unit (see [`super::tile`]) is a record for each group of
//! four blocks: its 128 values (i8), the four blocks' scales (f32) and minus eight
//! times the sums of their values (i32), which zero points are multiplied with:
//! eight is the zero point of 4 bits.
//!
//! The values come in the order in which a backend meets the quants. Of 4 bits a
//! byte holds an even and an odd element, so the group's 64 even elements precede
//! its 64 odd ones; of 8 bits they come as they are. Where the backend deals words
//! of four bytes across the blocks (see [`super::across`]) the words are transposed likewise.

use super::group::{GROUP, GROUP_WEIGHTS};
use super::tile::Shape;
use crate::kernels::backend::kernel_entry;
use crate::kernels::blocks::{BLOCK, Bits, HALF};
use crate::kernels::vector::Vector;

/// Words of four values in a block.
const WORDS: usize = BLOCK / 4;

/// Bytes of a group's record. On x86 the next one begins at a cache line, as a
/// vector may be a whole one.
pub(super) const RECORD: usize = if cfg!(target_arch = "x86_64") {
    192
} else {
    160
};

/// The order of an encoded row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Order {
    pub(crate) bits: Bits,
    /// Words are dealt across the blocks of a group.
    pub(crate) across: bool,
}

impl Order {
    /// Where word `word` of the group's block `block` goes. Of 4 bits the words 0
    /// to 3 are of even elements, 4 to 7 of odd ones.
    #[inline(always)]
    fn word(self, block: usize, word: usize) -> usize {
        match (self.bits, self.across) {
            (Bits::Four, false) => word / 4 * 16 + block * 4 + word % 4,
            (Bits::Four, true) => word / 4 * 16 + word % 4 * 4 + block,
            (Bits::Eight, false) => block * WORDS + word,
            (Bits::Eight, true) => {
                // Two blocks are 16 words, dealt to four registers.
                let in_pair = block % 2 * WORDS + word;
                block / 2 * 16 + in_pair % 4 * 4 + in_pair / 4
            }
        }
    }

    /// Where a word's values are in the block, four steps apart or in a row.
    #[cfg(test)]
    fn element(self, word: usize, i: usize) -> usize {
        match self.bits {
            Bits::Four => 2 * (word % 4 * 4 + i) + word / 4,
            Bits::Eight => word * 4 + i,
        }
    }
}

/// Bytes of an encoded row.
pub(crate) fn row_bytes(columns: usize) -> usize {
    Shape::new(columns / BLOCK).groups() * RECORD
}

/// A row to write to: whole, aligned to 4, and of which the caller may write
/// the blocks that it encodes.
#[derive(Clone, Copy)]
pub(crate) struct Target(*mut u8);

impl Target {
    /// # Safety
    /// [`row_bytes`] writable bytes, aligned to 4; no other thread touches the
    /// blocks that are encoded into it.
    pub(crate) unsafe fn new(to: *mut u8) -> Self {
        Self(to)
    }
}

kernel_entry! {
    /// Encodes `x`, whole blocks of a row of `columns` from block `first` on.
    fn encode(x: &[f32], first: usize, columns: usize, order: Order, to: Target) = encode_body
}

/// # Safety
/// The backend's features; `x` lies inside the row.
#[inline(always)]
unsafe fn encode_body<V: Vector>(
    x: &[f32],
    first: usize,
    columns: usize,
    order: Order,
    to: Target,
) {
    let blocks = columns / BLOCK;
    let shape = Shape::new(blocks);
    assert!(first + x.len() / BLOCK <= blocks);
    for (i, values) in x.chunks_exact(BLOCK).enumerate() {
        let (words, scale, sum) = quantise(values, order.bits);
        let mut block = first + i;
        for _ in 0..shape.unit_rows {
            // SAFETY: the row has `unit_rows` times `blocks` blocks.
            unsafe { write(to, order, block, &words, scale, sum) };
            block += blocks;
        }
    }
    // What a last group has beyond the row, see `tile`. Whoever encodes the row's
    // end writes it.
    if first + x.len() / BLOCK == blocks && shape.unit_rows == 1 {
        for block in blocks..shape.groups() * GROUP {
            // SAFETY: inside the row's last record.
            unsafe { write(to, order, block, &[0; WORDS], 0.0, 0) };
        }
    }
}

/// Writes a block's words, scale and sum.
///
/// # Safety
/// The block is in the row at `to`.
#[inline(always)]
unsafe fn write(
    to: Target,
    order: Order,
    block: usize,
    words: &[u32; WORDS],
    scale: f32,
    sum: i32,
) {
    let (group, in_group) = (block / GROUP, block % GROUP);
    // SAFETY: inside the row by the contract.
    unsafe {
        let record = to.0.add(group * RECORD);
        let quants: *mut u32 = record.cast();
        for (word, &values) in words.iter().enumerate() {
            quants.add(order.word(in_group, word)).write(values);
        }
        let at = record.add(GROUP_WEIGHTS);
        at.cast::<f32>().add(in_group).write(scale);
        at.cast::<i32>().add(GROUP + in_group).write(-8 * sum);
    }
}

/// A block in int8: its words (of 4 bits, of even elements, then of odd ones),
/// scale and sum. Rounds to nearest, ties to even.
#[inline(always)]
fn quantise(x: &[f32], bits: Bits) -> ([u32; WORDS], f32, i32) {
    // Magnitudes compare as integers, and a NaN is then the largest: it is not lost.
    let mut lanes = [0u32; 8];
    for x in x.chunks_exact(8) {
        for (m, v) in lanes.iter_mut().zip(x) {
            *m = (*m).max(v.abs().to_bits());
        }
    }
    let largest = f32::from_bits(lanes.into_iter().fold(0, u32::max));
    let scale = largest / 127.0;
    let inverse = if largest > 0.0 { 127.0 / largest } else { 0.0 };
    // Adding 1.5 * 2^23 leaves the rounded integer in the lowest bits, with no
    // call where the processor has no instruction for it.
    let round = |v: f32| (v * inverse + 12_582_912.0).to_bits() as u8;
    let mut bytes = [0u8; BLOCK];
    match bits {
        Bits::Four => {
            let (even, odd) = bytes.split_at_mut(HALF);
            for ((pair, e), o) in x.chunks_exact(2).zip(even).zip(odd) {
                *e = round(pair[0]);
                *o = round(pair[1]);
            }
        }
        Bits::Eight => {
            for (v, b) in x.iter().zip(&mut bytes) {
                *b = round(*v);
            }
        }
    }
    let sum = bytes.iter().map(|&b| i32::from(b.cast_signed())).sum();
    let mut words = [0; WORDS];
    for (word, bytes) in words.iter_mut().zip(bytes.chunks_exact(4)) {
        *word = u32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
    }
    (words, scale, sum)
}

/// A block of an encoded row: its words in the order of [`quantise`], its scale
/// and its sum.
///
/// # Safety
/// `row` is an encoded row of `columns` in `order`, `block` one of its blocks.
pub(super) unsafe fn read_block(
    row: *const u8,
    order: Order,
    block: usize,
) -> ([[i8; 4]; WORDS], f32, i32) {
    let (group, in_group) = (block / GROUP, block % GROUP);
    let mut words = [[0; 4]; WORDS];
    // SAFETY: inside the row by the contract; written aligned to 4.
    unsafe {
        let record = row.add(group * RECORD);
        let quants: *const [i8; 4] = record.cast();
        for (word, values) in words.iter_mut().enumerate() {
            *values = quants.add(order.word(in_group, word)).read();
        }
        let at = record.add(GROUP_WEIGHTS);
        let scale = at.cast::<f32>().add(in_group).read();
        let sum = at.cast::<i32>().add(GROUP + in_group).read() / -8;
        (words, scale, sum)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::kernels::Backend;
    use crate::kernels::blocks::tests::Lcg;

    /// The values that an encoded row stands for, in their natural order; all
    /// copies of the row agree.
    pub(crate) fn decode(bytes: &[u8], columns: usize, order: Order) -> Vec<f32> {
        let shape = Shape::new(columns / BLOCK);
        let row = bytes.as_ptr();
        let mut copies = Vec::new();
        for copy in 0..shape.unit_rows {
            let mut values = vec![f32::NAN; columns];
            for block in 0..shape.blocks {
                // SAFETY: a block of an encoded row.
                let (words, scale, sum) =
                    unsafe { read_block(row, order, copy * shape.blocks + block) };
                let mut total = 0;
                for (w, word) in words.iter().enumerate() {
                    for (i, &v) in word.iter().enumerate() {
                        values[block * BLOCK + order.element(w, i)] = f32::from(v) * scale;
                        total += i32::from(v);
                    }
                }
                assert_eq!(sum, total);
            }
            copies.push(values);
        }
        assert!(copies.iter().all(|c| c == &copies[0]));
        copies.swap_remove(0)
    }

    #[test]
    fn values_are_kept_within_half_a_step() {
        for bits in [Bits::Four, Bits::Eight] {
            for across in [false, true] {
                let order = Order { bits, across };
                for columns in [32, 64, 96, 128, 576] {
                    let mut x = Lcg(columns as u64).units(columns);
                    x[..32].fill(0.0);
                    let steps: Vec<f32> = x
                        .chunks_exact(BLOCK)
                        .map(|b| b.iter().fold(0.0f32, |m, v| m.max(v.abs())) / 127.0)
                        .collect();
                    let mut first: Option<Vec<u8>> = None;
                    for backend in Backend::available() {
                        let mut words = vec![u32::MAX; row_bytes(columns) / 4];
                        // SAFETY: a whole row, aligned, ours alone.
                        let target = unsafe { Target::new(words.as_mut_ptr().cast()) };
                        encode(backend, &x, 0, columns, order, target);
                        let bytes: Vec<u8> = words.iter().flat_map(|w| w.to_ne_bytes()).collect();
                        for (i, (got, want)) in
                            decode(&bytes, columns, order).iter().zip(&x).enumerate()
                        {
                            let step = steps[i / BLOCK];
                            assert!((got - want).abs() <= 0.5001 * step, "{got} for {want}");
                        }
                        // The same bytes on every backend.
                        assert_eq!(first.get_or_insert_with(|| bytes.clone()), &bytes);
                    }
                }
            }
        }
    }
}
