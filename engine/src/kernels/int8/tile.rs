//! The products: rows of W times rows of x, group by group.
//!
//! A row of an even number of blocks that is no multiple of 4 is taken together
//! with the next as a *unit* that fills whole groups: two rows of 18 blocks are
//! one of 9 groups. Rows follow each other in the file, so a unit is one long row;
//! the encoded activations repeat x to match it. The lanes of the group in the
//! middle are parted between the two. Of a row of an odd number of blocks the last
//! group reads on into the next row, and the encoded activations there are zero.
//!
//! What is computed for a row of W and a row of x is the same, to the bit,
//! whatever other rows are computed with it and on however many threads.

use std::ops::Range;

use super::ahead::LINE;
use super::group::{GROUP, Group};
use crate::kernels::linear::Output;

/// Runs the body with `$i` as 0, 1, ... below `$n`, written out: the compiler
/// leaves loops around that much code as they are, with the sums in memory
/// instead of registers.
macro_rules! unrolled {
    ($i:ident below $n:ident $body:block) => {{
        unrolled!(@ $i $n $body 0 1 2 3 4 5 6 7);
    }};
    (@ $i:ident $n:ident $body:block $($value:literal)*) => {
        $(
            if $value < $n {
                let $i = $value;
                $body
            }
        )*
    };
}

/// The forms of weights: f16 scales and the middle of the range as zero point,
pub(super) const SYMMETRIC: u8 = 0;
/// f16 scales and integer zero points,
pub(super) const PACKED: u8 = 1;
/// f16 scales and zero points in f16,
pub(super) const FRACTIONAL: u8 = 2;
/// or any other, looked up in [`Steps`].
pub(super) const OTHER: u8 = 3;

/// Where a unit's weights lie.
#[derive(Clone, Copy)]
pub(super) struct Unit {
    pub(super) quants: *const u8,
    pub(super) scales: *const u8,
    /// Not read if symmetric.
    pub(super) zero_points: *const u8,
}

impl Unit {
    /// The places of quants, scales and zero points.
    pub(super) fn places(self) -> [*const u8; 3] {
        [self.quants, self.scales, self.zero_points]
    }

    /// The place so many bytes further on; may be outside, and is then not read.
    #[inline(always)]
    pub(super) fn offset(self, by: [isize; 3]) -> Self {
        Self {
            quants: self.quants.wrapping_offset(by[0]),
            scales: self.scales.wrapping_offset(by[1]),
            zero_points: self.zero_points.wrapping_offset(by[2]),
        }
    }
}

/// Bytes of a group's scales, bytes and kind of its zero points, and bytes of a unit.
#[derive(Clone, Copy)]
pub(super) struct Steps {
    pub(super) scales: usize,
    pub(super) zero_points: usize,
    /// Zero points are integers.
    pub(super) integers: bool,
    /// Bytes from unit to unit: of quants, of scales, of zero points.
    pub(super) unit: [usize; 3],
}

/// The scale and zero point of a group of W.
#[derive(Clone, Copy)]
struct Params<G: Group> {
    scales: G::Lanes,
    ints: G::Ints,
    lanes: G::Lanes,
}

