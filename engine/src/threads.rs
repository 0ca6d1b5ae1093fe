//! A team of threads that share the work of one operator.
//!
//! A token takes hundreds of operators of some 20 µs each, and waking a parked
//! thread costs as much. So a worker waits for the next one spinning, then
//! yielding (others may have its core), and parks only when the token is over.
//!
//! The parts of a job are dealt out in equal runs, always in the same way: a
//! member reads the same rows of the weights for every token, one behind the
//! other. Only who is done before the others takes over what they have not begun,
//! so that one that lost its core to another program does not hold up the rest.
//!
//! Members may be pinned, each to a core of a list: the workers by themselves, the
//! caller by whoever makes the team, as it is not the team's thread.
//!
//! The team may be made narrower and wider at any time, also by others than the caller:
//! members beyond the width are given no parts and stay parked. What is computed does
//! not depend on it, as no part's result depends on how the parts are dealt out.

use std::cell::UnsafeCell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::cores;

/// Rounds of spinning before a waiting thread offers its core to others: some
/// tens of microseconds.
const SPINS: usize = 2_000;
/// How long a worker offers its core before it parks.
const YIELDS: Duration = Duration::from_millis(2);

/// What is run for each part, with the part's index.
type Job = *const (dyn Fn(usize) + Sync);

/// A job, its parts, and among how many members they are dealt out.
#[derive(Clone, Copy)]
struct Open {
    job: Job,
    parts: usize,
    width: usize,
}

/// On cache lines of its own (some processors fetch them in pairs), so that those
/// who wait for one thing do not slow down those who write another.
#[repr(align(128))]
struct Padded<T>(T);

struct Shared {
    /// Written by `run` before it opens the tickets, read by whoever claimed one.
    job: Padded<UnsafeCell<Option<Open>>>,
    /// For each member the current job's number in the high half, and in the low
    /// one the unclaimed parts of the member's run: a part is claimed by lowering it.
    tickets: Vec<Padded<AtomicU64>>,
    /// Parts of the job that have not ended.
    pending: Padded<AtomicUsize>,
    panicked: AtomicBool,
    stop: AtomicBool,
}

const PARTS_MASK: u64 = u32::MAX as u64;

// SAFETY: `job` is written only while no part is claimed or claimable (`pending`
// and the low halves of `tickets` are 0), and read only between the claim of a
// part and the fall of `pending` for it; the atomics order the accesses.
unsafe impl Sync for Shared {}
// SAFETY: the job pointer is to a Sync closure that outlives its use, see `run`.
unsafe impl Send for Shared {}

impl Shared {
    /// Claims parts of the open job, those of `member`'s run first, and runs them
    /// until none is left; whether there was any.
    fn help(&self, member: usize) -> bool {
        let mut done = 0;
        for other in (member..self.tickets.len()).chain(0..member) {
            while let Some(left) = self.claim(other) {
                done += 1;
                // SAFETY: this part is claimed and still pending, so `run` waits
                // and the job it wrote stays.
                let open = unsafe { *self.job.0.get() };
                let Some(Open { job, parts, width }) = open else {
                    continue;
                };
                // SAFETY: as above.
                let job = unsafe { &*job };
                let part = share(parts, width, other).end - left;
                if catch_unwind(AssertUnwindSafe(|| job(part))).is_err() {
                    self.panicked.store(true, Ordering::Relaxed);
                }
            }
        }
        if done > 0 {
            self.pending.0.fetch_sub(done, Ordering::Release);
        }
        done > 0
    }

    /// Claims a part of a member's run: how many were left, this one included.
    fn claim(&self, member: usize) -> Option<usize> {
        let tickets = &self.tickets[member].0;
        // Acquire: the job written before the tickets were opened is seen.
        let mut seen = tickets.load(Ordering::Acquire);
        loop {
            let left = seen & PARTS_MASK;
            if left == 0 {
                return None;
            }
            let (success, failure) = (Ordering::Acquire, Ordering::Acquire);
            match tickets.compare_exchange_weak(seen, seen - 1, success, failure) {
                Ok(_) => return Some(left as usize),
                Err(now) => seen = now,
            }
        }
    }
}

