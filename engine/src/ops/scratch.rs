//! A thread's own scratch memory.

use std::cell::RefCell;

thread_local! {
    static SCRATCH: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
}

/// Most f32 that a thread keeps for the next time: of a decoded token.
const KEPT: usize = 1 << 16;

/// Hands `len` values of no meaning to `work`. They are this thread's: after the
/// first token nothing is allocated for them.
pub(super) fn with_scratch<T>(len: usize, work: impl FnOnce(&mut [f32]) -> T) -> T {
    // Taken out, so that a use inside another gets memory of its own.
    let mut scratch = SCRATCH.with(|s| std::mem::take(&mut *s.borrow_mut()));
    if scratch.len() < len {
        scratch.resize(len, 0.0);
    }
    let result = work(&mut scratch[..len]);
    if scratch.len() > KEPT {
        scratch = Vec::new();
    }
    SCRATCH.with(|s| *s.borrow_mut() = scratch);
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
            a.as_ptr()
        });
        assert_eq!(with_scratch(80, |a| (a.len(), a.as_ptr())), (80, first));
        assert_eq!(with_scratch(KEPT + 1, |a| a.len()), KEPT + 1);
    }
}
