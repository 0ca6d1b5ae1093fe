//! The vector trait that the kernels are written over.

#[cfg(target_arch = "aarch64")]
pub(super) mod neon;
#[cfg(target_arch = "x86_64")]
mod x86;

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
    /// The greatest of all lanes, where each is a number.
    unsafe fn largest(self) -> f32;
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
    unsafe fn largest(self) -> f32 {
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
