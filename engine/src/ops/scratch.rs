//! A thread's own scratch memory.

use std::cell::RefCell;

thread_local! {
    /// One for each use inside another, the outermost last.
    static SCRATCH: RefCell<Vec<Vec<f32>>> = const { RefCell::new(Vec::new()) };
}

/// Most f32 that a thread keeps for the next time: of a decoded token.
const KEPT: usize = 1 << 16;

/// Hands `len` values of no meaning to `work`. They are this thread's: after the
/// first token nothing is allocated for them.
pub(super) fn with_scratch<T>(len: usize, work: impl FnOnce(&mut [f32]) -> T) -> T {
    // Taken out, so that a use inside another gets memory of its own.
    let mut scratch = SCRATCH.with(|s| s.borrow_mut().pop()).unwrap_or_default();
    if scratch.len() < len {
        scratch.resize(len, 0.0);
    }
    let result = work(&mut scratch[..len]);
    if scratch.len() > KEPT {
        scratch = Vec::new();
    }
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
        assert_eq!(with_scratch(KEPT + 1, |a| a.len()), KEPT + 1);
    }
}
