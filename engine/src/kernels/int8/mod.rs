//! `y = x Wᵀ` with 4- or 8-bit weights and int8 activations.
//!
//! Weights are used as they lie in the file. Decode reads each of them once: a
//! few rows of W share the loads of x. Prefill unpacks a group of W once for a
//! tile of rows of x, which pass block-wise through the caches.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
pub(crate) mod encode;
mod group;
#[cfg(target_arch = "aarch64")]
mod neon;
mod scalar;
mod tile;

use std::ops::Range;

use self::encode::Order;
use self::group::{GROUP, Group};
use self::tile::{
    F16, F32, FRACTIONAL_F16, FRACTIONAL_F32, PACKED, Row, SYMMETRIC, Shape, Unit, tile,
};
use super::backend::{Backend, Kind};
use super::blocks::{BLOCK, Bits, BlockMatrix, Floats, ZeroPoints};
use super::linear::Output;

/// Bytes of encoded rows that pass together: they stay in the first cache of
/// 32 KB while the rows of W pass.
const PANEL_BYTES: usize = 24 << 10;
/// Bytes of W that pass together: they stay in a core's share of the second cache
/// while the panels pass.
const STRIPE_BYTES: usize = 96 << 10;

/// Whether a backend's words are dealt across the blocks of a group.
pub(crate) fn across(backend: Backend) -> bool {
    match backend.kind() {
        #[cfg(target_arch = "aarch64")]
        Kind::NeonDotprod | Kind::NeonI8mm => true,
        _ => false,
    }
}

/// One call's work.
#[derive(Clone, Copy)]
pub(super) struct Job<'a> {
    pub(super) w: &'a BlockMatrix<'a>,
    /// Encoded rows for this backend, `x_stride` bytes apart.
    pub(super) x: *const u8,
    pub(super) x_stride: usize,
    pub(super) x_rows: usize,
    pub(super) order: Order,
    pub(super) y: Output,
}

impl Job<'_> {
    fn x_row(&self, t: usize) -> Row {
        encode::row(self.x.wrapping_add(t * self.x_stride), self.w.columns())
    }
}

/// The entries of a backend: one function for each form of weights, all with
/// its target features, and the choice among them.
macro_rules! entries {
    ($name:ident, $group:ident, $features:literal, $decode:literal, $units:literal, $rows:literal) => {
        /// # Safety
        /// The backend's features are there; `job` and `rows` as for [`linear`].
        unsafe fn $name(job: &Job<'_>, rows: Range<usize>) {
            #[target_feature(enable = $features)]
            fn run<const BITS: usize, const S: u8, const Z: u8>(job: &Job<'_>, rows: Range<usize>) {
                // SAFETY: this function has the features; the rest is promised
                // by the caller of the function around it.
                unsafe {
                    products::<$group<BITS>, BITS, S, Z, $decode, $units, $rows>(job, rows);
                }
            }
            // SAFETY: the features by the contract.
            unsafe {
                choose!(job, rows, run);
            }
        }
    };
}

/// Calls `run` for the form of the job's weights.
macro_rules! choose {
    ($job:ident, $rows:ident, $run:ident) => {{
        let (scales, zero_points) = forms($job.w);
        match ($job.w.bits(), scales, zero_points) {
            (Bits::Four, F16, SYMMETRIC) => $run::<4, F16, SYMMETRIC>($job, $rows),
            (Bits::Four, F16, PACKED) => $run::<4, F16, PACKED>($job, $rows),
            (Bits::Four, F16, FRACTIONAL_F16) => $run::<4, F16, FRACTIONAL_F16>($job, $rows),
            (Bits::Four, F16, _) => $run::<4, F16, FRACTIONAL_F32>($job, $rows),
            (Bits::Four, _, SYMMETRIC) => $run::<4, F32, SYMMETRIC>($job, $rows),
            (Bits::Four, _, PACKED) => $run::<4, F32, PACKED>($job, $rows),
            (Bits::Four, _, FRACTIONAL_F16) => $run::<4, F32, FRACTIONAL_F16>($job, $rows),
            (Bits::Four, _, _) => $run::<4, F32, FRACTIONAL_F32>($job, $rows),
            (Bits::Eight, F16, SYMMETRIC) => $run::<8, F16, SYMMETRIC>($job, $rows),
            (Bits::Eight, F16, PACKED) => $run::<8, F16, PACKED>($job, $rows),
            (Bits::Eight, F16, FRACTIONAL_F16) => $run::<8, F16, FRACTIONAL_F16>($job, $rows),
            (Bits::Eight, F16, _) => $run::<8, F16, FRACTIONAL_F32>($job, $rows),
            (Bits::Eight, _, SYMMETRIC) => $run::<8, F32, SYMMETRIC>($job, $rows),
            (Bits::Eight, _, PACKED) => $run::<8, F32, PACKED>($job, $rows),
            (Bits::Eight, _, FRACTIONAL_F16) => $run::<8, F32, FRACTIONAL_F16>($job, $rows),
            (Bits::Eight, _, _) => $run::<8, F32, FRACTIONAL_F32>($job, $rows),
        }
    }};
}

