//! `y = x Wᵀ` with 4- or 8-bit weights and int8 activations.
//!
//! Weights are used as they lie in the file. Decode reads each of them once: a
//! few rows of W share the loads of x. Prefill unpacks a group of W once for a
//! tile of rows of x, which pass block-wise through the caches.

mod ahead;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
pub(crate) mod encode;
mod group;
#[cfg(target_arch = "aarch64")]
mod neon;
#[cfg(any(target_arch = "aarch64", target_arch = "x86_64"))]
mod prefill;
mod scalar;
#[cfg(target_arch = "aarch64")]
mod strided;
mod tile;

use std::ops::Range;

use self::ahead::{Ahead, LINE};
use self::encode::{Order, Tiles};
use self::group::{GROUP, Group};
use self::tile::{FRACTIONAL, OTHER, PACKED, SYMMETRIC, Shape, Sink, Steps, Unit, tile};
use super::backend::{Backend, Kind};
use super::blocks::{BLOCK, Bits, BlockMatrix, Floats, ZeroPoints};
use super::linear::Output;

pub(crate) use self::ahead::Then;

/// Bytes of encoded rows that pass together: they stay in the first cache of
/// 32 KB while the rows of W pass.
const PANEL_BYTES: usize = 24 << 10;
/// Bytes of W that pass together: they stay in a core's share of the second cache
/// while the panels pass.
const STRIPE_BYTES: usize = 96 << 10;

