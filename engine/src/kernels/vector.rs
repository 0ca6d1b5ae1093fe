//! The vector trait that the kernels are written over.

use super::blocks::Bits;
use super::f16::finite_f16;
use super::int8::encode::quantise::{self, Slot, WORDS};

/// 1.5 * 2^23: a number of magnitude below 2^22 that is added to it is rounded to
/// the nearest whole one, which the sum's lowest bits then are.
pub(crate) const MAGIC: f32 = 12_582_912.0;

/// A register of f32 lanes.
///
/// # Safety
/// Every method may use instructions of the implementing backend: they are
/// called only beneath an entry function that has its target features. The
/// methods that take pointers read or write `LANES` values there.
pub(crate) unsafe trait Vector: Copy {
    /// Lanes in a register: a divisor of 16.
    const LANES: usize;
    /// Four factors: in a register where an instruction picks one of it, or else in
    /// the memory that they were read from.
    type Four: Copy;

    /// All lanes `value`.
    unsafe fn splat(value: f32) -> Self;
    /// Reads `LANES` values.
    unsafe fn load(from: *const f32) -> Self;
    /// Writes `LANES` values.
    unsafe fn store(self, to: *mut f32);
    /// `self + other`, lane by lane.
    unsafe fn add(self, other: Self) -> Self;
    /// `self - other`, lane by lane.
    unsafe fn sub(self, other: Self) -> Self;
    /// `self * other`, lane by lane.
    unsafe fn mul(self, other: Self) -> Self;
    /// `self * b + c`, lane by lane.
    unsafe fn mul_add(self, b: Self, c: Self) -> Self;
    /// Four factors, read from four values.
    unsafe fn four(from: *const f32) -> Self::Four;
    /// `self * b + c` with factor `N` of `b` in all lanes: the same as with
    /// [`Self::splat`] of it.
    unsafe fn mul_add_nth<const N: i32>(self, b: Self::Four, c: Self) -> Self;
    /// The sum of all lanes.
    unsafe fn sum(self) -> f32;
    /// Reads `LANES` bytes and widens their low and their high nibbles.
    unsafe fn nibbles(from: *const u8) -> (Self, Self);
    /// Reads `LANES` bytes and widens them.
    unsafe fn bytes(from: *const u8) -> Self;

    /// Reads `LANES` f16.
    unsafe fn halves(from: *const u16) -> Self;
    /// Reads `LANES` signed bytes and widens them.
    unsafe fn signed(from: *const i8) -> Self;
    /// Reads `N` registers of f16, one behind the other.
    #[inline(always)]
    unsafe fn halves_each<const N: usize>(from: *const u16) -> [Self; N] {
        // SAFETY: so many values are readable by the contract.
        std::array::from_fn(|i| unsafe { Self::halves(from.add(i * Self::LANES)) })
    }
    /// Reads `N` registers of signed bytes, one behind the other.
    #[inline(always)]
    unsafe fn signed_each<const N: usize>(from: *const i8) -> [Self; N] {
        // SAFETY: so many values are readable by the contract.
        std::array::from_fn(|i| unsafe { Self::signed(from.add(i * Self::LANES)) })
    }
    /// Writes `LANES` f16, rounded to nearest.
    unsafe fn to_halves(self, to: *mut u16);
    /// The smaller, lane by lane; `other` where one is no number.
    unsafe fn min(self, other: Self) -> Self;
    /// The greater, lane by lane; `other` where one is no number.
    unsafe fn max(self, other: Self) -> Self;
    /// `self / other`, lane by lane.
    unsafe fn div(self, other: Self) -> Self;
    /// `self` times 2 to the power `n`, lane by lane, where `sum` is `n` plus
    /// [`MAGIC`]. Neither `self` nor the product is zero, subnormal or infinite.
    unsafe fn scale_by_pow2(self, sum: Self) -> Self;
    /// Asks for the cache line of what is read a while later; the place may be
    /// outside.
    #[inline(always)]
    unsafe fn prefetch(_from: *const u8) {}

