//! Blocks in int8, one after another, before they are laid out.

use std::mem::MaybeUninit;

use crate::kernels::blocks::{BLOCK, Bits, HALF};
use crate::kernels::vector::{MAGIC, Vector};

/// Words of four values in a block.
pub(in crate::kernels) const WORDS: usize = BLOCK / 4;

/// Blocks that are quantised before they are laid out.
pub(super) const MOST: usize = 64;

/// Room for them, for those that complete a group, and for what
/// [`Vector::quantise`] writes beyond its last block.
const ROOM: usize = MOST + 4;

/// Room for blocks on the stack.
pub(super) struct Room {
    words: [MaybeUninit<[u32; WORDS]>; ROOM],
    scales: [MaybeUninit<f32>; ROOM],
    sums: [MaybeUninit<i32>; ROOM],
}

impl Room {
    #[inline(always)]
    pub(super) fn new() -> Self {
        Self {
            words: [MaybeUninit::uninit(); ROOM],
            scales: [MaybeUninit::uninit(); ROOM],
            sums: [MaybeUninit::uninit(); ROOM],
        }
    }

    /// The first block.
    #[inline(always)]
    pub(super) fn first(&mut self) -> Slot {
        Slot {
            words: self.words.as_mut_ptr().cast(),
            scale: self.scales.as_mut_ptr().cast(),
            sum: self.sums.as_mut_ptr().cast(),
        }
    }
}

/// Magnitudes that are quantised to zero: 127 divided by the largest of a block must be
/// finite.
pub(super) const ZERO: f32 = 1e-36;

/// Where a block is: its words (of 4 bits, of even elements, then of odd ones), its
/// scale, and minus eight times its sum. The next block's follow each of them.
#[derive(Clone, Copy)]
pub(crate) struct Slot {
    pub(super) words: *mut [u32; WORDS],
    pub(super) scale: *mut f32,
    pub(super) sum: *mut i32,
}

impl Slot {
    /// The `i`th block from here on.
    ///
    /// # Safety
    /// Inside the room.
    #[inline(always)]
    pub(super) unsafe fn at(self, i: usize) -> Self {
        // SAFETY: by the contract.
        unsafe {
            Self {
                words: self.words.add(i),
                scale: self.scale.add(i),
                sum: self.sum.add(i),
            }
        }
    }

    /// # Safety
    /// Inside the room.
    #[inline(always)]
    pub(super) unsafe fn write(self, words: [u32; WORDS], scale: f32, eighth: i32) {
        // SAFETY: by the contract.
        unsafe {
            self.words.write(words);
            self.scale.write(scale);
            self.sum.write(eighth);
        }
    }

    /// # Safety
    /// Inside the room and written.
    #[inline(always)]
    pub(super) unsafe fn read(self) -> ([u32; WORDS], f32, i32) {
        // SAFETY: by the contract.
        unsafe { (self.words.read(), self.scale.read(), self.sum.read()) }
    }
}

/// Quantises `count` blocks.
///
/// # Safety
/// The vector's features; 32 readable values and a slot for each, of [`MOST`] at
/// most.
#[inline(always)]
pub(super) unsafe fn quantise_all<V: Vector>(from: *const f32, count: usize, bits: Bits, to: Slot) {
    // SAFETY: by the contract; the room has slots for the rest of a last four.
    unsafe {
        let mut i = 0;
        while i + 4 <= count {
            V::quantise::<4>(from.add(i * BLOCK), bits, to.at(i));
            i += 4;
        }
        if i + 2 <= count {
            V::quantise::<2>(from.add(i * BLOCK), bits, to.at(i));
            i += 2;
        }
        if i < count {
            V::quantise::<1>(from.add(i * BLOCK), bits, to.at(i));
        }
    }
}

/// The reference: rounds to nearest, ties to even.
///
/// # Safety
/// `N` slots.
#[inline(always)]
pub(in crate::kernels) unsafe fn quantise<const N: usize>(
    x: &[[f32; BLOCK]; N],
    bits: Bits,
    to: Slot,
) {
    for (i, x) in x.iter().enumerate() {
        let (words, scale, sum) = quantise_one(x, bits);
        // SAFETY: by the contract.
        unsafe { to.at(i).write(words, scale, -8 * sum) };
    }
}

#[inline(always)]
fn quantise_one(x: &[f32; BLOCK], bits: Bits) -> ([u32; WORDS], f32, i32) {
    // Magnitudes compare as integers, and a NaN is then the largest: it is not lost.
    let mut lanes = [0u32; 8];
    for x in x.chunks_exact(8) {
        for (m, v) in lanes.iter_mut().zip(x) {
            *m = (*m).max(v.abs().to_bits());
        }
    }
    let largest = f32::from_bits(lanes.into_iter().fold(0, u32::max));
    let scale = largest / 127.0;
    let inverse = if largest > ZERO { 127.0 / largest } else { 0.0 };
    // The rounded integer is in the lowest bits, with no call where the processor
    // has no instruction for it.
    let round = |v: f32| (v * inverse + MAGIC).to_bits() as u8;
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
