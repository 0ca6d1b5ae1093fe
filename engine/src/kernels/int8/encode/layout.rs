//! Where a block's words, scale and sum lie in encoded rows: written row by row, the
//! layout known at compile time, and read block by block.

use super::quantise::{Slot, WORDS};
use super::{Order, Place, RECORD, TILE, TILE_BLOCK, Target, Tiles};
use crate::kernels::blocks::{BLOCK, Bits};
use crate::kernels::int8::group::{GROUP, GROUP_WEIGHTS};
use crate::kernels::vector::Vector;

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
}

/// Where two words of a row, of four pairs, are in a block of a tile.
#[inline(always)]
fn in_tile(pairs: bool, row: usize, pair: usize) -> usize {
    if pairs {
        row / 2 * 2 * BLOCK + row % 2 * 8 + pair * 16
    } else {
        row * BLOCK + pair * 8
    }
}

/// Lays out `count` blocks of a row from its block `first` on; behind them there is
/// room for those that end a group.
///
/// # Safety
/// The vector's features; the row at `place` has these blocks, of which no other
/// thread writes any.
#[inline(always)]
pub(super) unsafe fn lay<V: Vector>(
    blocks: Slot,
    first: usize,
    count: usize,
    place: &Place,
    to: Target,
) {
    // SAFETY: by the contract.
    unsafe {
        let to = to.0.add(place.offset);
        let order = place.order;
        match (place.in_tile, order.tiles, order.bits, order.across) {
            (Some(row), Tiles::Pairs, ..) => lay_in_tile::<true>(blocks, first, count, row, to),
            (Some(row), ..) => lay_in_tile::<false>(blocks, first, count, row, to),
            (.., Bits::Four, false) => lay_row::<V, 4, false>(blocks, first, count, place, to),
            (.., Bits::Four, true) => lay_row::<V, 4, true>(blocks, first, count, place, to),
            (.., Bits::Eight, false) => lay_row::<V, 8, false>(blocks, first, count, place, to),
            (.., Bits::Eight, true) => lay_row::<V, 8, true>(blocks, first, count, place, to),
        }
    }
}

/// [`lay`], as row `row` of the tile that begins at `to`.
///
/// # Safety
/// As for [`lay`].
#[inline(never)]
unsafe fn lay_in_tile<const PAIRS: bool>(
    blocks: Slot,
    first: usize,
    count: usize,
    row: usize,
    to: *mut u8,
) {
    // SAFETY: by the contract; all places are aligned to 4.
    unsafe {
        let mut at = to.add(first * TILE_BLOCK);
        for i in 0..count {
            let block = blocks.at(i);
            let words: *const [u32; 2] = block.words.cast();
            for pair in 0..WORDS / 2 {
                let to: *mut [u32; 2] = at.add(in_tile(PAIRS, row, pair)).cast();
                to.write(words.add(pair).read());
            }
            let scales: *mut f32 = at.add(TILE * BLOCK).cast();
            scales.add(row).write(block.scale.read());
            let sums: *mut i32 = scales.add(TILE).cast();
            sums.add(row).write(block.sum.read());
            at = at.add(TILE_BLOCK);
        }
    }
}

/// [`lay`], as a row of its own that begins at `to`. Not a part of its caller, where
/// the compiler would prepare for all layouts on every call; there is nothing to
/// compute with the vector's features.
///
/// # Safety
/// As for [`lay`].
#[inline(never)]
unsafe fn lay_row<V: Vector, const BITS: usize, const ACROSS: bool>(
    blocks: Slot,
    first: usize,
    mut count: usize,
    place: &Place,
    to: *mut u8,
) {
    let shape = place.shape;
    // SAFETY: by the contract; a copy ends where the row does, and what is added to
    // a row's end is inside its last record.
    unsafe {
        if shape.unit_rows == 1 {
            // What a last group has beyond the row, see `tile`. Whoever encodes the
            // row's end writes it.
            while first + count >= shape.blocks && !(first + count).is_multiple_of(GROUP) {
                blocks.at(count).write([0; WORDS], 0.0, 0);
                count += 1;
            }
            lay_blocks::<V, BITS, ACROSS>(blocks, first, count, to);
        } else if count == shape.blocks {
            // The second copy begins in the middle of a group: with its first two
            // blocks behind the first copy all groups are whole.
            for i in 0..2 {
                let (words, scale, sum) = blocks.at(i).read();
                blocks.at(count + i).write(words, scale, sum);
            }
            lay_blocks::<V, BITS, ACROSS>(blocks, 0, count + 2, to);
            lay_blocks::<V, BITS, ACROSS>(blocks.at(2), count + 2, count - 2, to);
        } else {
            lay_blocks::<V, BITS, ACROSS>(blocks, first, count, to);
            lay_blocks::<V, BITS, ACROSS>(blocks, shape.blocks + first, count, to);
        }
    }
}

