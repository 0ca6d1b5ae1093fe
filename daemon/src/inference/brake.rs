//! How the inference thread is held back while it computes, and by whom.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use chaski_engine::Threads;

/// Longest sleep of a pause: what may have changed is looked at in between.
const NAP: Duration = Duration::from_millis(20);
/// Longest pause, after a step however long.
const LONGEST: Duration = Duration::from_secs(10);

/// How hard the thread may work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Effort {
    /// How often the number of threads is halved.
    pub halvings: u32,
    /// How long it pauses after each step, in percent of the time that took.
    pub pause_percent: u32,
    /// Whether the KV cache stays from one job to the next.
    pub keeps_cache: bool,
}

impl Default for Effort {
    /// All of it.
    fn default() -> Self {
        Self {
            halvings: 0,
            pause_percent: 0,
            keeps_cache: true,
        }
    }
}

impl Effort {
    /// What is left of so many threads.
    pub fn of(self, threads: Threads) -> Threads {
        let halved = |n: usize| n.checked_shr(self.halvings).unwrap_or(0).max(1);
        Threads {
            prefill: halved(threads.prefill),
            decode: halved(threads.decode),
        }
    }
}

/// Sets the threads that compute, and gives those that then do. It may be called while a
/// job is computed, and holds from the next step on.
pub type ThreadSetter = Box<dyn Fn(Effort) -> Threads>;

/// What both sides share.
#[derive(Debug, Default)]
pub(super) struct Brake(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    effort: Effort,
    /// Those that compute.
    threads: Option<Threads>,
}

impl Brake {
    fn lock(&self) -> MutexGuard<'_, State> {
        // It is whole after every step.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn set(&self, effort: Effort) {
        self.lock().effort = effort;
    }

    pub(super) fn effort(&self) -> Effort {
        self.lock().effort
    }

    pub(super) fn threads(&self) -> Option<Threads> {
        self.lock().threads
    }
}

/// The thread's side.
pub(super) struct Driver<'a> {
    brake: &'a Brake,
    set_threads: ThreadSetter,
    applied: Effort,
    /// When the last pause ended.
    resumed: Instant,
}

impl<'a> Driver<'a> {
    pub(super) fn new(brake: &'a Brake, set_threads: ThreadSetter) -> Self {
        let driver = Self {
            brake,
            set_threads,
            applied: brake.effort(),
            resumed: Instant::now(),
        };
        driver.apply();
        driver
    }

    fn apply(&self) {
        let threads = (self.set_threads)(self.applied);
        self.brake.lock().threads = Some(threads);
    }

    /// Whether the effort is another one: it is taken over then.
    fn take_over(&mut self) -> bool {
        let effort = self.brake.effort();
        let other = effort != self.applied;
        if other {
            self.applied = effort;
            self.apply();
        }
        other
    }

    /// A job begins.
    pub(super) fn begin(&mut self) {
        self.take_over();
        self.resumed = Instant::now();
    }

    /// A step has ended: pauses, if that is to be. `go_on` is asked now and then whether
    /// there is still something to wait for.
    pub(super) fn step(&mut self, go_on: impl Fn() -> bool) {
        let ended = Instant::now();
        let took = ended.saturating_duration_since(self.resumed);
        self.take_over();
        while let Some(left) = self.pause(took).checked_sub(ended.elapsed())
            && !left.is_zero()
            && go_on()
        {
            std::thread::sleep(left.min(NAP));
            self.take_over();
        }
        self.resumed = Instant::now();
    }

    fn pause(&self, took: Duration) -> Duration {
        let pause = took.saturating_mul(self.applied.pause_percent) / 100;
        pause.min(LONGEST)
    }

    /// Whether the KV cache may stay when a job has ended.
    pub(super) fn keeps_cache(&self) -> bool {
        self.brake.effort().keeps_cache
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: Threads = Threads {
        prefill: 4,
        decode: 3,
    };

    fn setter() -> ThreadSetter {
        Box::new(|effort| effort.of(ALL))
    }

    #[test]
    fn threads_are_halved_down_to_one() {
        let of = |halvings| {
            let left = Effort {
                halvings,
                ..Effort::default()
            }
            .of(ALL);
            (left.prefill, left.decode)
        };
        assert_eq!([of(0), of(1), of(2)], [(4, 3), (2, 1), (1, 1)]);
        assert_eq!(of(200), (1, 1));
    }

    #[test]
    fn another_effort_holds_from_the_next_step_on() {
        let brake = Brake::default();
        assert_eq!(brake.threads(), None);
        let mut driver = Driver::new(&brake, setter());
        assert_eq!(brake.threads(), Some(ALL));
        let less = Effort {
            halvings: 1,
            ..Effort::default()
        };
        brake.set(less);
        assert_eq!(brake.threads(), Some(ALL));
        driver.step(|| true);
        assert_eq!(brake.threads(), Some(less.of(ALL)));
        brake.set(Effort::default());
        driver.begin();
        assert_eq!(brake.threads(), Some(ALL));
    }

    #[test]
    fn pauses_follow_the_time_a_step_took() {
        let brake = Brake::default();
        let paused = |percent| {
            brake.set(Effort {
                pause_percent: percent,
                ..Effort::default()
            });
            let mut driver = Driver::new(&brake, setter());
            std::thread::sleep(Duration::from_millis(30));
            let start = Instant::now();
            driver.step(|| true);
            start.elapsed()
        };
        assert!(paused(0) < Duration::from_secs(1));
        assert!(paused(300) >= Duration::from_millis(90));
        let long = Duration::from_secs(1000);
        let driver = Driver::new(&brake, setter());
        assert_eq!(driver.pause(long), LONGEST);
    }

    #[test]
    fn a_pause_ends_when_there_is_nothing_to_wait_for_or_it_is_not_to_be_any_more() {
        let brake = Brake::default();
        let paused = Effort {
            pause_percent: 1_000_000,
            ..Effort::default()
        };
        brake.set(paused);
        let mut driver = Driver::new(&brake, setter());
        std::thread::sleep(Duration::from_millis(10));
        let asked = std::cell::Cell::new(0);
        driver.step(|| {
            asked.set(asked.get() + 1);
            asked.get() < 3
        });
        assert_eq!(asked.get(), 3);
        std::thread::sleep(Duration::from_millis(10));
        driver.step(|| {
            asked.set(asked.get() + 1);
            brake.set(Effort::default());
            true
        });
        assert_eq!(asked.get(), 4);
    }
}
