//! Requests that wait for the running one: bounded, in order.

use heapless::Deque;

/// Most requests that can wait, whatever the configuration says.
pub const BACKLOG_CAPACITY: usize = 64;

/// The waiting requests.
///
/// It belongs to the service, not to the inference thread, so that a request can
/// be looked at, dropped or answered while it waits.
#[derive(Debug)]
pub struct Backlog<T> {
    waiting: Deque<T, BACKLOG_CAPACITY>,
    depth: usize,
}

impl<T> Backlog<T> {
    /// A backlog for `depth` requests, at most [`BACKLOG_CAPACITY`].
    pub fn new(depth: usize) -> Self {
        Self {
            waiting: Deque::new(),
            depth: depth.min(BACKLOG_CAPACITY),
        }
    }

    /// Puts a request last; a full backlog gives it back.
    pub fn push(&mut self, request: T) -> Result<(), T> {
        if self.waiting.len() >= self.depth {
            return Err(request);
        }
        self.waiting.push_back(request)
    }

    /// Takes the request that waited longest.
    pub fn pop(&mut self) -> Option<T> {
        self.waiting.pop_front()
    }

    /// Number of waiting requests.
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Number of requests that may wait.
    pub fn depth(&self) -> usize {
        self.depth
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn in_order_and_bounded() {
        let mut backlog = Backlog::new(2);
        assert_eq!(backlog.push(1), Ok(()));
        assert_eq!(backlog.push(2), Ok(()));
        assert_eq!(backlog.push(3), Err(3));
        assert_eq!((backlog.pop(), backlog.len()), (Some(1), 1));
        assert_eq!(backlog.push(4), Ok(()));
        assert_eq!(
            (backlog.pop(), backlog.pop(), backlog.pop()),
            (Some(2), Some(4), None)
        );
        assert!(backlog.is_empty());
    }

    #[test]
    fn depth_never_exceeds_the_capacity() {
        let mut backlog = Backlog::new(usize::MAX);
        assert_eq!(backlog.depth(), BACKLOG_CAPACITY);
        assert!((0..BACKLOG_CAPACITY).all(|i| backlog.push(i).is_ok()));
        assert_eq!(backlog.push(99), Err(99));
    }
}
