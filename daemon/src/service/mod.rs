//! What to do with requests, without any I/O: messages in, jobs and messages out.

mod accept;
mod render;
mod route;

use std::collections::VecDeque;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tracing::{debug, info};

use crate::config::{Config, Limits};
use crate::inference::{Cancel, Chunking, Finished, Job, SamplingOverrides};
use crate::mqtt::{Message, Request};
use crate::queue::Backlog;
use crate::refusal::Refusal;
use crate::wire::{ErrorCode, Topics};

use accept::Accepted;
use render::Answer;
use route::Route;

/// The requests of one node and what became of them.
#[derive(Debug)]
pub struct Service {
    topics: Topics,
    limits: Limits,
    sampling: SamplingOverrides,
    chunking: Chunking,
    system_prompt: Option<String>,
    model: String,
    /// Tells the ids we make up from those of an earlier run.
    started: u64,
    counter: u64,
    backlog: Backlog<Waiting>,
    running: Option<Running>,
    stopping: bool,
}

/// A request that was accepted.
#[derive(Debug)]
struct Waiting {
    job: Job,
    route: Route,
    arrived: Instant,
}

/// The request the inference thread is at.
#[derive(Debug)]
struct Running {
    key: u64,
    route: Route,
    cancel: Cancel,
    answer: Answer,
}

impl Service {
    /// A service that answers with the model of this name.
    pub fn new(config: &Config, model: String) -> Self {
        Self {
            topics: config.topics(),
            limits: config.limits.clone(),
            sampling: SamplingOverrides::from(&config.generation),
            chunking: Chunking::from(&config.stream),
            system_prompt: config.generation.system_prompt.clone(),
            model,
            started: unix_time(),
            counter: 0,
            backlog: Backlog::new(config.limits.queue_depth),
            running: None,
            stopping: false,
        }
    }

    /// Takes a message that came in. What comes back is its refusal.
    pub fn on_request(&mut self, request: &Request, now: Instant) -> Option<Message> {
        let accepted = if request.topic == self.topics.ask() {
            accept::ask(
                request,
                &self.topics,
                &self.limits,
                self.system_prompt.as_deref(),
            )
        } else if request.topic == self.topics.chat() {
            accept::chat(request, &self.topics, &self.limits)
        } else {
            debug!(topic = request.topic, "not a topic of ours");
            return None;
        };
        match accepted {
            Ok(accepted) => self.enqueue(accepted, request.payload.len(), now),
            Err(refused) => {
                let (route, refusal) = *refused;
                Some(refuse(&route, &refusal))
            }
        }
    }

    fn enqueue(&mut self, accepted: Accepted, bytes: usize, now: Instant) -> Option<Message> {
        let Accepted { mut route, prompt } = accepted;
        if self.stopping {
            return Some(refuse(&route, &stopping()));
        }
        self.counter += 1;
        let key = self.counter;
        let id = route.id_or(|| format!("chatcmpl-{:x}-{key}", self.started));
        let job = Job {
            key,
            prompt: prompt.prompt,
            sampling: prompt.sampling.or(self.sampling),
            max_tokens: prompt.max_tokens,
            stop: prompt.stop,
            stream: prompt.stream,
            chunking: self.chunking,
            include_text: prompt.include_text,
            cancel: Cancel::default(),
        };
        let waiting = Waiting {
            job,
            route,
            arrived: now,
        };
        match self.backlog.push(waiting) {
            Ok(()) => {
                info!(id, bytes, waiting = self.backlog.len(), "request");
                None
            }
            Err(back) => Some(refuse(&back.route, &self.busy())),
        }
    }

    /// The next job for an idle inference thread.
    pub fn next_job(&mut self, now: Instant) -> Option<Job> {
        if self.running.is_some() {
            return None;
        }
        let Waiting {
            job,
            route,
            arrived,
        } = self.backlog.pop()?;
        let waited = now.saturating_duration_since(arrived);
        self.running = Some(Running {
            key: job.key,
            answer: Answer::new(&route, self.model.clone(), unix_time(), waited, &job),
            cancel: job.cancel.clone(),
            route,
        });
        Some(job)
    }

    /// Text of the running job.
    pub fn on_piece(&mut self, key: u64, text: String) -> Option<Message> {
        let running = self.running.as_mut().filter(|r| r.key == key)?;
        Some(running.route.message(running.answer.piece(text), None))
    }

    /// The end of the running job.
    pub fn on_finished(&mut self, finished: Finished) -> Option<Message> {
        let running = self.running.take_if(|r| r.key == finished.key)?;
        if self.stopping {
            return Some(refuse(&running.route, &stopping()));
        }
        match finished.result {
            Ok(completed) => {
                let timings = completed.generated.timings;
                info!(
                    id = running.route.id(),
                    prompt_tokens = completed.prompt_tokens,
                    completion_tokens = completed.generated.tokens.len(),
                    seconds = (timings.prefill + timings.decode).as_secs_f64(),
                    "answered"
                );
                Some(
                    running
                        .route
                        .message(running.answer.finish(&completed), None),
                )
            }
            Err(refusal) => Some(refuse(&running.route, &refusal)),
        }
    }

    /// Ends the running job soon and refuses everything else.
    pub fn stop(&mut self) -> VecDeque<Message> {
        self.stopping = true;
        if let Some(running) = &self.running {
            running.cancel.set();
        }
        std::iter::from_fn(|| self.backlog.pop())
            .map(|waiting| refuse(&waiting.route, &stopping()))
            .collect()
    }

    /// The inference thread is gone: the error for the request it was at.
    pub fn on_inference_lost(&mut self) -> Option<Message> {
        let running = self.running.take()?;
        let refusal = Refusal::new(
            ErrorCode::Internal,
            "the inference thread ended by a fault; the daemon goes down with it",
        );
        Some(refuse(&running.route, &refusal))
    }

    /// Whether the inference thread has nothing to do.
    pub fn is_idle(&self) -> bool {
        self.running.is_none()
    }

    fn busy(&self) -> Refusal {
        let message = format!(
            "{} requests are waiting already: try again later",
            self.backlog.len()
        );
        Refusal::new(ErrorCode::Busy, message)
    }
}

fn stopping() -> Refusal {
    Refusal::new(
        ErrorCode::ShuttingDown,
        "this node is going down: try again later or ask another",
    )
}

fn refuse(route: &Route, refusal: &Refusal) -> Message {
    // The message of a refusal may quote the request, so it is not logged here.
    info!(id = route.id(), code = refusal.code.as_str(), "refused");
    route.message(render::error(route, refusal), Some(refusal.code))
}

fn unix_time() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.unwrap_or(Duration::ZERO).as_secs()
}

#[cfg(test)]
mod tests;