/// Lays out `count` blocks from the unit's block `first` on.
///
/// # Safety
/// As for [`lay`].
#[inline(always)]
unsafe fn lay_blocks<V: Vector, const BITS: usize, const ACROSS: bool>(
    blocks: Slot,
    first: usize,
    count: usize,
    to: *mut u8,
) {
    // SAFETY: by the contract.
    unsafe {
        let head = (first.next_multiple_of(GROUP) - first).min(count);
        let groups = (count - head) / GROUP;
        if head > 0 {
            lay_some::<BITS, ACROSS>(blocks, first, head, to);
        }
        let mut record = to.add((first + head) / GROUP * RECORD);
        for i in 0..groups {
            lay_group::<V, BITS, ACROSS>(blocks.at(head + i * GROUP), record);
            record = record.add(RECORD);
        }
        let done = head + groups * GROUP;
        if done < count {
            lay_some::<BITS, ACROSS>(blocks.at(done), first + done, count - done, to);
        }
    }
}

/// Lays out a group.
///
/// # Safety
/// As for [`lay`]; four blocks, and the group's record.
#[inline(always)]
unsafe fn lay_group<V: Vector, const BITS: usize, const ACROSS: bool>(
    blocks: Slot,
    record: *mut u8,
) {
    // SAFETY: by the contract; all places are aligned to 4.
    unsafe {
        // Half blocks: of 4 bits of even and of odd elements by turns.
        let halves: *const [u32; WORDS / 2] = blocks.words.cast();
        for part in 0..2 {
            let (start, step) = if BITS == 4 { (part, 2) } else { (4 * part, 1) };
            let quad = [0, 1, 2, 3].map(|i| halves.add(start + i * step));
            let to = record.add(part * GROUP_WEIGHTS / 2).cast();
            if ACROSS {
                V::deal(quad, to);
            } else {
                for (i, half) in quad.into_iter().enumerate() {
                    to.add(i).write(half.read());
                }
            }
        }
        let scales: *mut [f32; GROUP] = record.add(GROUP_WEIGHTS).cast();
        scales.write(blocks.scale.cast::<[f32; GROUP]>().read());
        let sums: *mut [i32; GROUP] = scales.add(1).cast();
        sums.write(blocks.sum.cast::<[i32; GROUP]>().read());
    }
}

/// Lays out blocks one by one, for the groups that are not whole. Seldom called, and
/// from many places.
///
/// # Safety
/// As for [`lay_blocks`].
#[inline(never)]
unsafe fn lay_some<const BITS: usize, const ACROSS: bool>(
    blocks: Slot,
    first: usize,
    count: usize,
    to: *mut u8,
) {
    let order = Order {
        bits: if BITS == 4 { Bits::Four } else { Bits::Eight },
        across: ACROSS,
        tiles: Tiles::None,
    };
    for i in 0..count {
        let (group, block) = ((first + i) / GROUP, (first + i) % GROUP);
        // SAFETY: by the contract; all places are aligned to 4.
        unsafe {
            let (words, scale, sum) = blocks.at(i).read();
            let record = to.add(group * RECORD);
            // Of every order the words of a block lie as those of the first one do.
            let start = record.cast::<u32>().add(order.word(block, 0));
            for (i, word) in words.into_iter().enumerate() {
                start.add(order.word(0, i)).write(word);
            }
            let scales = record.add(GROUP_WEIGHTS).cast::<f32>();
            scales.add(block).write(scale);
            scales.add(GROUP + block).cast::<i32>().write(sum);
        }
    }
}

/// A block of an encoded row: its words (of 4 bits, of even elements, then of odd
/// ones), its scale and its sum.
///
/// # Safety
/// `from` are the encoded rows that `place` is among; `block` is one of its blocks.
pub(in crate::kernels::int8) unsafe fn read_block(
    from: *const u8,
    place: Place,
    block: usize,
) -> ([[i8; 4]; WORDS], f32, i32) {
    let order = place.order;
    let mut places = [0; WORDS];
    let (start, scale, sum) = if let Some(row) = place.in_tile {
        let start = block * TILE_BLOCK;
        let scale = start + TILE * BLOCK + 4 * row;
        for (i, place) in places.iter_mut().enumerate() {
            *place = in_tile(order.tiles == Tiles::Pairs, row, i / 2) + i % 2 * 4;
        }
        (start, scale, scale + 4 * TILE)
    } else {
        let (group, in_group) = (block / GROUP, block % GROUP);
        let start = group * RECORD;
        for (i, place) in places.iter_mut().enumerate() {
            *place = 4 * order.word(in_group, i);
        }
        let scale = start + GROUP_WEIGHTS + 4 * in_group;
        (start, scale, scale + 4 * GROUP)
    };
    let mut words = [[0; 4]; WORDS];
    // SAFETY: inside the rows by the contract; written aligned to 4.
    unsafe {
        let from = from.add(place.offset);
        for (word, place) in words.iter_mut().zip(places) {
            *word = from.add(start + place).cast::<[i8; 4]>().read();
        }
        let scale = from.add(scale).cast::<f32>().read();
        let sum = from.add(sum).cast::<i32>().read() / -8;
        (words, scale, sum)
    }
}
