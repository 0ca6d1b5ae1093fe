//! The product of plain f32 vectors of any length, for the other kernels.

use super::vector::Vector;

/// The product of two vectors.
///
/// # Safety
/// The vector's target features; `a` and `b` of one length.
#[inline(always)]
pub(super) unsafe fn dot<V: Vector>(a: &[f32], b: &[f32]) -> f32 {
    let whole = a.len() - a.len() % V::LANES;
    // SAFETY: features by the contract; all reads are below `whole`.
    let mut total = unsafe {
        let mut sum = V::splat(0.0);
        let mut i = 0;
        while i < whole {
            sum = V::load(a.as_ptr().add(i)).mul_add(V::load(b.as_ptr().add(i)), sum);
            i += V::LANES;
        }
        sum.sum()
    };
    for (a, b) in a[whole..].iter().zip(&b[whole..]) {
        total += a * b;
    }
    total
}
