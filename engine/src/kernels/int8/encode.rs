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
//! of four bytes across the blocks (see [`super::across`]) the words are transposed
//! likewise.
//!
//! Where a backend has kernels for it, and for 4 bits, 16 rows at a time are
//! encoded in a tile instead (`super::prefill`): for each block the 16 rows' 32
//! values each, even elements first, then their 16 scales, then their 16 sums.
//! [`Tiles`] says how the values of the rows lie.

use super::group::{GROUP, GROUP_WEIGHTS};
use super::tile::Shape;
use crate::kernels::backend::kernel_entry;
use crate::kernels::blocks::{BLOCK, Bits, HALF};
use crate::kernels::vector::Vector;

/// Words of four values in a block.
pub(in crate::kernels) const WORDS: usize = BLOCK / 4;

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
    pub(crate) tiles: Tiles,
}

/// How many rows are encoded together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tiles {
    /// No tiles.
    None,
    /// A row's values in a row.
    Rows,
    /// Two rows together: eight values of the one, eight of the other.
    Pairs,
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

/// Rows in a tile.
pub(in crate::kernels) const TILE: usize = 16;
/// Bytes of a tile's block.
pub(super) const TILE_BLOCK: usize = TILE * (BLOCK + 4 + 4);

impl Order {
    /// Tiles among `rows` rows.
    pub(super) fn tiles(self, rows: usize) -> usize {
        match self.tiles {
            Tiles::None => 0,
            Tiles::Rows | Tiles::Pairs => rows / TILE,
        }
    }
}

/// Bytes of an encoded row, or a 16th of a tile.
pub(crate) fn row_bytes(columns: usize) -> usize {
    (Shape::new(columns / BLOCK).groups() * RECORD).next_multiple_of(64)
}

/// Where a row is among those encoded together.
#[derive(Clone, Copy)]
pub(crate) struct Place {
    order: Order,
    shape: Shape,
    /// Bytes to the row, or to its tile.
    offset: usize,
    /// Its index in the tile, if it is in one.
    in_tile: Option<usize>,
}

impl Place {
    /// Row `row` of `rows`.
    pub(crate) fn new(order: Order, columns: usize, rows: usize, row: usize) -> Self {
        let tiled = row / TILE < order.tiles(rows);
        let first = if tiled { row / TILE * TILE } else { row };
        Self {
            order,
            shape: Shape::new(columns / BLOCK),
            offset: first * row_bytes(columns),
            in_tile: tiled.then_some(row % TILE),
        }
    }

    /// Where the words, the scale and the sum of block `block` lie: bytes to the
    /// first word, to each word from there, to the scale and to the sum.
    #[inline(always)]
    fn block(&self, block: usize) -> (usize, [usize; WORDS], usize, usize) {
        let mut words = [0; WORDS];
        if let Some(row) = self.in_tile {
            let start = self.offset + block * TILE_BLOCK;
            let scale = start + TILE * BLOCK + 4 * row;
            let pairs = self.order.tiles == Tiles::Pairs;
            for (i, word) in words.iter_mut().enumerate() {
                *word = if pairs { i / 2 * 16 + i % 2 * 4 } else { 4 * i };
            }
            let first = if pairs {
                row / 2 * 2 * BLOCK + row % 2 * 8
            } else {
                row * BLOCK
            };
            (start + first, words, scale, scale + TILE * 4)
        } else {
            let (group, in_group) = (block / GROUP, block % GROUP);
            let start = self.offset + group * RECORD;
            for (i, word) in words.iter_mut().enumerate() {
                *word = 4 * self.order.word(in_group, i);
            }
            let scale = start + GROUP_WEIGHTS + 4 * in_group;
            (start, words, scale, scale + 4 * GROUP)
        }
    }
}

/// Rows to write to, of which the caller may write the blocks that it encodes.
#[derive(Clone, Copy)]
pub(crate) struct Target(*mut u8);

impl Target {
    /// # Safety
    /// [`row_bytes`] writable bytes for each row, aligned to 4; no other thread
    /// touches the blocks that are encoded into it.
    pub(crate) unsafe fn new(to: *mut u8) -> Self {
        Self(to)
    }
}

kernel_entry! {
    /// Encodes `x`, whole blocks of a row from block `first` on, at `place` among
    /// the rows of `to`.
    fn encode(x: &[f32], first: usize, place: Place, to: Target) = encode_body
}

