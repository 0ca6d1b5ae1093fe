//! A thread's own scratch memory.

use std::cell::RefCell;

thread_local! {
    /// One for each use inside another, the outermost last.
    static SCRATCH: RefCell<Vec<Vec<f32>>> = const { RefCell::new(Vec::new()) };
}

/// Most f32 of a memory that a thread keeps for the next time: of a decoded token.
const KEPT: usize = 1 << 16;

/// Uses inside one another that a thread is prepared for.
const NESTED: usize = 2;

/// Gets the calling thread's memory, so that none is allocated later, however late
/// the thread's first part of a job may come. Pages that are never used stay the
/// system's.
pub(crate) fn prepare() {
    SCRATCH.with(|s| {
        let mut kept = s.borrow_mut();
        while kept.len() < NESTED {
            kept.push(Vec::with_capacity(KEPT));
        }
    });
}

/// Hands `len` values of no meaning to `work`. They are this thread's: on one that is
/// prepared, nothing is allocated for up to [`KEPT`] of them.
pub(super) fn with_scratch<T>(len: usize, work: impl FnOnce(&mut [f32]) -> T) -> T {
    if len > KEPT {
        return work(&mut vec![0.0; len]);
    }
    // Taken out, so that a use inside another gets memory of its own.
    let kept = SCRATCH.with(|s| s.borrow_mut().pop());
    let mut scratch = kept.unwrap_or_else(|| Vec::with_capacity(KEPT));
    if scratch.len() < len {
        scratch.resize(len, 0.0);
    }
    let result = work(&mut scratch[..len]);
    SCRATCH.with(|s| s.borrow_mut().push(scratch));
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_kept_and_nests() {
        let first = with_scratch(100, |a| {
            a.fill(1.0);
            let inner = with_scratch(50, |b| {
                b.fill(2.0);
                b.as_ptr()
            });
            assert!(a.iter().all(|&v| v == 1.0));
            assert_ne!(inner, a.as_ptr());
            (a.as_ptr(), inner)
        });
        let again = with_scratch(80, |a| {
            assert_eq!(a.len(), 80);
            (a.as_ptr(), with_scratch(50, |b| b.as_ptr()))
        });
        assert_eq!(again, first);
        // One that is too large is not kept, and costs no kept one its place.
        assert_eq!(with_scratch(KEPT + 1, |a| a.len()), KEPT + 1);
        assert_eq!(with_scratch(80, |a| a.as_ptr()), first.0);
    }
}