    /// `e^x` for `x` up to 88, where below -87 it is that of -87, almost 0: within
    /// 2e-7 of it, relatively.
    ///
    /// `e^x = 2^n e^r` with `n` the whole number nearest to `x / ln 2` and `r` at
    /// most `ln 2 / 2`. The polynomial is `1 + r + r^2 q(r)` with `q` of the third
    /// power: Remez's exchange for the least relative error there, 1.05e-7 before
    /// any rounding; with it 1.85e-7 was the most in 20 million steps from -87 to
    /// 0. `e^0` is 1.
    #[inline(always)]
    unsafe fn exp(self) -> Self {
        // SAFETY: features by the contract.
        unsafe {
            let x = self.max(Self::splat(-87.0));
            let magic = Self::splat(MAGIC);
            let sum = x.mul_add(Self::splat(std::f32::consts::LOG2_E), magic);
            let n = sum.sub(magic);
            // ln 2 in two parts, so that no bit of r is lost.
            let r = n.mul_add(Self::splat(-0.693_359_4), x);
            let r = n.mul_add(Self::splat(2.121_944_4e-4), r);
            // In pairs: a fused product overwrites what it adds to, so that each
            // step of Horner's rule would copy its coefficient first.
            let square = r.mul(r);
            let low = r.mul_add(Self::splat(0.166_671_14), Self::splat(0.499_992_3));
            let high = r.mul_add(Self::splat(0.008_312_524), Self::splat(0.041_890_122));
            let q = high.mul_add(square, low);
            let p = q.mul_add(square, r).add(Self::splat(1.0));
            p.scale_by_pow2(sum)
        }
    }

    /// Quantises `N` blocks of 32 values to int8, see [`quantise`]. 1, 2 or 4 blocks,
    /// and slots for four: the scales and sums of those beyond `N` may be written, too.
    #[inline(always)]
    unsafe fn quantise<const N: usize>(from: *const f32, bits: Bits, to: Slot) {
        // SAFETY: the values and the slots by the contract.
        unsafe { quantise::quantise::<N>(&*from.cast(), bits, to) }
    }

    /// Writes four times four words: the first word of each, then the second, ...
    #[inline(always)]
    unsafe fn deal(from: [*const [u32; WORDS / 2]; 4], to: *mut [u32; 4]) {
        // SAFETY: all readable and writable by the contract.
        unsafe {
            let [a, b, c, d] = from.map(|from| from.read());
            for i in 0..4 {
                to.add(i).write([a[i], b[i], c[i], d[i]]);
            }
        }
    }
}