/// # Safety
/// The backend's features.
#[inline(always)]
unsafe fn encode_body<V: Vector>(x: &[f32], first: usize, place: Place, to: Target) {
    let shape = place.shape;
    assert!(first + x.len() / BLOCK <= shape.blocks);
    // A tile has no copies, see `prefill`.
    let copies = if place.in_tile.is_some() {
        1
    } else {
        shape.unit_rows
    };
    for (i, values) in x.chunks_exact(BLOCK).enumerate() {
        // SAFETY: features by the contract; 32 values.
        let (words, scale, sum) = unsafe { V::quantise(values.as_ptr(), place.order.bits) };
        for copy in 0..copies {
            // SAFETY: the row has `unit_rows` times `blocks` blocks.
            unsafe {
                write(
                    to,
                    &place,
                    copy * shape.blocks + first + i,
                    &words,
                    scale,
                    sum,
                )
            };
        }
    }
    // What a last group has beyond the row, see `tile`. Whoever encodes the row's
    // end writes it.
    let end = first + x.len() / BLOCK == shape.blocks;
    if end && shape.unit_rows == 1 && place.in_tile.is_none() {
        for block in shape.blocks..shape.groups() * GROUP {
            // SAFETY: inside the row's last record.
            unsafe { write(to, &place, block, &[0; WORDS], 0.0, 0) };
        }
    }
}

/// Writes a block's words, scale and sum.
///
/// # Safety
/// The block is in the row.
#[inline(always)]
unsafe fn write(
    to: Target,
    place: &Place,
    block: usize,
    words: &[u32; WORDS],
    scale: f32,
    sum: i32,
) {
    let (start, places, scale_at, sum_at) = place.block(block);
    // SAFETY: inside the row by the contract.
    unsafe {
        for (&word, at) in words.iter().zip(places) {
            to.0.add(start + at).cast::<u32>().write(word);
        }
        to.0.add(scale_at).cast::<f32>().write(scale);
        to.0.add(sum_at).cast::<i32>().write(-8 * sum);
    }
}

/// A block in int8: its words (of 4 bits, of even elements, then of odd ones),
/// scale and sum. Rounds to nearest, ties to even.
#[inline(always)]
pub(in crate::kernels) fn quantise(x: &[f32; BLOCK], bits: Bits) -> ([u32; WORDS], f32, i32) {
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
/// `from` are the encoded rows that `place` is among; `block` is one of its blocks.
pub(super) unsafe fn read_block(
    from: *const u8,
    place: Place,
    block: usize,
) -> ([[i8; 4]; WORDS], f32, i32) {
    let (start, places, scale_at, sum_at) = place.block(block);
    let mut words = [[0; 4]; WORDS];
    // SAFETY: inside the rows by the contract; written aligned to 4.
    unsafe {
        for (word, at) in words.iter_mut().zip(places) {
            *word = from.add(start + at).cast::<[i8; 4]>().read();
        }
        let scale = from.add(scale_at).cast::<f32>().read();
        let sum = from.add(sum_at).cast::<i32>().read() / -8;
        (words, scale, sum)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::kernels::Backend;
    use crate::kernels::blocks::tests::Lcg;

    /// The values that a row among `rows` encoded ones stands for, in their natural
    /// order; all copies of the row agree.
    pub(crate) fn decode(
        bytes: &[u8],
        columns: usize,
        order: Order,
        rows: usize,
        row: usize,
    ) -> Vec<f32> {
        let place = Place::new(order, columns, rows, row);
        let shape = place.shape;
        let mut copies = Vec::new();
        for copy in 0..if place.in_tile.is_some() {
            1
        } else {
            shape.unit_rows
        } {
            let mut values = vec![f32::NAN; columns];
            for block in 0..shape.blocks {
                // SAFETY: a block of an encoded row.
                let (words, scale, sum) =
                    unsafe { read_block(bytes.as_ptr(), place, copy * shape.blocks + block) };
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
                for tiles in [Tiles::None, Tiles::Rows, Tiles::Pairs] {
                    let order = Order {
                        bits,
                        across,
                        tiles,
                    };
                    for columns in [32, 64, 96, 128, 576] {
                        for rows in [1, 17] {
                            check(order, columns, rows);
                        }
                    }
                }
            }
        }
    }

    fn check(order: Order, columns: usize, rows: usize) {
        let mut x = Lcg(columns as u64).units(columns * rows);
        x[..32].fill(0.0);
        let mut first: Option<Vec<u8>> = None;
        for backend in Backend::available() {
            // Zero, as what lies between the rows is never written.
            let mut words = vec![0u32; row_bytes(columns) * rows / 4];
            // SAFETY: whole rows, aligned, ours alone.
            let target = unsafe { Target::new(words.as_mut_ptr().cast()) };
            for (row, x) in x.chunks_exact(columns).enumerate() {
                let place = Place::new(order, columns, rows, row);
                encode(backend, x, 0, place, target);
            }
            let bytes: Vec<u8> = words.iter().flat_map(|w| w.to_ne_bytes()).collect();
            for (row, x) in x.chunks_exact(columns).enumerate() {
                let got = decode(&bytes, columns, order, rows, row);
                for (got, want) in got.chunks_exact(BLOCK).zip(x.chunks_exact(BLOCK)) {
                    let step = want.iter().fold(0.0f32, |m, v| m.max(v.abs())) / 127.0;
                    for (got, want) in got.iter().zip(want) {
                        assert!((got - want).abs() <= 0.5001 * step, "{got} for {want}");
                    }
                }
            }
            // The same bytes on every backend.
            assert_eq!(first.get_or_insert_with(|| bytes.clone()), &bytes);
        }
    }
}
