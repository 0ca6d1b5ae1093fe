//! The thread itself and the queues to and from it.

use std::io;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Instant;

use chaski_engine::{FinishReason, Generated, Timings};

use super::chunks::Chunks;
use super::{Completed, Description, Generator, Job, LoadError, Loader};
use crate::channel::{Receiver, SendError, Sender, channel};
use crate::refusal::Refusal;

/// One job runs and no other is handed over meanwhile.
const JOB_CAPACITY: usize = 1;
/// Pieces of text on their way out. When they are not taken, generation waits.
const EVENT_CAPACITY: usize = 64;

type Jobs = Receiver<Job, JOB_CAPACITY>;
type Events = Sender<Event, EVENT_CAPACITY>;

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
    jobs: Sender<Job, JOB_CAPACITY>,
    events: Receiver<Event, EVENT_CAPACITY>,
    thread: Option<JoinHandle<()>>,
    pulse: Arc<AtomicU64>,
}

impl Inference {
    /// Starts the thread, which first makes its generator.
    pub fn start(loader: Loader) -> io::Result<Self> {
        Self::start_after(None, loader)
    }

    /// Starts the thread, which first sees another one to its end, so that there is never
    /// memory for two models.
    pub fn start_after(before: Option<Self>, loader: Loader) -> io::Result<Self> {
        let (jobs, job_queue) = channel();
        let (event_queue, events) = channel();
        let pulse = Arc::new(AtomicU64::new(0));
        let beat = Arc::clone(&pulse);
        let thread = std::thread::Builder::new()
            .name("inference".to_owned())
            .spawn(move || {
                if let Some(before) = before {
                    before.end();
                }
                work(loader, &job_queue, &event_queue, &beat);
            })?;
        Ok(Self {
            jobs,
            events,
            thread: Some(thread),
            pulse,
        })
    }

    /// Hands over a job. It is dropped when another is still there or when the
    /// thread is gone.
    pub fn submit(&self, job: Job) -> Result<(), SendError<()>> {
        self.jobs.try_send(job).map_err(|error| match error {
            SendError::Full(_) => SendError::Full(()),
            SendError::Closed(_) => SendError::Closed(()),
        })
    }

    /// Grows with every step of a job: a part of its prompt, a token.
    pub fn pulse(&self) -> u64 {
        self.pulse.load(Ordering::Relaxed)
    }

    /// The next event; `None` when the thread is gone. Can be dropped at any time.
    pub async fn next_event(&self) -> Option<Event> {
        self.events.recv().await
    }

    /// Waits until the thread has ended, which it does after the job it is at.
    fn end(self) {
        let Self {
            jobs,
            events,
            thread,
            ..
        } = self;
        drop((jobs, events));
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
fn work(loader: Loader, jobs: &Jobs, events: &Events, pulse: &AtomicU64) {
    let mut generator = match loader() {
        Ok(generator) => generator,
        Err(e) => {
            // If nobody listens any more, nobody needs to know.
            let _ = events.send_blocking(Event::LoadFailed(e));
            return;
        }
    };
    let ready = Event::Ready(Box::new(generator.description()));
    if events.send_blocking(ready).is_err() {
        return;
    }
    while let Some(job) = jobs.recv_blocking() {
        let finished = Finished {
            key: job.key,
            result: compute(generator.as_mut(), &job, events, pulse),
        };
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
    let mut emit = |text: &str| {
        pulse.fetch_add(1, Ordering::Relaxed);
        // First of all: what comes with a cancel is part of the answer.
        if job.stream {
            chunks.push(text);
        }
        if job.cancel.is_set() {
            return ControlFlow::Break(());
        }
        match chunks.due(Instant::now()).map(send) {
            Some(Err(_)) => ControlFlow::Break(()),
            None | Some(Ok(())) => ControlFlow::Continue(()),
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
