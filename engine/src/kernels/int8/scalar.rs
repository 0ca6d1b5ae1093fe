//! The reference: plain Rust.

use super::encode::RECORD;
use super::group::{GROUP, GROUP_WEIGHTS, Group};
use crate::kernels::blocks::BLOCK;
use crate::kernels::f16::finite_f16;

/// Groups of 4 or of 8 bits.
#[derive(Clone, Copy)]
pub(crate) struct Scalar<const BITS: usize>;

// SAFETY: needs no target feature; the pointers are the caller's promise.
unsafe impl<const BITS: usize> Group for Scalar<BITS> {
    const BIAS: f32 = 0.0;
    const RECORD: usize = RECORD;

    /// Of 4 bits: the low nibbles of all blocks, then the high ones, as the
    /// activations are ordered.
    type Weights = [u8; GROUP_WEIGHTS];
    type Activations = [i8; GROUP_WEIGHTS];
    type Ints = [i32; GROUP];
    type Lanes = [f32; GROUP];

    #[inline(always)]
    unsafe fn weights(from: *const u8) -> Self::Weights {
        let mut weights = [0; GROUP_WEIGHTS];
        if BITS == 4 {
            for i in 0..GROUP_WEIGHTS / 2 {
                // SAFETY: 64 readable bytes by the contract.
                let byte = unsafe { from.add(i).read() };
                weights[i] = byte & 15;
                weights[GROUP_WEIGHTS / 2 + i] = byte >> 4;
            }
        } else {
            // SAFETY: 128 readable bytes by the contract.
            weights = unsafe { from.cast::<[u8; GROUP_WEIGHTS]>().read() };
        }
        weights
    }

    #[inline(always)]
    unsafe fn activations(from: *const i8) -> Self::Activations {
        // SAFETY: 128 readable values by the contract.
        unsafe { from.cast::<[i8; GROUP_WEIGHTS]>().read() }
    }

    #[inline(always)]
    unsafe fn f16s(from: *const u16) -> Self::Lanes {
        // SAFETY: four readable values by the contract.
        let bits = unsafe { from.cast::<[u16; GROUP]>().read_unaligned() };
        bits.map(finite_f16)
    }

    #[inline(always)]
    unsafe fn f32s(from: *const f32) -> Self::Lanes {
        // SAFETY: four readable values by the contract.
        unsafe { from.cast::<[f32; GROUP]>().read_unaligned() }
    }

    #[inline(always)]
    unsafe fn ints(from: *const i32) -> Self::Ints {
        // SAFETY: four readable values by the contract.
        unsafe { from.cast::<[i32; GROUP]>().read_unaligned() }
    }

    #[inline(always)]
    unsafe fn zero() -> Self::Ints {
        [0; GROUP]
    }

    #[inline(always)]
    unsafe fn zero_points(from: *const u8) -> Self::Ints {
        let mut zero_points = [0; GROUP];
        for (i, z) in zero_points.iter_mut().enumerate() {
            // SAFETY: the zero points of a group are readable by the contract.
            *z = i32::from(unsafe {
                if BITS == 4 {
                    from.add(i / 2).read() >> (4 * (i % 2)) & 15
                } else {
                    from.add(i).read()
                }
            });
        }
        zero_points
    }

    #[inline(always)]
    unsafe fn mul_ints_by_eighth(a: Self::Ints, b: Self::Ints) -> Self::Ints {
        std::array::from_fn(|i| a[i] * b[i] / 8)
    }

    #[inline(always)]
    unsafe fn to_lanes(ints: Self::Ints) -> Self::Lanes {
        ints.map(|v| v as f32)
    }

    #[inline(always)]
    unsafe fn dot(w: Self::Weights, x: Self::Activations, start: Self::Ints) -> Self::Lanes {
        let mut sums = start;
        for (i, (&w, &x)) in w.iter().zip(&x).enumerate() {
            // Of 4 bits half a block's values are in each half of the group.
            let block = if BITS == 4 {
                i % (GROUP_WEIGHTS / 2) / (BLOCK / 2)
            } else {
                i / BLOCK
            };
            sums[block] += i32::from(w) * i32::from(x);
        }
        sums.map(|v| v as f32)
    }

    #[inline(always)]
    unsafe fn splat(value: f32) -> Self::Lanes {
        [value; GROUP]
    }

    #[inline(always)]
    unsafe fn mul(a: Self::Lanes, b: Self::Lanes) -> Self::Lanes {
        std::array::from_fn(|i| a[i] * b[i])
    }

    #[inline(always)]
    unsafe fn mul_add(a: Self::Lanes, b: Self::Lanes, c: Self::Lanes) -> Self::Lanes {
        // Not f32::mul_add: without the fma feature that is a library call.
        std::array::from_fn(|i| a[i] * b[i] + c[i])
    }

    #[inline(always)]
    unsafe fn halves(lanes: Self::Lanes) -> (Self::Lanes, Self::Lanes) {
        let [a, b, c, d] = lanes;
        ([a, b, 0.0, 0.0], [0.0, 0.0, c, d])
    }

    #[inline(always)]
    unsafe fn fold([a, b, c, d]: Self::Lanes) -> Self::Lanes {
        [a + c, b + d, 0.0, 0.0]
    }

    #[inline(always)]
    unsafe fn pack(a: Self::Lanes, b: Self::Lanes) -> Self::Lanes {
        [a[0], a[1], b[0], b[1]]
    }

    #[inline(always)]
    unsafe fn add(a: Self::Lanes, b: Self::Lanes) -> Self::Lanes {
        std::array::from_fn(|i| a[i] + b[i])
    }

    #[inline(always)]
    unsafe fn sums(lanes: [Self::Lanes; 4]) -> [f32; 4] {
        lanes.map(|[a, b, c, d]| (a + b) + (c + d))
    }
}