use scalar::Scalar;
#[cfg(target_arch = "x86_64")]
use {avx2::Avx2, avx512::Avx512};
#[cfg(target_arch = "aarch64")]
use {neon::Neon, neon::NeonDotprod};

#[cfg(target_arch = "x86_64")]
entries!(avx2, Avx2, "avx2,fma,f16c", 2, 1, 4);
#[cfg(target_arch = "x86_64")]
entries!(
    vnni,
    Avx512,
    "avx512f,avx512bw,avx512vnni,avx2,fma,f16c",
    4,
    4,
    4
);
#[cfg(target_arch = "aarch64")]
entries!(neon, Neon, "neon", 4, 1, 8);
#[cfg(target_arch = "aarch64")]
entries!(dotprod, NeonDotprod, "neon,dotprod", 4, 1, 8);

/// # Safety
/// As for [`linear`].
unsafe fn scalar(job: &Job<'_>, rows: Range<usize>) {
    fn run<const BITS: usize, const S: u8, const Z: u8>(job: &Job<'_>, rows: Range<usize>) {
        // SAFETY: no features needed; the rest is promised by the caller of the
        // function around it.
        unsafe { products::<Scalar<BITS>, BITS, S, Z, 1, 1, 2>(job, rows) }
    }
    choose!(job, rows, run);
}

/// Computes the columns `rows` (rows of W) of `y`.
///
/// # Safety
/// `job.x` are encoded rows of [`Order`] for this backend and W's columns, and
/// `job.y` is as [`super::linear::linear`] asks.
pub(super) unsafe fn linear(backend: Backend, job: &Job<'_>, rows: Range<usize>) {
    let shape = Shape::new(job.w.blocks());
    // Rows that are no whole unit (the last ones of a matrix of an odd number of
    // rows), and the nibbles of zero points that do not continue from row to row.
    let whole = if shape.unit_rows == 4 && forms(job.w).1 == PACKED {
        0
    } else {
        job.w.rows() / shape.unit_rows * shape.unit_rows
    };
    let units = rows.start.min(whole)..rows.end.min(whole);
    if !units.is_empty() {
        // SAFETY: a Backend of a kind exists only where its features do; the rest
        // by the contract.
        unsafe {
            match backend.kind() {
                Kind::Scalar => scalar(job, units),
                #[cfg(target_arch = "x86_64")]
                Kind::Avx2 | Kind::Avx512 => avx2(job, units),
                #[cfg(target_arch = "x86_64")]
                Kind::Avx512Vnni => vnni(job, units),
                #[cfg(target_arch = "aarch64")]
                Kind::Neon => neon(job, units),
                #[cfg(target_arch = "aarch64")]
                Kind::NeonDotprod | Kind::NeonI8mm => dotprod(job, units),
            }
        }
    }
    for row in rows.start.max(whole)..rows.end {
        for t in 0..job.x_rows {
            // SAFETY: the row and column are inside y by the contract.
            unsafe { job.y.set(t, row, single(job, row, t)) };
        }
    }
}

/// The forms of the scales and the zero points.
fn forms(w: &BlockMatrix<'_>) -> (u8, u8) {
    let (_, scales, zero_points) = w.parts();
    let scales = match scales {
        Floats::F16(_) => F16,
        Floats::F32(_) => F32,
    };
    let zero_points = match zero_points {
        ZeroPoints::Symmetric => SYMMETRIC,
        ZeroPoints::Packed(_) => PACKED,
        ZeroPoints::Fractional(Floats::F16(_)) => FRACTIONAL_F16,
        ZeroPoints::Fractional(Floats::F32(_)) => FRACTIONAL_F32,
    };
    (scales, zero_points)
}

/// Where the unit that begins with row `row` lies.
#[inline(always)]
fn unit(w: &BlockMatrix<'_>, row: usize) -> Unit {
    let (quants, scales, zero_points) = w.parts();
    let block = row * w.blocks();
    let floats = |floats: Floats<'_>| -> *const u8 {
        match floats {
            Floats::F16(v) => v[block..].as_ptr().cast(),
            Floats::F32(v) => v[block..].as_ptr().cast(),
        }
    };
    Unit {
        quants: quants[block * w.bits().block_bytes()..].as_ptr(),
        scales: floats(scales),
        zero_points: match zero_points {
            ZeroPoints::Symmetric => std::ptr::null(),
            // Units' zero points continue from row to row, see `linear`.
            ZeroPoints::Packed(v) => match w.bits() {
                Bits::Four => v[block / 2..].as_ptr(),
                Bits::Eight => v[block..].as_ptr(),
            },
            ZeroPoints::Fractional(v) => floats(v),
        },
    }
}