/// The order in which a backend meets quants of `bits`.
pub(super) fn order(backend: Backend, bits: Bits) -> Order {
    let (across, tiles) = match backend.kind() {
        #[cfg(target_arch = "x86_64")]
        Kind::Avx512Vnni => (false, Tiles::Rows),
        #[cfg(target_arch = "aarch64")]
        Kind::NeonDotprod => (true, Tiles::Rows),
        #[cfg(target_arch = "aarch64")]
        Kind::NeonI8mm => (true, Tiles::Pairs),
        _ => (false, Tiles::None),
    };
    Order {
        bits,
        across,
        tiles: match bits {
            Bits::Four => tiles,
            Bits::Eight => Tiles::None,
        },
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
    /// What this thread reads next: a hint.
    pub(super) then: Option<Then<'a>>,
}

impl Job<'_> {
    fn x_row(&self, t: usize) -> *const u8 {
        self.x.wrapping_add(t * self.x_stride)
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
            fn run<const BITS: usize, const F: u8>(job: &Job<'_>, rows: Range<usize>) {
                // SAFETY: this function has the features; the rest is promised
                // by the caller of the function around it.
                unsafe {
                    products::<$group<BITS>, BITS, F, $decode, $units, $rows>(job, rows);
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
        match ($job.w.bits(), form($job.w)) {
            (Bits::Four, SYMMETRIC) => $run::<4, SYMMETRIC>($job, $rows),
            (Bits::Four, PACKED) => $run::<4, PACKED>($job, $rows),
            (Bits::Four, FRACTIONAL) => $run::<4, FRACTIONAL>($job, $rows),
            (Bits::Four, _) => $run::<4, OTHER>($job, $rows),
            (Bits::Eight, SYMMETRIC) => $run::<8, SYMMETRIC>($job, $rows),
            (Bits::Eight, PACKED) => $run::<8, PACKED>($job, $rows),
            (Bits::Eight, FRACTIONAL) => $run::<8, FRACTIONAL>($job, $rows),
            (Bits::Eight, _) => $run::<8, OTHER>($job, $rows),
        }
    }};
}

use scalar::Scalar;
#[cfg(target_arch = "x86_64")]
use {avx2::Avx2, avx512::Avx512};
#[cfg(target_arch = "aarch64")]
use {neon::Neon, neon::NeonDotprod};

#[cfg(target_arch = "x86_64")]
entries!(avx2, Avx2, "avx2,fma,f16c", 4, 1, 4);
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
entries!(neon, Neon, "neon", 8, 1, 8);
#[cfg(target_arch = "aarch64")]
entries!(dotprod, NeonDotprod, "neon,dotprod", 8, 1, 8);

/// # Safety
/// As for [`linear`].
unsafe fn scalar(job: &Job<'_>, rows: Range<usize>) {
    fn run<const BITS: usize, const F: u8>(job: &Job<'_>, rows: Range<usize>) {
        // SAFETY: no features needed; the rest is promised by the caller of the
        // function around it.
        unsafe { products::<Scalar<BITS>, BITS, F, 4, 1, 4>(job, rows) }
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
    let whole = job.w.rows() - shape.rest(job.w.rows());
    let units = rows.start.min(whole)..rows.end.min(whole);
    let tiles = job.order.tiles(job.x_rows);
    // SAFETY: a Backend of a kind exists only where its features do; so many rows
    // are encoded in tiles; the rest by the contract.
    unsafe {
        match backend.kind() {
            _ if tiles == 0 || rows.is_empty() => {}
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512Vnni => prefill::vnni(job, rows.clone(), tiles),
            #[cfg(target_arch = "aarch64")]
            Kind::NeonDotprod => prefill::sdot(job, rows.clone(), tiles),
            #[cfg(target_arch = "aarch64")]
            Kind::NeonI8mm => prefill::smmla(job, rows.clone(), tiles),
            _ => unreachable!("{backend:?} has no tiles, see `order`"),
        }
    }
    // The rows of x that fill no tile.
    let done = tiles * encode::TILE;
    let job = &Job {
        x: job.x_row(done),
        x_rows: job.x_rows - done,
        y: job.y.at(done, 0),
        ..*job
    };
    if job.x_rows == 0 {
        return;
    }
    if !units.is_empty() {
        // SAFETY: as above.
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

/// The form of the weights' scales and zero points.
fn form(w: &BlockMatrix<'_>) -> u8 {
    let (_, scales, zero_points) = w.parts();
    match (scales, zero_points) {
        (Floats::F16(_), ZeroPoints::Symmetric) => SYMMETRIC,
        (Floats::F16(_), ZeroPoints::Packed(_)) => PACKED,
        (Floats::F16(_), ZeroPoints::Fractional(Floats::F16(_))) => FRACTIONAL,
        _ => OTHER,
    }
}

/// Bytes of `blocks` blocks' quants, scales and zero points. Nibbles of zero
/// points fill whole bytes.
fn bytes(w: &BlockMatrix<'_>, blocks: usize) -> [usize; 3] {
    let (_, scales, zero_points) = w.parts();
    let float = |floats: Floats<'_>| match floats {
        Floats::F16(_) => 2,
        Floats::F32(_) => 4,
    };
    let zero_points = match zero_points {
        ZeroPoints::Symmetric => 0,
        ZeroPoints::Packed(_) => w.bits().zero_point_bytes(blocks),
        ZeroPoints::Fractional(v) => blocks * float(v),
    };
    [
        blocks * w.bits().block_bytes(),
        blocks * float(scales),
        zero_points,
    ]
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
            // Nibbles of a row begin at a byte.
            ZeroPoints::Packed(v) => match w.bits() {
                Bits::Four => v[row * w.blocks().div_ceil(2)..].as_ptr(),
                Bits::Eight => v[block..].as_ptr(),
            },
            ZeroPoints::Fractional(v) => floats(v),
        },
    }
}

/// The products of `rows`, of whole units but for the first and the last: `D`
/// units at a time with one row of x, or `R` units with `T` rows.
///
/// # Safety
/// The backend's features; the units that hold `rows` can be read, see
/// [`Shape::rest`]; `job` as for [`linear`].
#[inline(always)]
unsafe fn products<
    G: Group,
    const BITS: usize,
    const F: u8,
    const D: usize,
    const R: usize,
    const T: usize,
>(
    job: &Job<'_>,
    rows: Range<usize>,
) {
    let shape = Shape::new(job.w.blocks());
    let of_group = bytes(job.w, GROUP);
    let pass = Pass {
        job,
        shape,
        steps: Steps {
            scales: of_group[1],
            zero_points: of_group[2],
            integers: matches!(job.w.parts().2, ZeroPoints::Packed(_)),
            unit: bytes(job.w, shape.blocks * shape.unit_rows),
        },
        of_groups: of_group.map(|bytes| bytes * shape.groups()),
        ahead: Ahead::new(job, &rows),
        rows: rows.clone(),
    };
    // The units of which all rows are wanted, and the others.
    let units = rows.start.div_ceil(shape.unit_rows)..rows.end / shape.unit_rows;
    let around = rows.start / shape.unit_rows..rows.end.div_ceil(shape.unit_rows);
    // The rows of x that fill no tile go one by one.
    let tiled = job.x_rows / T * T;
    let stripe = (STRIPE_BYTES / pass.steps.unit[0] / (R * D)).max(1) * R * D;
    let panel = (PANEL_BYTES / job.x_stride / T).max(1) * T;
    // SAFETY: features and places by the contract.
    unsafe {
        for start in units.clone().step_by(stripe) {
            let end = (start + stripe).min(units.end);
            for first in (0..tiled).step_by(panel) {
                let last = (first + panel).min(tiled);
                let mut u = start;
                while u < end {
                    let whole = u + R <= end;
                    for t in (first..last).step_by(T) {
                        if whole {
                            pass.run::<G, BITS, F, R, T, false>(u..u + R, t);
                        } else {
                            pass.run::<G, BITS, F, 1, T, false>(u..u + 1, t);
                        }
                    }
                    u += if whole { R } else { 1 };
                }
            }
            for t in tiled..job.x_rows {
                let middle = start + (end - start) / D * D;
                pass.run::<G, BITS, F, D, 1, false>(start..middle, t);
                pass.run::<G, BITS, F, 1, 1, false>(middle..end, t);
            }
        }
        for t in 0..job.x_rows {
            let first = around.start..units.start.min(around.end);
            pass.run::<G, BITS, F, 1, 1, true>(first.clone(), t);
            pass.run::<G, BITS, F, 1, 1, true>(units.end.max(first.end)..around.end, t);
        }
    }
}

/// What all tiles of a call share.
struct Pass<'a> {
    job: &'a Job<'a>,
    shape: Shape,
    steps: Steps,
    /// Bytes that are read of a unit.
    of_groups: [usize; 3],
    ahead: Ahead,
    rows: Range<usize>,
}

