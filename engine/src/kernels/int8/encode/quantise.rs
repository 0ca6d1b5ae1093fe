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
    let inverse = if largest > 0.0 { 127.0 / largest } else { 0.0 };
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

#[cfg(target_arch = "x86_64")]
pub(in crate::kernels) mod avx2 {
    use super::{BLOCK, Bits, Slot};
    use std::arch::x86_64::*;

    /// As [`super::quantise`], of up to four blocks; writes four scales and sums, of
    /// which those of other blocks mean nothing.
    ///
    /// # Safety
    /// avx2; `N` times 32 readable values and four slots.
    #[inline(always)]
    pub(in crate::kernels) unsafe fn quantise<const N: usize>(
        from: *const f32,
        bits: Bits,
        to: Slot,
    ) {
        const { assert!(N <= 4) }
        // SAFETY: avx2 and the places by the contract.
        unsafe {
            let mut largest = [_mm256_setzero_si256(); 4];
            for (i, largest) in largest.iter_mut().enumerate().take(N) {
                *largest = magnitude(from.add(i * BLOCK));
            }
            let largest = _mm_castsi128_ps(across(largest));
            let whole = _mm_set1_ps(127.0);
            // Nothing above zero is false of a NaN, too.
            let some = _mm_cmpgt_ps(largest, _mm_setzero_ps());
            let inverses = _mm_and_ps(_mm_div_ps(whole, largest), some);
            _mm_storeu_ps(to.scale, _mm_div_ps(largest, whole));
            let mut of_block = [0.0; 4];
            _mm_storeu_ps(of_block.as_mut_ptr(), inverses);
            let mut sums = [_mm256_setzero_si256(); 4];
            for (i, sum) in sums.iter_mut().enumerate().take(N) {
                let inverse = _mm256_set1_ps(of_block[i]);
                let bytes = bytes(from.add(i * BLOCK), inverse, bits);
                _mm256_storeu_si256(to.words.add(i).cast(), bytes);
                let pairs = _mm256_maddubs_epi16(_mm256_set1_epi8(1), bytes);
                *sum = _mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
            }
            let [a, b, c, d] = sums;
            let sums = _mm256_hadd_epi32(_mm256_hadd_epi32(a, b), _mm256_hadd_epi32(c, d));
            let sums = _mm_add_epi32(
                _mm256_castsi256_si128(sums),
                _mm256_extracti128_si256::<1>(sums),
            );
            let eighths = _mm_sub_epi32(_mm_setzero_si128(), _mm_slli_epi32::<3>(sums));
            _mm_storeu_si128(to.sum.cast(), eighths);
        }
    }

    /// The largest magnitude in each of eight lanes of a block, as integers: a NaN
    /// is then the largest.
    ///
    /// # Safety
    /// avx2; 32 readable values.
    #[inline(always)]
    unsafe fn magnitude(from: *const f32) -> __m256i {
        // SAFETY: avx2 and the values by the contract.
        unsafe {
            let mask = _mm256_set1_epi32(i32::MAX);
            let mut largest = _mm256_setzero_si256();
            for i in 0..4 {
                let v = _mm256_loadu_si256(from.add(8 * i).cast());
                largest = _mm256_max_epi32(largest, _mm256_and_si256(v, mask));
            }
            largest
        }
    }

    /// The largest lane of each.
    ///
    /// # Safety
    /// avx2.
    #[inline(always)]
    unsafe fn across([a, b, c, d]: [__m256i; 4]) -> __m128i {
        // SAFETY: avx2 by the contract.
        unsafe {
            let ab = _mm256_max_epi32(_mm256_unpacklo_epi32(a, b), _mm256_unpackhi_epi32(a, b));
            let cd = _mm256_max_epi32(_mm256_unpacklo_epi32(c, d), _mm256_unpackhi_epi32(c, d));
            let all =
                _mm256_max_epi32(_mm256_unpacklo_epi64(ab, cd), _mm256_unpackhi_epi64(ab, cd));
            _mm_max_epi32(
                _mm256_castsi256_si128(all),
                _mm256_extracti128_si256::<1>(all),
            )
        }
    }

    /// A block's values times `inverse`, rounded, in order.
    ///
    /// # Safety
    /// avx2; 32 readable values.
    #[inline(always)]
    unsafe fn bytes(from: *const f32, inverse: __m256, bits: Bits) -> __m256i {
        // SAFETY: avx2 and the values by the contract.
        unsafe {
            let mut ints = [_mm256_setzero_si256(); 4];
            for (i, ints) in ints.iter_mut().enumerate() {
                let v = _mm256_loadu_ps(from.add(8 * i));
                *ints = _mm256_cvtps_epi32(_mm256_mul_ps(v, inverse));
            }
            let [a, b, c, d] = ints;
            // The halves of the registers are packed apart: words 0, 2, 4, 6, 1, ...
            let packed = _mm256_packs_epi16(_mm256_packs_epi32(a, b), _mm256_packs_epi32(c, d));
            let order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
            let bytes = _mm256_permutevar8x32_epi32(packed, order);
            match bits {
                Bits::Four => {
                    let even_odd = _mm256_broadcastsi128_si256(_mm_setr_epi8(
                        0, 2, 4, 6, 8, 10, 12, 14, 1, 3, 5, 7, 9, 11, 13, 15,
                    ));
                    let apart = _mm256_shuffle_epi8(bytes, even_odd);
                    _mm256_permute4x64_epi64::<0b11_01_10_00>(apart)
                }
                Bits::Eight => bytes,
            }
        }
    }
}