/// A caller and `size - 1` workers.
pub(crate) struct Team {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
    /// Members that take part, from the first on.
    width: AtomicUsize,
    /// One job at a time, whoever asks; the number of the last one.
    turn: Mutex<u32>,
}

impl Team {
    /// Starts `size - 1` workers; 0 counts as 1. They are pinned to `cores`, if there
    /// are any, one after the other; the first is the caller's. Each has called
    /// `prepare` when this returns.
    pub(crate) fn new(size: usize, cores: &[usize], prepare: fn()) -> std::io::Result<Self> {
        let tickets = || Padded(AtomicU64::new(0));
        let mut team = Self {
            shared: Arc::new(Shared {
                job: Padded(UnsafeCell::new(None)),
                tickets: std::iter::repeat_with(tickets).take(size.max(1)).collect(),
                pending: Padded(AtomicUsize::new(0)),
                panicked: AtomicBool::new(false),
                stop: AtomicBool::new(false),
            }),
            workers: Vec::new(),
            width: AtomicUsize::new(size.max(1)),
            turn: Mutex::new(0),
        };
        let (prepared, all_prepared) = std::sync::mpsc::channel::<()>();
        for member in 1..size {
            let shared = Arc::clone(&team.shared);
            let prepared = prepared.clone();
            let core = cores::of_member(cores, member);
            let worker = std::thread::Builder::new().name(format!("chaski-{member}"));
            let run = move || {
                core.into_iter().for_each(cores::pin);
                prepare();
                drop(prepared);
                work(&shared, member);
            };
            // On failure the drop of `team` ends those already started.
            team.workers.push(worker.spawn(run)?);
        }
        drop(prepared);
        // Nothing is sent: it ends when the last worker has dropped its end.
        let _ = all_prepared.recv();
        Ok(team)
    }

    /// Members, the caller included.
    pub(crate) fn size(&self) -> usize {
        self.workers.len() + 1
    }

    /// Members that take part.
    pub(crate) fn width(&self) -> usize {
        self.width.load(Ordering::Relaxed)
    }

    /// Lets only the first `width` members take part, at least one and at most all,
    /// from the next job on.
    pub(crate) fn set_width(&self, width: usize) {
        let width = width.clamp(1, self.size());
        self.width.store(width, Ordering::Relaxed);
    }

    /// Into how many parts to cut work of `items`: several for each member, so
    /// that there is something to take over.
    pub(crate) fn parts(&self, items: usize) -> usize {
        let wanted = match self.width() {
            1 => 1,
            width => 4 * width,
        };
        wanted.min(items.max(1))
    }

    /// The member whose run ends with `part`, if one does and the width stays.
    pub(crate) fn ends_run(&self, part: usize, parts: usize) -> Option<usize> {
        let width = self.width();
        (0..width).find(|&member| {
            let run = share(parts, width, member);
            !run.is_empty() && run.end == part + 1
        })
    }

    /// The first part of a member's run; `parts` if it has none.
    pub(crate) fn first_part(&self, member: usize, parts: usize) -> usize {
        let width = self.width();
        // A member that was sent away meanwhile has none.
        let run = match member < width {
            true => share(parts, width, member),
            false => parts..parts,
        };
        if run.is_empty() { parts } else { run.start }
    }