/// One lane: the reference.
// SAFETY: needs no target feature; the pointers are the caller's promise.
unsafe impl Vector for f32 {
    const LANES: usize = 1;
    type Four = *const f32;

    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        value
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: the caller promises one readable value.
        unsafe { from.read() }
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: the caller promises one writable value.
        unsafe { to.write(self) }
    }
    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        self + other
    }
    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        self - other
    }
    #[inline(always)]
    unsafe fn mul(self, other: Self) -> Self {
        self * other
    }
    #[inline(always)]
    unsafe fn mul_add(self, b: Self, c: Self) -> Self {
        // Not f32::mul_add: without the fma feature that is a library call.
        self * b + c
    }
    #[inline(always)]
    unsafe fn four(from: *const f32) -> Self::Four {
        from
    }
    #[inline(always)]
    unsafe fn mul_add_nth<const N: i32>(self, b: Self::Four, c: Self) -> Self {
        // SAFETY: four readable values by the contract.
        unsafe { self * *b.add(N as usize) + c }
    }
    #[inline(always)]
    unsafe fn sum(self) -> f32 {
        self
    }
    #[inline(always)]
    unsafe fn nibbles(from: *const u8) -> (Self, Self) {
        // SAFETY: the caller promises one readable byte.
        let byte = unsafe { from.read() };
        (f32::from(byte & 15), f32::from(byte >> 4))
    }
    #[inline(always)]
    unsafe fn bytes(from: *const u8) -> Self {
        // SAFETY: the caller promises one readable byte.
        f32::from(unsafe { from.read() })
    }
    #[inline(always)]
    unsafe fn halves(from: *const u16) -> Self {
        // SAFETY: the caller promises one readable value.
        finite_f16(unsafe { from.read() })
    }
    #[inline(always)]
    unsafe fn signed(from: *const i8) -> Self {
        // SAFETY: the caller promises one readable byte.
        f32::from(unsafe { from.read() })
    }
    #[inline(always)]
    unsafe fn to_halves(self, to: *mut u16) {
        // SAFETY: the caller promises one writable value.
        unsafe { to.write(half::f16::from_f32(self).to_bits()) }
    }
    #[inline(always)]
    unsafe fn min(self, other: Self) -> Self {
        if self < other { self } else { other }
    }
    #[inline(always)]
    unsafe fn max(self, other: Self) -> Self {
        if self > other { self } else { other }
    }
    #[inline(always)]
    unsafe fn div(self, other: Self) -> Self {
        self / other
    }
    #[inline(always)]
    unsafe fn scale_by_pow2(self, sum: Self) -> Self {
        // The bits of the magic number itself are shifted out.
        f32::from_bits(self.to_bits().wrapping_add(sum.to_bits() << 23))
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::{Bits, Slot, Vector};
    use crate::kernels::int8::encode::avx2;
    use std::arch::x86_64::*;

    // SAFETY: used only beneath entries with avx2 and fma.
    unsafe impl Vector for __m256 {
        const LANES: usize = 8;
        type Four = *const f32;

        #[inline(always)]
        unsafe fn splat(value: f32) -> Self {
            // SAFETY: avx2 by the trait's contract.
            unsafe { _mm256_set1_ps(value) }
        }
        #[inline(always)]
        unsafe fn load(from: *const f32) -> Self {
            // SAFETY: avx2, and eight readable values by the contract.
            unsafe { _mm256_loadu_ps(from) }
        }
        #[inline(always)]
        unsafe fn store(self, to: *mut f32) {
            // SAFETY: avx2, and eight writable values by the contract.
            unsafe { _mm256_storeu_ps(to, self) }
        }
        #[inline(always)]
        unsafe fn add(self, other: Self) -> Self {
            // SAFETY: avx2 by the contract.
            unsafe { _mm256_add_ps(self, other) }
        }
        #[inline(always)]
        unsafe fn sub(self, other: Self) -> Self {
            // SAFETY: avx2 by the contract.
            unsafe { _mm256_sub_ps(self, other) }
        }
        #[inline(always)]
        unsafe fn mul(self, other: Self) -> Self {
            // SAFETY: avx2 by the contract.
            unsafe { _mm256_mul_ps(self, other) }
        }
        #[inline(always)]
        unsafe fn mul_add(self, b: Self, c: Self) -> Self {
            // SAFETY: fma by the contract.
            unsafe { _mm256_fmadd_ps(self, b, c) }
        }
        #[inline(always)]
        unsafe fn four(from: *const f32) -> Self::Four {
            from
        }
        #[inline(always)]
        unsafe fn mul_add_nth<const N: i32>(self, b: Self::Four, c: Self) -> Self {
            // SAFETY: the features, and four readable values, by the contract.
            unsafe { self.mul_add(Self::splat(*b.add(N as usize)), c) }
        }
        #[inline(always)]
        unsafe fn sum(self) -> f32 {
            // SAFETY: avx2 by the contract.
            unsafe {
                let half = _mm_add_ps(
                    _mm256_castps256_ps128(self),
                    _mm256_extractf128_ps::<1>(self),
                );
                let quarter = _mm_add_ps(half, _mm_movehl_ps(half, half));
                _mm_cvtss_f32(_mm_add_ss(quarter, _mm_movehdup_ps(quarter)))
            }
        }
        #[inline(always)]
        unsafe fn nibbles(from: *const u8) -> (Self, Self) {
            // SAFETY: avx2, and eight readable bytes by the contract.
            unsafe {
                let bytes = _mm256_cvtepu8_epi32(_mm_loadl_epi64(from.cast()));
                let low = _mm256_and_si256(bytes, _mm256_set1_epi32(15));
                let high = _mm256_srli_epi32::<4>(bytes);
                (_mm256_cvtepi32_ps(low), _mm256_cvtepi32_ps(high))
            }
        }
        #[inline(always)]
        unsafe fn bytes(from: *const u8) -> Self {
            // SAFETY: avx2, and eight readable bytes by the contract.
            unsafe { _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64(from.cast()))) }
        }
        #[inline(always)]
        unsafe fn halves(from: *const u16) -> Self {
            // SAFETY: f16c, and eight readable values by the contract.
            unsafe { _mm256_cvtph_ps(_mm_loadu_si128(from.cast())) }
        }
        #[inline(always)]
        unsafe fn signed(from: *const i8) -> Self {
            // SAFETY: avx2, and eight readable bytes by the contract.
            unsafe { _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(from.cast()))) }
        }
        #[inline(always)]
        unsafe fn to_halves(self, to: *mut u16) {
            // SAFETY: the features, and as many writable values as lanes, by the contract.
            unsafe {
                let halves = _mm256_cvtps_ph::<{ _MM_FROUND_TO_NEAREST_INT }>(self);
                _mm_storeu_si128(to.cast(), halves);
            }
        }
        #[inline(always)]
        unsafe fn min(self, other: Self) -> Self {
            // SAFETY: avx2 by the contract.
            unsafe { _mm256_min_ps(self, other) }
        }
        #[inline(always)]
        unsafe fn max(self, other: Self) -> Self {
            // SAFETY: avx2 by the contract.
            unsafe { _mm256_max_ps(self, other) }
        }
        #[inline(always)]
        unsafe fn div(self, other: Self) -> Self {
            // SAFETY: avx2 by the contract.
            unsafe { _mm256_div_ps(self, other) }
        }
        #[inline(always)]
        unsafe fn scale_by_pow2(self, sum: Self) -> Self {
            // SAFETY: avx2 by the contract.
            unsafe {
                let n = _mm256_slli_epi32::<23>(_mm256_castps_si256(sum));
                _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(self), n))
            }
        }
        #[inline(always)]
        unsafe fn quantise<const N: usize>(from: *const f32, bits: Bits, to: Slot) {
            // SAFETY: avx2, the values and the slots by the contract.
            unsafe { avx2::quantise::<N>(from, bits, to) }
        }
        #[inline(always)]
        unsafe fn prefetch(from: *const u8) {
            // SAFETY: SSE is always there; a prefetch cannot fault.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(from.cast()) };
        }
    }

    // SAFETY: used only beneath entries with avx512f.
    unsafe impl Vector for __m512 {
        const LANES: usize = 16;
        type Four = *const f32;

        #[inline(always)]
        unsafe fn splat(value: f32) -> Self {
            // SAFETY: avx512f by the contract.
            unsafe { _mm512_set1_ps(value) }
        }
        #[inline(always)]
        unsafe fn load(from: *const f32) -> Self {
            // SAFETY: avx512f, and sixteen readable values by the contract.
            unsafe { _mm512_loadu_ps(from) }
        }
        #[inline(always)]
        unsafe fn store(self, to: *mut f32) {
            // SAFETY: avx512f, and sixteen writable values by the contract.
            unsafe { _mm512_storeu_ps(to, self) }
        }
        #[inline(always)]
        unsafe fn add(self, other: Self) -> Self {
            // SAFETY: avx512f by the contract.
            unsafe { _mm512_add_ps(self, other) }
        }
        #[inline(always)]
        unsafe fn sub(self, other: Self) -> Self {
            // SAFETY: avx512f by the contract.
            unsafe { _mm512_sub_ps(self, other) }
        }
        #[inline(always)]
        unsafe fn mul(self, other: Self) -> Self {
            // SAFETY: avx512f by the contract.
            unsafe { _mm512_mul_ps(self, other) }
        }
        #[inline(always)]
        unsafe fn mul_add(self, b: Self, c: Self) -> Self {
            // SAFETY: avx512f by the contract.
            unsafe { _mm512_fmadd_ps(self, b, c) }
        }
        #[inline(always)]
        unsafe fn four(from: *const f32) -> Self::Four {
            from
        }
        #[inline(always)]
        unsafe fn mul_add_nth<const N: i32>(self, b: Self::Four, c: Self) -> Self {
            // SAFETY: the features, and four readable values, by the contract.
            unsafe { self.mul_add(Self::splat(*b.add(N as usize)), c) }
        }
        #[inline(always)]
        unsafe fn sum(self) -> f32 {
            // SAFETY: avx512f by the contract.
            unsafe { _mm512_reduce_add_ps(self) }
        }
        #[inline(always)]
        unsafe fn nibbles(from: *const u8) -> (Self, Self) {
            // SAFETY: avx512f, and sixteen readable bytes by the contract.
            unsafe {
                let bytes = _mm512_cvtepu8_epi32(_mm_loadu_si128(from.cast()));
                let low = _mm512_and_si512(bytes, _mm512_set1_epi32(15));
                let high = _mm512_srli_epi32::<4>(bytes);
                (_mm512_cvtepi32_ps(low), _mm512_cvtepi32_ps(high))
            }
        }
        #[inline(always)]
        unsafe fn bytes(from: *const u8) -> Self {
            // SAFETY: avx512f, and sixteen readable bytes by the contract.
            unsafe { _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128(from.cast()))) }
        }
        #[inline(always)]
        unsafe fn halves(from: *const u16) -> Self {
            // SAFETY: avx512f, and sixteen readable values by the contract.
            unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(from.cast())) }
        }
        #[inline(always)]
        unsafe fn signed(from: *const i8) -> Self {
            // SAFETY: avx512f, and sixteen readable bytes by the contract.
            unsafe { _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(from.cast()))) }
        }
        #[inline(always)]
        unsafe fn to_halves(self, to: *mut u16) {
            // SAFETY: the features, and as many writable values as lanes, by the contract.
            unsafe {
                let halves = _mm512_cvtps_ph::<{ _MM_FROUND_TO_NEAREST_INT }>(self);
                _mm256_storeu_si256(to.cast(), halves);
            }
        }
        #[inline(always)]
        unsafe fn min(self, other: Self) -> Self {
            // SAFETY: avx512f by the contract.
            unsafe { _mm512_min_ps(self, other) }
        }
        #[inline(always)]
        unsafe fn max(self, other: Self) -> Self {
            // SAFETY: avx512f by the contract.
            unsafe { _mm512_max_ps(self, other) }
        }
        #[inline(always)]
        unsafe fn div(self, other: Self) -> Self {
            // SAFETY: avx512f by the contract.
            unsafe { _mm512_div_ps(self, other) }
        }
        #[inline(always)]
        unsafe fn scale_by_pow2(self, sum: Self) -> Self {
            // SAFETY: avx512f by the contract.
            unsafe {
                let n = _mm512_slli_epi32::<23>(_mm512_castps_si512(sum));
                _mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(self), n))
            }
        }
        #[inline(always)]
        unsafe fn quantise<const N: usize>(from: *const f32, bits: Bits, to: Slot) {
            // SAFETY: avx2, the values and the slots by the contract.
            unsafe { avx2::quantise::<N>(from, bits, to) }
        }
        #[inline(always)]
        unsafe fn prefetch(from: *const u8) {
            // SAFETY: SSE is always there; a prefetch cannot fault.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(from.cast()) };
        }
    }
}