#[cfg(target_arch = "aarch64")]
pub(in crate::kernels) mod neon {
    use super::{BLOCK, Bits, Slot};
    use std::arch::aarch64::*;
    use std::arch::asm;

    /// As [`super::quantise`], of up to four blocks; writes four scales and sums, of
    /// which those of other blocks mean nothing.
    ///
    /// # Safety
    /// `N` times 32 readable values and four slots.
    #[inline(always)]
    pub(in crate::kernels) unsafe fn quantise<const N: usize>(
        from: *const f32,
        bits: Bits,
        to: Slot,
    ) {
        const { assert!(N <= 4) }
        // SAFETY: NEON is always there; the places by the contract.
        unsafe {
            let mut largest = [vdupq_n_f32(0.0); 4];
            for (i, largest) in largest.iter_mut().enumerate().take(N) {
                *largest = magnitude(from.add(i * BLOCK));
            }
            let [a, b, c, d] = largest;
            let largest = vpmaxq_f32(vpmaxq_f32(a, b), vpmaxq_f32(c, d));
            let whole = vdupq_n_f32(127.0);
            // Nothing above zero is false of a NaN, too.
            let inverses = vandq_u32(
                vreinterpretq_u32_f32(vdivq_f32(whole, largest)),
                vcgtzq_f32(largest),
            );
            let inverses = vreinterpretq_f32_u32(inverses);
            vst1q_f32(to.scale, vdivq_f32(largest, whole));
            let from = again(from);
            let mut sums = [vdupq_n_s16(0); 4];
            // Written out: a lane's number is part of the instruction.
            sums[0] = block::<0>(from, inverses, bits, to);
            if N > 1 {
                sums[1] = block::<1>(from, inverses, bits, to);
            }
            if N > 2 {
                sums[2] = block::<2>(from, inverses, bits, to);
            }
            if N > 3 {
                sums[3] = block::<3>(from, inverses, bits, to);
            }
            let [a, b, c, d] = sums;
            let sums = vpaddlq_s16(vpaddq_s16(vpaddq_s16(a, b), vpaddq_s16(c, d)));
            vst1q_s32(to.sum, vmulq_n_s32(sums, -8));
        }
    }

    /// The same place, of which the compiler does not know it: what was read there is
    /// read again instead of being kept on the stack, as there are more values than
    /// registers.
    ///
    /// # Safety
    /// None.
    #[inline(always)]
    unsafe fn again(mut from: *const f32) -> *const f32 {
        // SAFETY: no instruction at all.
        unsafe {
            asm!(
                "/* {from} */",
                from = inlateout(reg) from,
                options(pure, nomem, nostack, preserves_flags),
            );
        }
        from
    }

    /// The largest magnitude in each of four lanes of a block, NaN if there is one.
    ///
    /// # Safety
    /// 32 readable values.
    #[inline(always)]
    unsafe fn magnitude(from: *const f32) -> float32x4_t {
        // SAFETY: NEON is always there; the values by the contract.
        unsafe {
            let (a, b) = (vld1q_f32_x4(from), vld1q_f32_x4(from.add(16)));
            let max = |x, y| vmaxq_f32(vabsq_f32(x), vabsq_f32(y));
            let first = vmaxq_f32(max(a.0, a.1), max(a.2, a.3));
            vmaxq_f32(first, vmaxq_f32(max(b.0, b.1), max(b.2, b.3)))
        }
    }

    /// Writes the `I`th block's values times the `I`th inverse, rounded, and gives
    /// their sums by fours.
    ///
    /// # Safety
    /// The block's 32 readable values and its slot.
    #[inline(always)]
    unsafe fn block<const I: i32>(
        from: *const f32,
        inverses: float32x4_t,
        bits: Bits,
        to: Slot,
    ) -> int16x8_t {
        // SAFETY: NEON is always there; the places by the contract.
        unsafe {
            let from = from.add(I as usize * BLOCK);
            let (a, b) = (vld1q_f32_x4(from), vld1q_f32_x4(from.add(16)));
            let round = |v| {
                let rounded = vcvtnq_s32_f32(vmulq_laneq_f32::<I>(v, inverses));
                vreinterpretq_s16_s32(rounded)
            };
            // Values are within a byte: the lowest ones are all there is.
            let narrow = |v: float32x4x4_t| {
                let low = vuzp1q_s16(round(v.0), round(v.1));
                let high = vuzp1q_s16(round(v.2), round(v.3));
                vuzp1q_s8(vreinterpretq_s8_s16(low), vreinterpretq_s8_s16(high))
            };
            let (first, second) = (narrow(a), narrow(b));
            let sums = vpadalq_s8(vpaddlq_s8(first), second);
            let halves = match bits {
                Bits::Four => (vuzp1q_s8(first, second), vuzp2q_s8(first, second)),
                Bits::Eight => (first, second),
            };
            let to: *mut i8 = to.words.add(I as usize).cast();
            vst1q_s8(to, halves.0);
            vst1q_s8(to.add(16), halves.1);
            sums
        }
    }
}
