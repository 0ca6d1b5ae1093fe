//! The products: rows of W times rows of x, group by group.
//!
//! Rows whose blocks do not fill whole groups are taken together as a *unit*,
//! the fewest rows that do: one row when it has a multiple of 4 blocks, two of
//! 18 blocks (9 groups), four of an odd number. Rows follow each other in the
//! file, so a unit is one long row; the encoded activations repeat x to match it.
//! In a group where one row ends and the next begins the blocks' lanes are
//! parted between them.
//!
//! What is computed for a row of W and a row of x is the same, to the bit,
//! whatever other rows are computed with it and on however many threads.

use super::group::{GROUP, Group};

/// The forms of scales.
pub(super) const F16: u8 = 0;
pub(super) const F32: u8 = 1;

/// The forms of zero points.
pub(super) const SYMMETRIC: u8 = 0;
pub(super) const PACKED: u8 = 1;
pub(super) const FRACTIONAL_F16: u8 = 2;
pub(super) const FRACTIONAL_F32: u8 = 3;

/// Where a unit's weights lie.
#[derive(Clone, Copy)]
pub(super) struct Unit {
    pub(super) quants: *const u8,
    /// f16 or f32, one a block.
    pub(super) scales: *const u8,
    /// Nibbles or bytes, or f16 or f32, one a block; not read if symmetric.
    pub(super) zero_points: *const u8,
}

/// Where an encoded row of activations lies, see [`super::encode`].
#[derive(Clone, Copy)]
pub(super) struct Row {
    pub(super) quants: *const i8,
    /// For each group, four scales (f32) and four sums (i32, negated).
    pub(super) blocks: *const u8,
}

/// Bytes of a group's scales and sums in an encoded row.
pub(super) const BLOCKS_BYTES: usize = 2 * GROUP * 4;

/// The scale and zero point of a group of W.
#[derive(Clone, Copy)]
struct Params<G: Group> {
    scales: G::Lanes,
    ints: G::Ints,
    lanes: G::Lanes,
}

/// # Safety
/// The backend's features; group `g` exists in `unit`.
#[inline(always)]
unsafe fn params<G: Group, const BITS: usize, const S: u8, const Z: u8>(
    unit: Unit,
    g: usize,
) -> Params<G> {
    // SAFETY: features and the group by the contract.
    unsafe {
        let scales = if S == F16 {
            G::f16s(unit.scales.add(g * GROUP * 2).cast())
        } else {
            G::f32s(unit.scales.add(g * GROUP * 4).cast())
        };
        let zero_points = unit.zero_points;
        let lanes = match Z {
            FRACTIONAL_F16 => G::f16s(zero_points.add(g * GROUP * 2).cast()),
            FRACTIONAL_F32 => G::f32s(zero_points.add(g * GROUP * 4).cast()),
            _ => scales,
        };
        let ints = if Z == PACKED {
            G::zero_points(zero_points.add(g * GROUP * BITS / 8))
        } else {
            G::ints([0; GROUP].as_ptr())
        };
        Params {
            scales,
            ints,
            lanes,
        }
    }
}

/// The scales and sums of a group of x.
#[derive(Clone, Copy)]
struct Sums<G: Group> {
    scales: G::Lanes,
    sums: G::Ints,
    symmetric: G::Ints,
}

/// # Safety
/// The backend's features; group `g` exists in `row`.
#[inline(always)]
unsafe fn sums<G: Group>(row: Row, g: usize) -> Sums<G> {
    // SAFETY: features and the group by the contract.
    unsafe {
        let at = row.blocks.add(g * BLOCKS_BYTES);
        let sums = G::ints(at.add(GROUP * 4).cast());
        Sums {
            scales: G::f32s(at.cast()),
            sums,
            symmetric: G::symmetric(sums),
        }
    }
}

/// `sum + w x` of a group.
///
/// # Safety
/// The backend's features.
#[inline(always)]
unsafe fn accumulate<G: Group, const Z: u8>(
    sum: G::Lanes,
    w: G::Weights,
    of_w: Params<G>,
    x: G::Activations,
    of_x: Sums<G>,
) -> G::Lanes {
    // SAFETY: features by the contract.
    unsafe {
        let scales = G::mul(of_w.scales, of_x.scales);
        match Z {
            SYMMETRIC => G::mul_add(scales, G::dot(w, x, of_x.symmetric), sum),
            PACKED => {
                let start = G::mul_ints(of_w.ints, of_x.sums);
                G::mul_add(scales, G::dot(w, x, start), sum)
            }
            _ => {
                let start = G::ints([0; GROUP].as_ptr());
                let bias = G::add(of_w.lanes, G::splat(-G::BIAS));
                let offset = G::mul(bias, G::to_lanes(of_x.sums));
                G::mul_add(scales, G::add(G::dot(w, x, start), offset), sum)
            }
        }
    }
}

