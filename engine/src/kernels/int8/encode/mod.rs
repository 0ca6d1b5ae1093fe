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
//! of four bytes across the blocks ([`Order::across`]) the words are transposed
//! likewise.
//!
//! Where a backend has kernels for it, and for 4 bits, 16 rows at a time are
//! encoded in a tile instead (`super::prefill`): for each block the 16 rows' 32
//! values each, even elements first, then their 16 scales, then their 16 sums.
//! [`Tiles`] says how the values of the rows lie.

#[cfg(target_arch = "x86_64")]
pub(in crate::kernels) mod avx2;
mod layout;
#[cfg(target_arch = "aarch64")]
pub(in crate::kernels) mod neon;
pub(in crate::kernels) mod quantise;

use self::quantise::{MOST, Room, quantise_all};
use super::tile::Shape;
use crate::kernels::backend::kernel_entry;
use crate::kernels::blocks::{BLOCK, Bits};
use crate::kernels::vector::Vector;

pub(super) use self::layout::read_block;

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

#[cfg(test)]
impl Order {
    /// Where a word's values are in the block, two steps apart or in a row.
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
    assert!(first + x.len() / BLOCK <= place.shape.blocks);
    let mut room = Room::new();
    let blocks = room.first();
    let mut first = first;
    for x in x.chunks(MOST * BLOCK) {
        let count = x.len() / BLOCK;
        // SAFETY: features by the contract; 32 values and a place in the room for each
        // block; the row has these blocks.
        unsafe {
            match place.order.bits {
                Bits::Four => quantise_all::<V>(x.as_ptr(), count, Bits::Four, blocks),
                Bits::Eight => quantise_all::<V>(x.as_ptr(), count, Bits::Eight, blocks),
            }
            layout::lay::<V>(blocks, first, count, &place, to);
        }
        first += count;
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
        for_each_order(|order| {
            for columns in [32, 64, 96, 128, 576] {
                for rows in [1, 17] {
                    check(order, columns, rows);
                }
            }
        });
    }

    fn for_each_order(run: impl Fn(Order)) {
        for bits in [Bits::Four, Bits::Eight] {
            for across in [false, true] {
                for tiles in [Tiles::None, Tiles::Rows, Tiles::Pairs] {
                    run(Order {
                        bits,
                        across,
                        tiles,
                    });
                }
            }
        }
    }

    /// Encodes `x` in parts that end where `cuts` say (in blocks), the last part first.
    fn encoded(
        backend: Backend,
        order: Order,
        x: &[f32],
        columns: usize,
        cuts: &[usize],
    ) -> Vec<u8> {
        let rows = x.len() / columns;
        // Zero, as what lies between the rows is never written.
        let mut words = vec![0u32; row_bytes(columns) * rows / 4];
        // SAFETY: whole rows, aligned, ours alone.
        let target = unsafe { Target::new(words.as_mut_ptr().cast()) };
        for (row, x) in x.chunks_exact(columns).enumerate() {
            let place = Place::new(order, columns, rows, row);
            let mut end = columns / BLOCK;
            for &start in cuts
                .iter()
                .rev()
                .chain([&0])
                .filter(|s| **s < columns / BLOCK)
            {
                encode(
                    backend,
                    &x[start * BLOCK..end * BLOCK],
                    start,
                    place,
                    target,
                );
                end = start;
            }
        }
        words.iter().flat_map(|w| w.to_ne_bytes()).collect()
    }

    fn check(order: Order, columns: usize, rows: usize) {
        let mut x = Lcg(columns as u64).units(columns * rows);
        x[..32].fill(0.0);
        let mut first: Option<Vec<u8>> = None;
        for backend in Backend::available() {
            let bytes = encoded(backend, order, &x, columns, &[]);
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

    #[test]
    fn parts_of_a_row_are_encoded_as_the_whole() {
        for_each_order(|order| {
            // 65, 66 and 133 blocks are more than are quantised at a time.
            for blocks in [1, 5, 18, 24, 65, 66, 133] {
                // With a tile, or a row of its own.
                let rows = if blocks < 24 { 17 } else { 1 };
                let mut x = Lcg(blocks as u64).units(rows * blocks * BLOCK);
                for x in &mut x[..BLOCK] {
                    *x *= 1e-38;
                }
                let scalar = |cuts| encoded(Backend::SCALAR, order, &x, blocks * BLOCK, cuts);
                let whole = scalar(&(1..blocks).collect::<Vec<_>>());
                for backend in Backend::available() {
                    for cuts in [&[][..], &[4, 12], &[1, 2, 5, 8, 15], &[3, 70]] {
                        let parts = encoded(backend, order, &x, blocks * BLOCK, cuts);
                        assert!(
                            parts == whole,
                            "{backend:?}, {order:?}: {blocks} at {cuts:?}"
                        );
                    }
                }
            }
        });
    }

    #[test]
    fn what_is_no_number_stays_none() {
        let order = Order {
            bits: Bits::Four,
            across: false,
            tiles: Tiles::None,
        };
        for backend in Backend::available() {
            for (value, at) in [f32::NAN, -f32::NAN, f32::INFINITY, f32::NEG_INFINITY]
                .into_iter()
                .flat_map(|v| (0..7 * BLOCK).map(move |at| (v, at)))
            {
                let mut x = Lcg(1).units(7 * BLOCK);
                x[at] = value;
                let bytes = encoded(backend, order, &x, 7 * BLOCK, &[]);
                let place = Place::new(order, 7 * BLOCK, 1, 0);
                for block in 0..7 {
                    // SAFETY: a block of an encoded row.
                    let (_, scale, _) = unsafe { read_block(bytes.as_ptr(), place, block) };
                    let good = block != at / BLOCK;
                    assert_eq!(scale.is_finite(), good, "{backend:?}: {value} at {at}");
                }
            }
        }
    }
}