/// The products of the units that hold `rows`: `D` units at a time with one row
/// of x, or `R` units with `T` rows.
///
/// # Safety
/// The backend's features; `rows` are of whole units; `job` as for [`linear`].
#[inline(always)]
unsafe fn products<
    G: Group,
    const BITS: usize,
    const S: u8,
    const Z: u8,
    const D: usize,
    const R: usize,
    const T: usize,
>(
    job: &Job<'_>,
    rows: Range<usize>,
) {
    let shape = Shape::new(job.w.blocks());
    let units = rows.start / shape.unit_rows..rows.end.div_ceil(shape.unit_rows);
    // Too few rows for a tile go one by one, others as a tile that computes its
    // last row again.
    let (whole, rest) = (job.x_rows / T * T, job.x_rows % T);
    let tiled = if rest * 2 >= T { job.x_rows } else { whole };
    let unit_bytes = shape.groups() * GROUP * job.w.bits().block_bytes();
    let stripe = (STRIPE_BYTES / unit_bytes / R).max(1) * R;
    let panel = (PANEL_BYTES / job.x_stride / T).max(1) * T;
    // SAFETY: features and places by the contract.
    unsafe {
        let mut start = units.start;
        while start < units.end && tiled > 0 {
            let end = (start + stripe).min(units.end);
            let mut first = 0;
            while first < tiled {
                let last = (first + panel).min(tiled);
                let mut u = start;
                while u < end {
                    let count = if u + R <= end { R } else { 1 };
                    let mut t = first;
                    while t < last {
                        let valid = T.min(last - t);
                        if count == R {
                            pass::<G, BITS, S, Z, R, T>(job, shape, &rows, u, t, valid);
                        } else {
                            pass::<G, BITS, S, Z, 1, T>(job, shape, &rows, u, t, valid);
                        }
                        t += T;
                    }
                    u += count;
                }
                first = last;
            }
            start = end;
        }
        let mut u = units.start;
        while u < units.end && tiled < job.x_rows {
            let count = if u + D <= units.end { D } else { 1 };
            for t in tiled..job.x_rows {
                if count == D {
                    pass::<G, BITS, S, Z, D, 1>(job, shape, &rows, u, t, 1);
                } else {
                    pass::<G, BITS, S, Z, 1, 1>(job, shape, &rows, u, t, 1);
                }
            }
            u += count;
        }
    }
}

/// Computes a tile and stores what lies in `rows`, of `valid` rows of x.
///
/// # Safety
/// The backend's features; units `u..u + R` and rows of x from `t` on exist.
#[inline(always)]
unsafe fn pass<
    G: Group,
    const BITS: usize,
    const S: u8,
    const Z: u8,
    const R: usize,
    const T: usize,
>(
    job: &Job<'_>,
    shape: Shape,
    rows: &Range<usize>,
    u: usize,
    t: usize,
    valid: usize,
) {
    let mut units = [unit(job.w, u * shape.unit_rows); R];
    for (i, unit_of) in units.iter_mut().enumerate().skip(1) {
        *unit_of = unit(job.w, (u + i) * shape.unit_rows);
    }
    let mut x = [job.x_row(t); T];
    for (i, row) in x.iter_mut().enumerate().take(valid).skip(1) {
        *row = job.x_row(t + i);
    }
    // SAFETY: features, units and rows by the contract; stored are rows and
    // columns of y only.
    unsafe {
        tile::<G, BITS, S, Z, R, T>(shape, units, x, |in_unit, r, i, value| {
            let row = (u + r) * shape.unit_rows + in_unit;
            if i < valid && rows.contains(&row) {
                job.y.set(t + i, row, value);
            }
        });
    }
}

/// One product, block by block, for the rows that fill no unit.
fn single(job: &Job<'_>, row: usize, t: usize) -> f32 {
    let mut total = 0.0;
    for block in 0..job.w.blocks() {
        // SAFETY: an encoded row of these columns, by the contract of `linear`.
        let (words, x_scale, x_sum) = unsafe { encode::read_block(job.x_row(t), job.order, block) };
        let (scale, zero_point) = job.w.scale_and_zero_point(row, block);
        let quants = &job.w.quants(row)[block * job.w.bits().block_bytes()..];
        let mut sum = 0;
        for (i, x) in words.as_flattened().iter().enumerate() {
            let quant = match job.w.bits() {
                Bits::Four => quants[i % (BLOCK / 2)] >> (i / (BLOCK / 2) * 4) & 15,
                Bits::Eight => quants[i],
            };
            sum += i32::from(quant) * i32::from(*x);
        }
        total += scale * x_scale * (sum as f32 - zero_point * x_sum as f32);
    }
    total
}