/// Reads a group's scales and zero points and goes on to the next group's.
///
/// # Safety
/// The backend's features; a group is left in `unit`.
#[inline(always)]
unsafe fn params<G: Group, const BITS: usize, const F: u8>(
    unit: &mut Unit,
    steps: &Steps,
) -> Params<G> {
    let steps = match F {
        SYMMETRIC => Steps {
            scales: GROUP * 2,
            zero_points: 0,
            integers: false,
            ..*steps
        },
        PACKED => Steps {
            scales: GROUP * 2,
            zero_points: GROUP * BITS / 8,
            integers: true,
            ..*steps
        },
        FRACTIONAL => Steps {
            scales: GROUP * 2,
            zero_points: GROUP * 2,
            integers: false,
            ..*steps
        },
        _ => *steps,
    };
    // SAFETY: features and the group by the contract.
    unsafe {
        let scales = if steps.scales == GROUP * 2 {
            G::f16s(unit.scales.cast())
        } else {
            G::f32s(unit.scales.cast())
        };
        let at = unit.zero_points;
        let (mut ints, mut lanes) = (G::zero(), scales);
        if steps.zero_points == 0 {
            // The middle of the range.
            lanes = G::splat([8.0, 128.0][BITS / 8]);
        } else if steps.integers && F == PACKED {
            ints = G::zero_points(at);
        } else if steps.integers {
            lanes = G::add(G::to_lanes(G::zero_points(at)), G::splat(G::BIAS));
        } else if steps.zero_points == GROUP * 2 {
            lanes = G::f16s(at.cast());
        } else {
            lanes = G::f32s(at.cast());
        }
        unit.scales = unit.scales.add(steps.scales);
        unit.zero_points = at.wrapping_add(steps.zero_points);
        Params {
            scales,
            ints,
            lanes,
        }
    }
}

/// The scales of a group of x, and minus eight times the sums of its blocks.
#[derive(Clone, Copy)]
struct Sums<G: Group> {
    scales: G::Lanes,
    sums: G::Ints,
}

/// # Safety
/// The backend's features; a group's record at `from`.
#[inline(always)]
unsafe fn sums<G: Group>(from: *const u8) -> Sums<G> {
    // SAFETY: features and the record by the contract.
    unsafe {
        Sums {
            scales: G::f32s(from.add(GROUP * 32).cast()),
            sums: G::ints(from.add(GROUP * 36).cast()),
        }
    }
}

/// `sum + w x` of a group.
///
/// # Safety
/// The backend's features.
#[inline(always)]
unsafe fn accumulate<G: Group, const BITS: usize, const F: u8>(
    sum: G::Lanes,
    w: G::Weights,
    of_w: Params<G>,
    x: G::Activations,
    of_x: Sums<G>,
) -> G::Lanes {
    // SAFETY: features by the contract.
    unsafe {
        let scales = G::mul(of_w.scales, of_x.scales);
        let products = match F {
            // 8 times the sums is what 4 bits need; the bias what 8 bits do.
            SYMMETRIC if BITS == 4 => G::dot(w, x, of_x.sums),
            SYMMETRIC if G::BIAS != 0.0 => G::dot(w, x, G::zero()),
            PACKED => G::dot(w, x, G::mul_ints_by_eighth(of_w.ints, of_x.sums)),
            _ => {
                let zero_point = G::add(of_w.lanes, G::splat(-G::BIAS));
                let eighth = G::mul(zero_point, G::splat(1.0 / 8.0));
                let offset = G::mul(eighth, G::to_lanes(of_x.sums));
                G::add(G::dot(w, x, G::zero()), offset)
            }
        };
        G::mul_add(scales, products, sum)
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
        let unit_rows = if blocks % GROUP == 2 { 2 } else { 1 };
        Self { blocks, unit_rows }
    }

    /// Groups in a unit.
    pub(super) fn groups(self) -> usize {
        (self.blocks * self.unit_rows).div_ceil(GROUP)
    }

    /// Rows that cannot be read as units at the end of a matrix of `rows`: of an
    /// odd number, or with nothing left to read on into.
    pub(super) fn rest(self, rows: usize) -> usize {
        if self.unit_rows == 2 {
            rows % 2
        } else {
            (self.groups() * GROUP - self.blocks).div_ceil(self.blocks)
        }
        .min(rows)
    }
}

/// Where a tile's products go.
#[derive(Clone)]
pub(super) struct Sink {
    pub(super) y: Output,
    /// The first row of W, that is column of y, in the tile.
    pub(super) first: usize,
    /// The first row of y.
    pub(super) row: usize,
    /// The columns of y that may be written, where a tile may have others.
    pub(super) within: Range<usize>,
}

