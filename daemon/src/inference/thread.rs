//! The thread itself and the queues to and from it.

use std::io;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Instant;

use chaski_engine::{FinishReason, Generated, Threads, Timings};

use super::brake::{Brake, Driver};
use super::chunks::Chunks;
use super::{Completed, Description, Effort, Generator, Job, LoadError, Loader};
use crate::channel::{Receiver, SendError, Sender, channel};
use crate::refusal::Refusal;

/// One job runs and no other is handed over meanwhile, but it may be told to give back
/// memory.
const ORDER_CAPACITY: usize = 2;
/// Pieces of text on their way out. When they are not taken, generation waits.
const EVENT_CAPACITY: usize = 64;

type Orders = Receiver<Order, ORDER_CAPACITY>;
type Events = Sender<Event, EVENT_CAPACITY>;

/// What the thread is told.
#[derive(Debug)]
enum Order {
    /// To compute.
    Job(Box<Job>),
    /// To give back memory.
    Release,
}

/// What both sides share beside the queues.
#[derive(Debug, Default)]
struct Shared {
    pulse: AtomicU64,
    brake: Brake,
    /// Whether [`Order::Release`] waits.
    releasing: AtomicBool,
}

/// What the thread tells.
#[derive(Debug)]
pub enum Event {
    /// The model is loaded; the first event.
    Ready(Box<Description>),
    /// The model cannot be loaded; the only event.
    LoadFailed(LoadError),
    /// Text of the running job, if it asked for it.
    Piece {
        /// The job.
        key: u64,
        /// Never empty.
        text: String,
    },
    /// The running job ended.
    Finished(Box<Finished>),
}

/// The end of a job.
#[derive(Debug)]
pub struct Finished {
    /// The job.
    pub key: u64,
    /// How it ended.
    pub result: Result<Completed, Refusal>,
}

/// The async side's handle on the thread. Dropping it ends the thread after the
/// job it is at.
#[derive(Debug)]
pub struct Inference {
    orders: Sender<Order, ORDER_CAPACITY>,
    events: Receiver<Event, EVENT_CAPACITY>,
    thread: Option<JoinHandle<()>>,
    shared: Arc<Shared>,
}

impl Inference {
    /// Starts the thread, which first makes its generator.
    pub fn start(loader: Loader) -> io::Result<Self> {
        Self::start_after(None, loader)
    }

    /// Starts the thread, which first sees another one to its end, so that there is never
    /// memory for two models.
    pub fn start_after(before: Option<Self>, loader: Loader) -> io::Result<Self> {
        let (orders, order_queue) = channel();
        let (event_queue, events) = channel();
        let shared = Arc::new(Shared::default());
        let its = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("inference".to_owned())
            .spawn(move || {
                if let Some(before) = before {
                    before.end();
                }
                work(loader, &order_queue, &event_queue, &its);
            })?;
        Ok(Self {
            orders,
            events,
            thread: Some(thread),
            shared,
        })
    }

    /// Hands over a job. It is dropped when another is still there or when the
    /// thread is gone.
    pub fn submit(&self, job: Job) -> Result<(), SendError<()>> {
        let order = Order::Job(Box::new(job));
        self.orders.try_send(order).map_err(|error| match error {
            SendError::Full(_) => SendError::Full(()),
            SendError::Closed(_) => SendError::Closed(()),
        })
    }

    /// Grows with every step of a job: a part of its prompt, a token; and while it pauses.
    pub fn pulse(&self) -> u64 {
        self.shared.pulse.load(Ordering::Relaxed)
    }

    /// How hard it may work from the next step on.
    pub fn set_effort(&self, effort: Effort) {
        self.shared.brake.set(effort);
    }

    /// Threads that compute; `None` before the model is loaded.
    pub fn threads(&self) -> Option<Threads> {
        self.shared.brake.threads()
    }