#[cfg(target_arch = "aarch64")]
pub(super) mod neon {
    use super::{Bits, Slot, Vector, WORDS};
    use crate::kernels::int8::encode::neon;
    use std::arch::aarch64::*;
    use std::arch::asm;

    /// f16 to f32. (The type of a vector of f16 is not stable yet, hence the
    /// instruction by name.)
    ///
    /// # Safety
    /// None beyond NEON, which is always there.
    #[inline(always)]
    pub(in crate::kernels) unsafe fn widen_halves(bits: uint16x4_t) -> float32x4_t {
        let lanes: float32x4_t;
        // SAFETY: NEON is always there; only the named registers are touched.
        unsafe {
            asm!(
                "fcvtl {lanes:v}.4s, {bits:v}.4h",
                lanes = lateout(vreg) lanes,
                bits = in(vreg) bits,
                options(pure, nomem, nostack, preserves_flags),
            );
        }
        lanes
    }

    /// The last four f16 to f32.
    ///
    /// # Safety
    /// None beyond NEON, which is always there.
    #[inline(always)]
    pub(in crate::kernels) unsafe fn widen_high_halves(bits: uint16x8_t) -> float32x4_t {
        let lanes: float32x4_t;
        // SAFETY: NEON is always there; only the named registers are touched.
        unsafe {
            asm!(
                "fcvtl2 {lanes:v}.4s, {bits:v}.8h",
                lanes = lateout(vreg) lanes,
                bits = in(vreg) bits,
                options(pure, nomem, nostack, preserves_flags),
            );
        }
        lanes
    }