impl Pass<'_> {
    /// Computes units, `R` at a time, with the rows of x from `t` on.
    ///
    /// # Safety
    /// The backend's features; a multiple of `R` units that can be read, and `T`
    /// rows of x.
    #[inline(always)]
    unsafe fn run<
        G: Group,
        const BITS: usize,
        const F: u8,
        const R: usize,
        const T: usize,
        const CHECK: bool,
    >(
        &self,
        units: Range<usize>,
        t: usize,
    ) {
        if units.is_empty() {
            return;
        }
        let first = units.start * self.shape.unit_rows;
        let mut at = [unit(self.job.w, first); R];
        for i in 1..R {
            at[i] = at[i - 1].offset(self.steps.unit.map(|bytes| bytes as isize));
        }
        // From behind a unit to the one `R` units on.
        let mut on = [0; 3];
        for (i, on) in on.iter_mut().enumerate() {
            *on = (R * self.steps.unit[i]) as isize - self.of_groups[i] as isize;
        }
        let mut x = [self.job.x_row(t); T];
        for (i, row) in x.iter_mut().enumerate().skip(1) {
            *row = self.job.x_row(t + i);
        }
        let mut sink = Sink {
            y: self.job.y,
            first,
            row: t,
            within: self.rows.clone(),
        };
        for _ in (units.start..units.end).step_by(R) {
            let ahead = |kind, place| self.ahead.of(kind, place);
            let asked = ahead(0, at[0].quants);
            // SAFETY: features, units and rows by the contract; stored are rows
            // and columns of y only.
            unsafe {
                if T == 1 {
                    for (kind, place) in at[0].places().into_iter().enumerate().skip(1) {
                        let place = ahead(kind, place);
                        for line in (0..R * self.steps.unit[kind]).step_by(LINE) {
                            G::prefetch(place.wrapping_add(line));
                        }
                    }
                }
                tile::<G, BITS, F, R, T, CHECK>(self.shape, &self.steps, &mut at, x, asked, &sink);
            }
            for unit in &mut at {
                *unit = unit.offset(on);
            }
            sink.first += R * self.shape.unit_rows;
        }
    }
}

/// One product, block by block, for the rows that fill no unit.
fn single(job: &Job<'_>, row: usize, t: usize) -> f32 {
    let mut total = 0.0;
    for block in 0..job.w.blocks() {
        // SAFETY: an encoded row of these columns, by the contract of `linear`.
        let (words, x_scale, x_sum) = unsafe {
            let place = encode::Place::new(job.order, job.w.columns(), job.x_rows, t);
            encode::read_block(job.x, place, block)
        };
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