    /// Runs `job(part)` for every part below `parts` and returns when all have
    /// ended. Each member has a run of parts that follow each other, the same for
    /// the same number of parts and the same width. A panic in any of them panics here. `job` must not
    /// call `run` itself.
    pub(crate) fn run(&self, parts: usize, job: &(dyn Fn(usize) + Sync)) {
        let width = self.width();
        if width == 1 || parts <= 1 {
            return (0..parts).for_each(job);
        }
        assert!(parts as u64 <= PARTS_MASK, "too many parts");
        // A panic of an earlier job leaves nothing half done in the team.
        let mut number = self.turn.lock().unwrap_or_else(|e| e.into_inner());
        *number = number.wrapping_add(1);
        let shared = &*self.shared;
        // SAFETY: only the lifetime is changed: this function returns (or
        // unwinds) only after every part has ended, and only a part's claim
        // leads to the pointer.
        let job = unsafe { std::mem::transmute::<*const (dyn Fn(usize) + Sync + '_), Job>(job) };
        shared.pending.0.store(parts, Ordering::Relaxed);
        // SAFETY: no part is claimed or claimable until the tickets are opened.
        unsafe { *shared.job.0.get() = Some(Open { job, parts, width }) };
        // The caller's own last: nobody should take over before it could begin.
        for (member, tickets) in shared.tickets[..width].iter().enumerate().rev() {
            let run = share(parts, width, member).len() as u64;
            let opened = u64::from(*number) << 32 | run;
            tickets.0.store(opened, Ordering::Release);
        }
        for worker in &self.workers[..width - 1] {
            worker.thread().unpark();
        }
        shared.help(0);
        let mut spins = 0;
        while shared.pending.0.load(Ordering::Acquire) != 0 {
            spins += 1;
            if spins < SPINS {
                std::hint::spin_loop();
            } else {
                // A worker with a part has lost its core: give it ours.
                std::thread::yield_now();
            }
        }
        if shared.panicked.swap(false, Ordering::Relaxed) {
            resume_unwind(Box::new("a thread of the engine panicked"));
        }
    }
}

impl Drop for Team {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        for worker in &self.workers {
            worker.thread().unpark();
        }
        for worker in self.workers.drain(..) {
            // A worker catches the panics of its jobs: joining cannot fail.
            let _ = worker.join();
        }
    }
}

fn work(shared: &Shared, member: usize) {
    let mut spins = 0;
    let mut yielding_since: Option<Instant> = None;
    while !shared.stop.load(Ordering::Acquire) {
        let opened = shared.tickets[member].0.load(Ordering::Relaxed) & PARTS_MASK != 0;
        if opened && shared.help(member) {
            spins = 0;
            yielding_since = None;
        } else if spins < SPINS {
            spins += 1;
            std::hint::spin_loop();
        } else if yielding_since.get_or_insert_with(Instant::now).elapsed() < YIELDS {
            std::thread::yield_now();
        } else {
            // `run` unparks after it has opened the tickets, so no job is missed.
            std::thread::park();
            spins = 0;
            yielding_since = None;
        }
    }
}

/// The `index`th of `parts` nearly equal ranges of `0..total`.
pub(crate) fn share(total: usize, parts: usize, index: usize) -> std::ops::Range<usize> {
    total * index / parts..total * (index + 1) / parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_runs_once() {
        for size in [1, 2, 5] {
            let team = Team::new(size, &[], || ()).unwrap();
            assert_eq!(team.size(), size);
            for parts in [0, 1, 2, 7, 40] {
                let counts: Vec<AtomicUsize> = (0..parts).map(|_| AtomicUsize::new(0)).collect();
                for round in 1..=200 {
                    team.run(parts, &|part| {
                        counts[part].fetch_add(1, Ordering::Relaxed);
                    });
                    assert!(counts.iter().all(|c| c.load(Ordering::Relaxed) == round));
                    if round % 100 == 0 {
                        // Long enough for the workers to park.
                        std::thread::sleep(std::time::Duration::from_millis(5));
                    }
                }
            }
        }
    }

    #[test]
    fn runs_follow_each_other() {
        for size in [1, 2, 5] {
            let team = Team::new(size, &[], || ()).unwrap();
            for parts in [0, 1, 2, 7, 40] {
                let mut begun = 0;
                for member in 0..size {
                    let first = team.first_part(member, parts);
                    let last = (0..parts).find(|&part| team.ends_run(part, parts) == Some(member));
                    match last {
                        Some(last) => {
                            assert_eq!(first, begun);
                            begun = last + 1;
                        }
                        None => assert_eq!(first, parts),
                    }
                }
                assert_eq!(begun, parts);
            }
        }
    }

    #[test]
    fn a_narrower_team_leaves_the_others_parked() {
        let team = Team::new(4, &[], || ()).unwrap();
        for width in [4, 1, 3, 2, 9, 0] {
            team.set_width(width);
            let width = width.clamp(1, 4);
            assert_eq!((team.width(), team.size()), (width, 4));
            assert_eq!(team.parts(100), if width == 1 { 1 } else { 4 * width });
            let parts = 4 * width;
            let allowed: Vec<Option<String>> = (1..width)
                .map(|member| Some(format!("chaski-{member}")))
                .chain([std::thread::current().name().map(str::to_owned)])
                .collect();
            let strangers = AtomicUsize::new(0);
            let done = AtomicUsize::new(0);
            // Those who were at it may still look for parts for a moment.
            std::thread::sleep(2 * YIELDS);
            for _ in 0..200 {
                team.run(parts, &|_| {
                    let name = std::thread::current().name().map(str::to_owned);
                    strangers.fetch_add(usize::from(!allowed.contains(&name)), Ordering::Relaxed);
                    done.fetch_add(1, Ordering::Relaxed);
                });
            }
            assert_eq!(done.into_inner(), 200 * parts);
            // Wherever the system stopped one of them, it helps out at most that once.
            assert!(strangers.into_inner() <= 4 * parts, "width {width}");
            for member in width..4 {
                assert_eq!(team.first_part(member, parts), parts);
            }
        }
    }

    #[test]
    fn the_width_may_change_while_jobs_run() {
        let team = Team::new(4, &[], || ()).unwrap();
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for width in (1..=4).cycle() {
                    team.set_width(width);
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                }
            });
            for _ in 0..2_000 {
                let parts = team.parts(40);
                let counts: Vec<AtomicUsize> = (0..parts).map(|_| AtomicUsize::new(0)).collect();
                team.run(parts, &|part| {
                    let _ = team
                        .ends_run(part, parts)
                        .map(|m| team.first_part(m, parts));
                    counts[part].fetch_add(1, Ordering::Relaxed);
                });
                assert!(counts.iter().all(|c| c.load(Ordering::Relaxed) == 1));
            }
            stop.store(true, Ordering::Relaxed);
        });
    }

    #[test]
    fn a_panic_reaches_the_caller_and_the_team_goes_on() {
        let team = Team::new(3, &[], || ()).unwrap();
        for guilty in 0..6 {
            let job = |part| assert!(part != guilty, "as planned");
            assert!(catch_unwind(AssertUnwindSafe(|| team.run(6, &job))).is_err());
        }
        let count = AtomicUsize::new(0);
        team.run(9, &|_| {
            count.fetch_add(1, Ordering::Relaxed);
        });
        assert_eq!(count.into_inner(), 9);
    }

    #[test]
    fn callers_take_turns() {
        let team = Team::new(2, &[], || ()).unwrap();
        let count = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..200 {
                        team.run(5, &|_| {
                            count.fetch_add(1, Ordering::Relaxed);
                        });
                    }
                });
            }
        });
        assert_eq!(count.into_inner(), 4 * 200 * 5);
    }

    #[test]
    fn workers_keep_to_their_cores() {
        use crate::cores::tests::allowed;
        let all = allowed();
        let (first, last) = (all[0], all[all.len() - 1]);
        let team = Team::new(3, &[first, last], || ()).unwrap();
        let seen = Mutex::new(std::collections::BTreeMap::new());
        // Long enough for each worker to have its run, on a busy machine too.
        for _ in 0..200 {
            team.run(3, &|_| {
                std::thread::sleep(Duration::from_millis(1));
                let name = std::thread::current().name().map(str::to_owned);
                seen.lock().unwrap().insert(name, allowed());
            });
            if seen.lock().unwrap().len() == 3 {
                break;
            }
        }
        let seen = seen.into_inner().unwrap();
        let of = |name: &str| seen.get(&Some(name.to_owned()));
        assert_eq!(of("chaski-1"), Some(&vec![last]));
        assert_eq!(of("chaski-2"), Some(&vec![first]));
        // The caller is not the team's to pin.
        assert_eq!(allowed(), all);
    }

    #[test]
    fn shares_cover_all_once() {
        for (total, parts) in [(0, 3), (1, 3), (10, 3), (576, 4)] {
            let all: Vec<usize> = (0..parts).flat_map(|i| share(total, parts, i)).collect();
            assert_eq!(all, (0..total).collect::<Vec<_>>());
        }
    }
}