/// The shape of the products.
#[derive(Clone, Copy)]
pub(super) struct Shape {
    /// Blocks in a row.
    pub(super) blocks: usize,
    /// Rows in a unit.
    pub(super) unit_rows: usize,
}

impl Shape {
    pub(super) fn new(blocks: usize) -> Self {
        let unit_rows = match blocks % GROUP {
            0 => 1,
            2 => 2,
            _ => 4,
        };
        Self { blocks, unit_rows }
    }

    /// Groups in a unit.
    pub(super) fn groups(self) -> usize {
        self.blocks * self.unit_rows / GROUP
    }
}

/// Computes `R` units against `T` rows of x and hands `(row in the unit, unit,
/// row of x, product)` to `store`.
///
/// # Safety
/// The backend's features; units and rows of `shape`.
#[inline(always)]
pub(super) unsafe fn tile<
    G: Group,
    const BITS: usize,
    const S: u8,
    const Z: u8,
    const R: usize,
    const T: usize,
>(
    shape: Shape,
    units: [Unit; R],
    rows: [Row; T],
    mut store: impl FnMut(usize, usize, usize, f32),
) {
    // SAFETY: features by the contract; all groups are below `shape.groups()`.
    unsafe {
        let mut totals = [[G::splat(0.0); T]; R];
        let mut g = 0;
        for row in 0..shape.unit_rows {
            let end = (row + 1) * shape.blocks;
            while g < end / GROUP {
                group::<G, BITS, S, Z, R, T>(g, &units, &rows, &mut totals);
                g += 1;
            }
            let mut rest = [[G::splat(0.0); T]; R];
            if end % GROUP != 0 {
                // The row ends within this group: the next row begins with the
                // other lanes.
                group::<G, BITS, S, Z, R, T>(g, &units, &rows, &mut rest);
                g += 1;
                for r in 0..R {
                    for t in 0..T {
                        let (own, next) = G::split(rest[r][t], end % GROUP);
                        totals[r][t] = G::add(totals[r][t], own);
                        rest[r][t] = next;
                    }
                }
            }
            for r in 0..R {
                for t in 0..T {
                    store(row, r, t, G::sum(totals[r][t]));
                    totals[r][t] = rest[r][t];
                }
            }
        }
    }
}

/// Adds a group's products to `totals`.
///
/// # Safety
/// The backend's features; group `g` exists in all.
#[inline(always)]
unsafe fn group<
    G: Group,
    const BITS: usize,
    const S: u8,
    const Z: u8,
    const R: usize,
    const T: usize,
>(
    g: usize,
    units: &[Unit; R],
    rows: &[Row; T],
    totals: &mut [[G::Lanes; T]; R],
) {
    const { assert!(R == 1 || T == 1 || R * T <= 32) };
    // SAFETY: features and the group by the contract.
    unsafe {
        let (x_bytes, w_bytes) = (GROUP * 32, GROUP * 4 * BITS);
        if T == 1 {
            // The activations stay in registers, the weights pass.
            let x = G::activations(rows[0].quants.add(g * x_bytes));
            let of_x = sums::<G>(rows[0], g);
            for r in 0..R {
                let w = G::weights(units[r].quants.add(g * w_bytes));
                let of_w = params::<G, BITS, S, Z>(units[r], g);
                totals[r][0] = accumulate::<G, Z>(totals[r][0], w, of_w, x, of_x);
            }
        } else {
            // The weights stay, the activations pass.
            let mut w = [G::weights(units[0].quants.add(g * w_bytes)); R];
            let mut of_w = [params::<G, BITS, S, Z>(units[0], g); R];
            for r in 1..R {
                w[r] = G::weights(units[r].quants.add(g * w_bytes));
                of_w[r] = params::<G, BITS, S, Z>(units[r], g);
            }
            for t in 0..T {
                let x = G::activations(rows[t].quants.add(g * x_bytes));
                let of_x = sums::<G>(rows[t], g);
                for r in 0..R {
                    totals[r][t] = accumulate::<G, Z>(totals[r][t], w[r], of_w[r], x, of_x);
                }
            }
        }
    }
}
