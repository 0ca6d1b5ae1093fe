//! What decode asks the memory for while it computes.
//!
//! Decode waits for its weights. The processor's own prefetching ends with a page
//! and begins anew with each matrix, so the products ask for what lies a fixed
//! distance ahead, in the order of the file. Where a thread's rows end it goes on
//! with those that it reads next: the memory is never idle.

use std::ops::Range;

use super::{Job, bytes, unit};
use crate::kernels::blocks::BlockMatrix;

/// Bytes of quants that are asked for ahead of those in use. Measured among 4 to
/// 64 KB with `chaski bench`: 8 KB is best for matrices of short rows and as good as
/// any for long ones.
const DISTANCE: usize = 8 << 10;

/// A cache line.
pub(super) const LINE: usize = 64;

/// Where a thread goes on reading when it is done with the rows at hand: row `.1`
/// of `.0`.
pub(crate) type Then<'a> = (BlockMatrix<'a>, usize);

/// What is ahead of quants, scales or zero points.
#[derive(Clone, Copy)]
struct Stretch {
    distance: usize,
    /// The end of the rows at hand, and what is read after them.
    end: *const u8,
    then: *const u8,
}

/// What is ahead of the quants, scales and zero points of some rows.
#[derive(Clone, Copy)]
pub(super) struct Ahead([Stretch; 3]);

impl Ahead {
    /// Of the rows of a job.
    pub(super) fn new(job: &Job<'_>, rows: &Range<usize>) -> Self {
        let w = job.w;
        let of_row = bytes(w, w.blocks());
        let end = unit(w, rows.end).places();
        let then = match &job.then {
            Some((next, row)) if *row < next.rows() => unit(next, *row).places(),
            _ => end,
        };
        Self(std::array::from_fn(|i| Stretch {
            distance: DISTANCE * of_row[i] / of_row[0],
            end: end[i],
            then: then[i],
        }))
    }

    /// What to ask for while what is at `place` is computed with: a place in memory
    /// that is ours, or a little behind it.
    #[inline(always)]
    pub(super) fn of(&self, kind: usize, place: *const u8) -> *const u8 {
        let Stretch {
            distance,
            end,
            then,
        } = self.0[kind];
        let ahead = place.wrapping_add(distance);
        match ahead.addr().checked_sub(end.addr()) {
            Some(beyond) => then.wrapping_add(beyond),
            None => ahead,
        }
    }
}
