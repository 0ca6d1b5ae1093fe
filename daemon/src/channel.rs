//! A bounded queue between the inference thread and the async side.
//!
//! Its capacity is fixed when it is compiled and it never allocates. Either end
//! may be used from a thread or from a task; dropping one end closes it.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use heapless::Deque;
use tokio::sync::Notify;

/// Makes a queue for `N` items.
pub fn channel<T, const N: usize>() -> (Sender<T, N>, Receiver<T, N>) {
    let shared = Arc::new(Shared {
        state: Mutex::new(State {
            items: Deque::new(),
            closed: false,
        }),
        changed: Condvar::new(),
        filled: Notify::new(),
    });
    (Sender(Arc::clone(&shared)), Receiver(shared))
}

/// The end that puts items in.
#[derive(Debug)]
pub struct Sender<T, const N: usize>(Arc<Shared<T, N>>);

/// The end that takes items out.
#[derive(Debug)]
pub struct Receiver<T, const N: usize>(Arc<Shared<T, N>>);

/// Why an item was not put in; it comes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SendError<T> {
    /// No room now.
    Full(T),
    /// The other end is gone.
    Closed(T),
}

#[derive(Debug)]
struct Shared<T, const N: usize> {
    state: Mutex<State<T, N>>,
    /// Wakes a thread, of either end.
    changed: Condvar,
    /// Wakes the receiving task; remembers one wake-up.
    filled: Notify,
}

#[derive(Debug)]
struct State<T, const N: usize> {
    items: Deque<T, N>,
    closed: bool,
}

impl<T, const N: usize> Shared<T, N> {
    /// The state is whole after every step, so a panic elsewhere does not spoil it.
    fn lock(&self) -> MutexGuard<'_, State<T, N>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, guard: MutexGuard<'a, State<T, N>>) -> MutexGuard<'a, State<T, N>> {
        self.changed
            .wait(guard)
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn wake(&self) {
        self.changed.notify_all();
        self.filled.notify_one();
    }

    fn close(&self) {
        self.lock().closed = true;
        self.wake();
    }
}

impl<T, const N: usize> Sender<T, N> {
    /// Puts an item in if there is room.
    pub fn try_send(&self, item: T) -> Result<(), SendError<T>> {
        let mut state = self.0.lock();
        if state.closed {
            return Err(SendError::Closed(item));
        }
        state.items.push_back(item).map_err(SendError::Full)?;
        drop(state);
        self.0.wake();
        Ok(())
    }

    /// Whether the other end is gone.
    pub fn is_closed(&self) -> bool {
        self.0.lock().closed
    }

    /// Puts an item in, blocking the thread until there is room. An item comes
    /// back when the other end is gone.
    pub fn send_blocking(&self, mut item: T) -> Result<(), T> {
        let mut state = self.0.lock();
        loop {
            if state.closed {
                return Err(item);
            }
            match state.items.push_back(item) {
                Ok(()) => break,
                Err(back) => item = back,
            }
            state = self.0.wait(state);
        }
        drop(state);
        self.0.wake();
        Ok(())
    }
}

impl<T, const N: usize> Receiver<T, N> {
    /// Takes an item out, blocking the thread until there is one. `None` when the
    /// other end is gone and nothing is left.
    pub fn recv_blocking(&self) -> Option<T> {
        let mut state = self.0.lock();
        loop {
            if let Some(item) = state.items.pop_front() {
                drop(state);
                self.0.wake();
                return Some(item);
            }
            if state.closed {
                return None;
            }
            state = self.0.wait(state);
        }
    }

    /// Takes an item out. `None` when the other end is gone and nothing is left.
    /// Can be dropped at any time without losing an item.
    pub async fn recv(&self) -> Option<T> {
        loop {
            {
                let mut state = self.0.lock();
                if let Some(item) = state.items.pop_front() {
                    drop(state);
                    self.0.changed.notify_all();
                    return Some(item);
                }
                if state.closed {
                    return None;
                }
            }
            self.0.filled.notified().await;
        }
    }
}

impl<T, const N: usize> Drop for Sender<T, N> {
    fn drop(&mut self) {
        self.0.close();
    }
}

impl<T, const N: usize> Drop for Receiver<T, N> {
    fn drop(&mut self) {
        self.0.close();
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap()
    }

    #[test]
    fn full_and_closed_give_the_item_back() {
        let (tx, rx) = channel::<u32, 2>();
        assert_eq!(tx.try_send(1), Ok(()));
        assert_eq!(tx.try_send(2), Ok(()));
        assert_eq!(tx.try_send(3), Err(SendError::Full(3)));
        assert_eq!(rx.recv_blocking(), Some(1));
        assert_eq!(tx.try_send(3), Ok(()));
        drop(rx);
        assert_eq!(tx.try_send(4), Err(SendError::Closed(4)));
        assert_eq!(tx.send_blocking(5), Err(5));
    }

    #[test]
    fn what_was_sent_before_the_end_arrives() {
        let (tx, rx) = channel::<u32, 2>();
        tx.try_send(1).unwrap();
        drop(tx);
        assert_eq!(runtime().block_on(rx.recv()), Some(1));
        assert_eq!(runtime().block_on(rx.recv()), None);
        assert_eq!(rx.recv_blocking(), None);
    }

    #[test]
    fn a_thread_waits_for_a_task_that_takes() {
        let (tx, rx) = channel::<u32, 2>();
        let producer = thread::spawn(move || (0..1000).all(|i| tx.send_blocking(i).is_ok()));
        let got: Vec<u32> = runtime().block_on(async {
            let mut got = Vec::new();
            while let Some(i) = rx.recv().await {
                got.push(i);
            }
            got
        });
        assert!(producer.join().unwrap());
        assert_eq!(got, (0..1000).collect::<Vec<_>>());
    }

    #[test]
    fn a_blocked_sender_ends_when_the_receiver_goes() {
        let (tx, rx) = channel::<u32, 1>();
        tx.try_send(0).unwrap();
        let sender = thread::spawn(move || tx.send_blocking(1));
        drop(rx);
        assert_eq!(sender.join().unwrap(), Err(1));
    }
}