impl Sink {
    /// Stores four products, the rows of W and of y of each given by `place`.
    ///
    /// # Safety
    /// The places are the tile's and hence in y, unless checked and excluded.
    #[inline(always)]
    unsafe fn set<const CHECK: bool>(
        &self,
        values: [f32; 4],
        place: impl Fn(usize) -> (usize, usize),
    ) {
        for (i, value) in values.into_iter().enumerate() {
            let (unit_row, t) = place(i);
            let column = self.first + unit_row;
            if !CHECK || self.within.contains(&column) {
                // SAFETY: by the contract.
                unsafe { self.y.set(self.row + t, column, value) };
            }
        }
    }
}

/// Computes `R` units against `T` rows of x and leaves `units` behind their last
/// groups (where they are strided, the first one only). Meanwhile asks for as many quants from `asked` on if `T` is 1. `CHECK`: only
/// the columns within the sink's are stored.
///
/// # Safety
/// The backend's features; units of `shape` and encoded rows of as many groups;
/// the sink's output has place for the products.
#[inline(always)]
pub(super) unsafe fn tile<
    G: Group,
    const BITS: usize,
    const F: u8,
    const R: usize,
    const T: usize,
    const CHECK: bool,
>(
    shape: Shape,
    steps: &Steps,
    units: &mut [Unit; R],
    mut x: [*const u8; T],
    mut asked: *const u8,
    sink: &Sink,
) {
    const {
        assert!((R == 1 || R.is_multiple_of(4)) && T == 1 || T.is_multiple_of(4));
        assert!(R <= 8 && T <= 8);
    }
    // SAFETY: features by the contract; as many groups as there are.
    unsafe {
        let mut totals = [[G::splat(0.0); T]; R];
        let strided = F == SYMMETRIC && T == 1 && R == G::STRIDED;
        // A macro, as a closure would lack the target features.
        macro_rules! add_groups {
            ($count:expr) => {{
                if strided {
                    let strides = [steps.unit[0], steps.unit[1]];
                    G::strided($count, &mut units[0], strides, &mut x[0], &mut totals);
                } else {
                    for _ in 0..$count {
                        group::<G, BITS, F, R, T>(steps, units, &mut x, &mut asked, &mut totals);
                    }
                }
            }};
        }
        let groups = shape.groups() / shape.unit_rows;
        add_groups!(groups);
        if shape.unit_rows == 1 {
            if T > 1 {
                unrolled!(r below R {
                    let of = &totals[r];
                    let four = [of[0], of[1 % T], of[2 % T], of[3 % T]];
                    sink.set::<CHECK>(G::sums(four), |i| (r, i));
                    if T == 8 {
                        let four = [of[4 % T], of[5 % T], of[6 % T], of[7 % T]];
                        sink.set::<CHECK>(G::sums(four), |i| (r, 4 + i));
                    }
                });
            } else if R > 1 {
                let of = |r: usize| totals[r % R][0];
                sink.y
                    .set_all(sink.row, sink.first, G::sums([of(0), of(1), of(2), of(3)]));
                if R == 8 {
                    let four = [of(4), of(5), of(6), of(7)];
                    sink.y.set_all(sink.row, sink.first + 4, G::sums(four));
                }
            } else {
                let sums = G::sums([totals[0][0]; 4]);
                sink.set::<CHECK>([sums[0]; 4], |_| (0, 0));
            }
            return;
        }
        // The group in the middle ends the first rows' sums and begins the others'. Two
        // units' (or, with several rows of x, two rows') first sums are kept together.
        let mut first = totals;
        unrolled!(r below R {
            unrolled!(t below T {
                totals[r][t] = G::fold(totals[r][t]);
            });
        });
        add_groups!(1);
        unrolled!(r below R {
            unrolled!(t below T {
                if T > 1 && t % 2 == 0 {
                    first[r][t] = G::pack(totals[r][t], totals[r][(t + 1) % T]);
                } else if T == 1 && r % 2 == 0 {
                    first[r][0] = G::pack(totals[r][0], totals[(r + 1) % R][0]);
                }
            });
        });
        unrolled!(r below R {
            unrolled!(t below T {
                totals[r][t] = G::upper(totals[r][t]);
            });
        });
        add_groups!(groups);
        macro_rules! pairs {
            ($r:expr, $t:expr, $s:expr, $u:expr) => {{
                let (r, t, s, u) = ($r % R, $t % T, $s % R, $u % T);
                G::sums_between(first[r][t], [totals[r][t], totals[s][u]])
            }};
        }
        if T > 1 {
            unrolled!(r below R {
                let place = |t: usize| move |i: usize| (2 * r + i % 2, t + i / 2);
                sink.set::<CHECK>(pairs!(r, 0, r, 1), place(0));
                sink.set::<CHECK>(pairs!(r, 2, r, 3), place(2));
                if T == 8 {
                    sink.set::<CHECK>(pairs!(r, 4, r, 5), place(4));
                    sink.set::<CHECK>(pairs!(r, 6, r, 7), place(6));
                }
            });
        } else if R > 1 {
            sink.y.set_all(sink.row, sink.first, pairs!(0, 0, 1, 0));
            sink.y.set_all(sink.row, sink.first + 4, pairs!(2, 0, 3, 0));
            if R == 8 {
                sink.y.set_all(sink.row, sink.first + 8, pairs!(4, 0, 5, 0));
                sink.y
                    .set_all(sink.row, sink.first + 12, pairs!(6, 0, 7, 0));
            }
        } else {
            sink.set::<CHECK>(pairs!(0, 0, 0, 0), |i| (i % 2, 0));
        }
    }
}