    /// Reads four bytes into the low half of a register.
    ///
    /// # Safety
    /// Four readable bytes.
    #[inline(always)]
    unsafe fn load_word(from: *const u8) -> uint8x8_t {
        // SAFETY: four readable bytes by the contract.
        let word = unsafe { from.cast::<u32>().read_unaligned() };
        // SAFETY: NEON is always there.
        unsafe { vcreate_u8(u64::from(word)) }
    }

    /// The low four bytes as f32.
    ///
    /// # Safety
    /// None beyond NEON, which is always there.
    #[inline(always)]
    unsafe fn widen(bytes: uint8x8_t) -> float32x4_t {
        // SAFETY: NEON is always there.
        unsafe { vcvtq_f32_u32(vmovl_u16(vget_low_u16(vmovl_u8(bytes)))) }
    }

    // SAFETY: NEON is part of the aarch64 baseline.
    unsafe impl Vector for float32x4_t {
        const LANES: usize = 4;
        type Four = float32x4_t;

        #[inline(always)]
        unsafe fn splat(value: f32) -> Self {
            // SAFETY: NEON is always there.
            unsafe { vdupq_n_f32(value) }
        }
        #[inline(always)]
        unsafe fn load(from: *const f32) -> Self {
            // SAFETY: four readable values by the contract.
            unsafe { vld1q_f32(from) }
        }
        #[inline(always)]
        unsafe fn store(self, to: *mut f32) {
            // SAFETY: four writable values by the contract.
            unsafe { vst1q_f32(to, self) }
        }
        #[inline(always)]
        unsafe fn add(self, other: Self) -> Self {
            // SAFETY: NEON is always there.
            unsafe { vaddq_f32(self, other) }
        }
        #[inline(always)]
        unsafe fn sub(self, other: Self) -> Self {
            // SAFETY: NEON is always there.
            unsafe { vsubq_f32(self, other) }
        }
        #[inline(always)]
        unsafe fn mul(self, other: Self) -> Self {
            // SAFETY: NEON is always there.
            unsafe { vmulq_f32(self, other) }
        }
        #[inline(always)]
        unsafe fn mul_add(self, b: Self, c: Self) -> Self {
            // SAFETY: NEON is always there.
            unsafe { vfmaq_f32(c, self, b) }
        }
        #[inline(always)]
        unsafe fn four(from: *const f32) -> Self::Four {
            // SAFETY: four readable values by the contract.
            unsafe { vld1q_f32(from) }
        }
        #[inline(always)]
        unsafe fn mul_add_nth<const N: i32>(self, b: Self::Four, c: Self) -> Self {
            // SAFETY: NEON is always there.
            unsafe { vfmaq_laneq_f32::<N>(c, self, b) }
        }
        #[inline(always)]
        unsafe fn sum(self) -> f32 {
            // SAFETY: NEON is always there.
            unsafe { vaddvq_f32(self) }
        }
        #[inline(always)]
        unsafe fn nibbles(from: *const u8) -> (Self, Self) {
            // SAFETY: four readable bytes by the contract.
            unsafe {
                let bytes = load_word(from);
                let low = vand_u8(bytes, vdup_n_u8(15));
                let high = vshr_n_u8::<4>(bytes);
                (widen(low), widen(high))
            }
        }
        #[inline(always)]
        unsafe fn bytes(from: *const u8) -> Self {
            // SAFETY: four readable bytes by the contract.
            unsafe { widen(load_word(from)) }
        }
        #[inline(always)]
        unsafe fn halves(from: *const u16) -> Self {
            // SAFETY: four readable values by the contract.
            unsafe { widen_halves(vld1_u16(from)) }
        }
        #[inline(always)]
        unsafe fn halves_each<const N: usize>(from: *const u16) -> [Self; N] {
            // SAFETY: NEON is always there; so many readable values by the contract.
            unsafe {
                let mut all = [vdupq_n_f32(0.0); N];
                for (i, two) in all.chunks_mut(2).enumerate() {
                    let from = from.add(i * 8);
                    if let [a, b] = two {
                        // Both from one load.
                        let bits = vld1q_u16(from);
                        (*a, *b) = (widen_halves(vget_low_u16(bits)), widen_high_halves(bits));
                    } else {
                        two[0] = Self::halves(from);
                    }
                }
                all
            }
        }
        #[inline(always)]
        unsafe fn signed_each<const N: usize>(from: *const i8) -> [Self; N] {
            // SAFETY: NEON is always there; so many readable values by the contract.
            unsafe {
                let mut all = [vdupq_n_f32(0.0); N];
                for (i, four) in all.chunks_mut(4).enumerate() {
                    let from = from.add(i * 16);
                    if let [a, b, c, d] = four {
                        // All from one load.
                        let bytes = vld1q_s8(from);
                        let (low, high) = (vmovl_s8(vget_low_s8(bytes)), vmovl_high_s8(bytes));
                        *a = vcvtq_f32_s32(vmovl_s16(vget_low_s16(low)));
                        *b = vcvtq_f32_s32(vmovl_high_s16(low));
                        *c = vcvtq_f32_s32(vmovl_s16(vget_low_s16(high)));
                        *d = vcvtq_f32_s32(vmovl_high_s16(high));
                    } else {
                        for (j, one) in four.iter_mut().enumerate() {
                            *one = Self::signed(from.add(j * 4));
                        }
                    }
                }
                all
            }
        }
        #[inline(always)]
        unsafe fn signed(from: *const i8) -> Self {
            // SAFETY: four readable bytes by the contract.
            unsafe {
                let bytes = vreinterpret_s8_u8(load_word(from.cast()));
                vcvtq_f32_s32(vmovl_s16(vget_low_s16(vmovl_s8(bytes))))
            }
        }
        #[inline(always)]
        unsafe fn to_halves(self, to: *mut u16) {
            let bits: uint16x4_t;
            // SAFETY: NEON is always there; four writable values by the contract. (The
            // intrinsic is not stable yet.)
            unsafe {
                asm!(
                    "fcvtn {bits:v}.4h, {lanes:v}.4s",
                    bits = lateout(vreg) bits,
                    lanes = in(vreg) self,
                    options(pure, nomem, nostack, preserves_flags),
                );
                vst1_u16(to, bits);
            }
        }
        #[inline(always)]
        unsafe fn min(self, other: Self) -> Self {
            // SAFETY: NEON is always there.
            unsafe { vminq_f32(self, other) }
        }
        #[inline(always)]
        unsafe fn max(self, other: Self) -> Self {
            // SAFETY: NEON is always there.
            unsafe { vmaxq_f32(self, other) }
        }
        #[inline(always)]
        unsafe fn div(self, other: Self) -> Self {
            // SAFETY: NEON is always there.
            unsafe { vdivq_f32(self, other) }
        }
        #[inline(always)]
        unsafe fn scale_by_pow2(self, sum: Self) -> Self {
            // SAFETY: NEON is always there.
            unsafe {
                let n = vshlq_n_s32::<23>(vreinterpretq_s32_f32(sum));
                vreinterpretq_f32_s32(vaddq_s32(vreinterpretq_s32_f32(self), n))
            }
        }
        #[inline(always)]
        unsafe fn prefetch(from: *const u8) {
            // SAFETY: a prefetch cannot fault. (The intrinsic is not stable yet.)
            unsafe {
                asm!(
                    "prfm pldl1keep, [{from}]",
                    from = in(reg) from,
                    options(nostack, preserves_flags, readonly),
                );
            }
        }

