//! A slice that the parts of a job write to, each in its own place.

use std::marker::PhantomData;
use std::ops::Range;

/// A mutable slice that threads share by parts.
#[derive(Clone, Copy)]
pub(super) struct Window<'a, T> {
    start: *mut T,
    len: usize,
    slice: PhantomData<&'a mut [T]>,
}

// SAFETY: only `part` leads to the elements, and its caller keeps parts disjoint.
unsafe impl<T: Send> Send for Window<'_, T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for Window<'_, T> {}

impl<'a, T> Window<'a, T> {
    pub(super) fn new(slice: &'a mut [T]) -> Self {
        Self {
            start: slice.as_mut_ptr(),
            len: slice.len(),
            slice: PhantomData,
        }
    }

    /// A part of the slice.
    ///
    /// # Safety
    /// No other part in use overlaps it.
    pub(super) unsafe fn part(&self, range: Range<usize>) -> &'a mut [T] {
        assert!(range.start <= range.end && range.end <= self.len);
        // SAFETY: inside the slice, which is borrowed for 'a, and ours alone by
        // the contract.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(range.start), range.len()) }
    }

    /// Where the slice begins, for what several parts write by turns.
    pub(super) fn address(&self) -> *mut T {
        self.start
    }
}