/// Adds a group's products to `totals` and goes on to the next group. `asked` is
/// what is asked for meanwhile, in the order in which it lies.
///
/// # Safety
/// The backend's features; a group is left in all.
#[inline(always)]
unsafe fn group<G: Group, const BITS: usize, const F: u8, const R: usize, const T: usize>(
    steps: &Steps,
    units: &mut [Unit; R],
    x: &mut [*const u8; T],
    asked: &mut *const u8,
    totals: &mut [[G::Lanes; T]; R],
) {
    // SAFETY: features and the group by the contract.
    unsafe {
        let bytes = GROUP * 4 * BITS;
        if T == 1 {
            // The activations stay in registers, the weights pass.
            let values = G::activations(x[0].cast());
            let of_x = sums::<G>(x[0]);
            x[0] = x[0].add(G::RECORD);
            let ahead = *asked;
            *asked = ahead.wrapping_add(R * bytes);
            unrolled!(r below R {
                let w = G::weights(units[r].quants);
                for line in (0..bytes).step_by(LINE) {
                    G::prefetch(ahead.wrapping_add(r * bytes + line));
                }
                units[r].quants = units[r].quants.add(bytes);
                let of_w = params::<G, BITS, F>(&mut units[r], steps);
                let total = accumulate::<G, BITS, F>(totals[r][0], w, of_w, values, of_x);
                totals[r][0] = total;
                if r + 1 < R {
                    units[r + 1].quants = G::after(units[r + 1].quants, total);
                    units[r + 1].scales = G::after(units[r + 1].scales, total);
                }
            });
        } else {
            // The weights stay, the activations pass.
            let mut w = [G::weights(units[0].quants); R];
            let mut of_w = [params::<G, BITS, F>(&mut units[0], steps); R];
            units[0].quants = units[0].quants.add(bytes);
            unrolled!(r below R {
                if r > 0 {
                    w[r] = G::weights(units[r].quants);
                    of_w[r] = params::<G, BITS, F>(&mut units[r], steps);
                    units[r].quants = units[r].quants.add(bytes);
                }
            });
            unrolled!(t below T {
                let values = G::activations(x[t].cast());
                let of_x = sums::<G>(x[t]);
                x[t] = x[t].add(G::RECORD);
                unrolled!(r below R {
                    totals[r][t] =
                        accumulate::<G, BITS, F>(totals[r][t], w[r], of_w[r], values, of_x);
                });
                if t + 1 < T {
                    x[t + 1] = G::after(x[t + 1], totals[0][t]);
                }
            });
        }
    }
}