    /// Has it give back memory, once it is not at a job.
    pub fn release(&self) {
        if !self.shared.releasing.swap(true, Ordering::Relaxed) {
            // One that is gone has given back all. There is room: it is the only one.
            let _ = self.orders.try_send(Order::Release);
        }
    }

    /// The next event; `None` when the thread is gone. Can be dropped at any time.
    pub async fn next_event(&self) -> Option<Event> {
        self.events.recv().await
    }

    /// Waits until the thread has ended, which it does after the job it is at.
    fn end(self) {
        let Self {
            orders,
            events,
            thread,
            ..
        } = self;
        drop((orders, events));
        // How it ended does not matter any more.
        let _ = thread.map(JoinHandle::join);
    }

    /// Waits for a thread that has ended, and says whether it panicked, with the
    /// message if it has one. Call it after [`Self::next_event`] gave `None`.
    pub fn join(&mut self) -> Result<(), String> {
        match self.thread.take().map(JoinHandle::join) {
            None | Some(Ok(())) => Ok(()),
            Some(Err(panic)) => Err(panic
                .downcast_ref::<&str>()
                .map(|s| (*s).to_owned())
                .or_else(|| panic.downcast_ref::<String>().cloned())
                .unwrap_or_else(|| "no message".to_owned())),
        }
    }
}

/// Ends, or panics, with `events` dropped: the other side sees it either way.
fn work(loader: Loader, orders: &Orders, events: &Events, shared: &Shared) {
    let mut generator = match loader() {
        Ok(generator) => generator,
        Err(e) => {
            // If nobody listens any more, nobody needs to know.
            let _ = events.send_blocking(Event::LoadFailed(e));
            return;
        }
    };
    let mut driver = Driver::new(&shared.brake, generator.thread_setter());
    let ready = Event::Ready(Box::new(generator.description()));
    if events.send_blocking(ready).is_err() {
        return;
    }
    while let Some(order) = orders.recv_blocking() {
        let job = match order {
            Order::Job(job) => job,
            Order::Release => {
                shared.releasing.store(false, Ordering::Relaxed);
                generator.release();
                continue;
            }
        };
        let finished = Finished {
            key: job.key,
            result: compute(generator.as_mut(), &job, events, &mut driver, &shared.pulse),
        };
        if !driver.keeps_cache() {
            generator.release();
        }
        if events
            .send_blocking(Event::Finished(Box::new(finished)))
            .is_err()
        {
            return;
        }
    }
}

fn compute(
    generator: &mut dyn Generator,
    job: &Job,
    events: &Events,
    driver: &mut Driver<'_>,
    pulse: &AtomicU64,
) -> Result<Completed, Refusal> {
    if job.cancel.is_set() {
        return Ok(cancelled());
    }
    let send = |text| {
        let key = job.key;
        events.send_blocking(Event::Piece { key, text })
    };
    let mut chunks = Chunks::new(job.chunking);
    driver.begin();
    let mut emit = |text: &str| {
        pulse.fetch_add(1, Ordering::Relaxed);
        // First of all: what comes with a cancel is part of the answer.
        if job.stream {
            chunks.push(text);
        }
        if job.cancel.is_set() {
            return ControlFlow::Break(());
        }
        if let Some(Err(_)) = chunks.due(Instant::now()).map(send) {
            return ControlFlow::Break(());
        }
        driver.step(|| {
            // Who pauses is alive.
            pulse.fetch_add(1, Ordering::Relaxed);
            !job.cancel.is_set() && !events.is_closed()
        });
        match job.cancel.is_set() {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    };
    let result = generator.generate(job, &mut emit);
    if let Some(text) = chunks.rest() {
        // If nobody listens any more, the end of the job finds out.
        let _ = send(text);
    }
    result
}

/// A job that was cancelled before anything was computed.
fn cancelled() -> Completed {
    Completed {
        prompt_tokens: 0,
        generated: Generated {
            text: String::new(),
            tokens: Vec::new(),
            finish_reason: FinishReason::Cancelled,
            timings: Timings::default(),
        },
    }
}

#[cfg(test)]
mod tests;