        #[inline(always)]
        unsafe fn quantise<const N: usize>(from: *const f32, bits: Bits, to: Slot) {
            // SAFETY: the values and the slots by the contract.
            unsafe { neon::quantise::<N>(from, bits, to) }
        }
        #[inline(always)]
        unsafe fn deal(from: [*const [u32; WORDS / 2]; 4], to: *mut [u32; 4]) {
            // SAFETY: all readable and writable by the contract.
            unsafe {
                let [a, b, c, d] = from;
                let words = uint32x4x4_t(
                    vld1q_u32(a.cast()),
                    vld1q_u32(b.cast()),
                    vld1q_u32(c.cast()),
                    vld1q_u32(d.cast()),
                );
                vst4q_u32(to.cast(), words);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Vector;
    use crate::kernels::Backend;
    use crate::kernels::backend::kernel_entry;

    kernel_entry! {
        /// `e^x` of 16 values.
        fn exp16(x: &mut [f32; 16]) = exp16_body
    }

    /// # Safety
    /// The vector's features.
    #[inline(always)]
    unsafe fn exp16_body<V: Vector>(x: &mut [f32; 16]) {
        // SAFETY: features by the contract; the lanes divide 16.
        unsafe {
            let mut i = 0;
            while i < 16 {
                let at = x.as_mut_ptr().add(i);
                V::load(at).exp().store(at);
                i += V::LANES;
            }
        }
    }

    #[test]
    fn the_exponential_is_within_its_bound() {
        for backend in Backend::available() {
            // From -86.9 to 86.9.
            for i in 0..40_000 {
                let mut x = [0.0f32; 16];
                for (j, x) in x.iter_mut().enumerate() {
                    *x = (i * 16 + j) as f32 * -86.9 / 320_000.0 + 86.9;
                }
                let mut y = x;
                exp16(backend, &mut y);
                for (x, y) in x.iter().zip(y) {
                    let want = f64::from(*x).exp();
                    assert!((f64::from(y) / want - 1.0).abs() < 2e-7, "{backend:?}: {x}");
                }
            }
            let mut x = [f32::NEG_INFINITY; 16];
            x[0] = 0.0;
            exp16(backend, &mut x);
            assert_eq!(x[0], 1.0);
            assert!(x[1] < 2e-38);
        }
    }
}
