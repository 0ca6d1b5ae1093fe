//! Requests that wait and the one that runs.

use std::time::{Duration, Instant};

use chaski_engine::{FinishReason, Generated, Timings};
use tracing::info;

use super::cancel::Wanted;
use super::render::Answer;
use super::route::Route;
use super::{Output, Service, stopping, unix_time};
use crate::inference::{Cancel, Completed, Finished, Job};
use crate::mqtt::Request;
use crate::refusal::{Refusal, whole_seconds};
use crate::wire::{CancelReply, ErrorCode, HeatLevel, to_json};

/// A request that was accepted.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) job: Job,
    pub(super) route: Route,
    pub(super) arrived: Instant,
    /// When its client has no use for an answer any more.
    pub(super) expires: Option<Instant>,
}

/// The request the inference thread is at.
#[derive(Debug)]
pub(super) struct Running {
    key: u64,
    route: Route,
    cancel: Cancel,
    /// Whether its client gave it up.
    given_up: bool,
    answer: Answer,
    started: Instant,
}

impl Running {
    pub(super) fn elapsed(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.started)
    }

    /// It is computed with less effort from now on.
    pub(super) fn slow_down(&mut self, heat: HeatLevel) {
        self.answer.slow_down(heat);
    }

    pub(super) fn is_cancelled(&self) -> bool {
        self.cancel.is_set()
    }
}

impl Service {
    /// The next job for an idle inference thread.
    pub fn next_job(&mut self, now: Instant, out: &mut Vec<Output>) -> Option<Job> {
        if self.running.is_some() {
            return None;
        }
        self.on_timer(now, out);
        let (_, waiting) = self.backlog.pop(now)?;
        // There is room for one more.
        self.take_overflow(now, out);
        let mut answer = self.answer_to(&waiting, now);
        answer.slow_down(self.strain.heat);
        let Waiting { job, route, .. } = waiting;
        self.running = Some(Running {
            key: job.key,
            route,
            cancel: job.cancel.clone(),
            given_up: false,
            answer,
            started: now,
        });
        Some(job)
    }

    fn answer_to(&self, waiting: &Waiting, now: Instant) -> Answer {
        let waited = now.saturating_duration_since(waiting.arrived);
        Answer::new(
            &waiting.route,
            self.model.clone(),
            // Chunks of another run of the daemon have another time.
            unix_time().max(self.started + 1),
            waited,
            &waiting.job,
        )
    }

    /// When [`Self::on_timer`] has something to do.
    pub fn next_timer(&self) -> Option<Instant> {
        self.backlog.iter().filter_map(|w| w.expires).min()
    }

    /// Answers the requests that expired while they waited.
    pub fn on_timer(&mut self, now: Instant, out: &mut Vec<Output>) {
        let expired = |w: &Waiting| w.expires.is_some_and(|at| at <= now);
        for waiting in self.backlog.take_if(expired) {
            let waited = now.saturating_duration_since(waiting.arrived);
            let message = format!(
                "the request expired after it had waited for {} s: give it a longer message expiry \
                 interval, or a higher priority",
                whole_seconds(waited)
            );
            let refusal = Refusal::new(ErrorCode::Expired, message);
            self.refuse(waiting.job.key, &waiting.route, &refusal, out);
        }
        self.take_overflow(now, out);
    }

    /// Text of the running job.
    pub fn on_piece(&mut self, key: u64, text: String, out: &mut Vec<Output>) {
        if let Some(running) = self.running.as_mut().filter(|r| r.key == key) {
            let message = running.route.chunk(running.answer.piece(text));
            out.push(Output::Publish(message));
        }
    }

    /// The end of the running job.
    pub fn on_finished(&mut self, finished: Finished, now: Instant, out: &mut Vec<Output>) {
        let Some(running) = self.running.take_if(|r| r.key == finished.key) else {
            return;
        };
        let key = running.key;
        let mut completed = match finished.result {
            Ok(completed) => completed,
            Err(refusal) => return self.refuse(key, &running.route, &refusal, out),
        };
        let generated = &mut completed.generated;
        if running.given_up {
            // It may have come to its end just before; its client was told otherwise.
            generated.finish_reason = FinishReason::Cancelled;
        } else if generated.finish_reason == FinishReason::Cancelled {
            // Nobody but a node that goes down ends a job that was not given up.
            return self.hand_back(key, &running.route, out);
        } else {
            self.estimate.computed(running.elapsed(now));
        }
        self.answer(key, running.route, running.answer, &completed, out);
    }

    /// Takes a message on the topic `cancel`.
    pub(super) fn on_cancel(&mut self, request: &Request, now: Instant, out: &mut Vec<Output>) {
        let wanted = Wanted::parse(request, &self.limits);
        let id = wanted.as_ref().ok().and_then(Wanted::id).map(str::to_owned);
        let answer =
            Route::for_cancel(request, &self.topics, &self.limits, id).and_then(
                |route| match wanted.and_then(|wanted| self.cancel(&wanted, now, out)) {
                    Ok(reply) => Ok((route, reply)),
                    Err(refusal) => Err(Box::new((route, refusal))),
                },
            );
        let wants_answer = request.response_topic.is_some();
        match answer {
            Ok((route, reply)) if wants_answer => {
                let message = route.confirmation(to_json(&reply));
                out.push(Output::Publish(message));
            }
            Ok(_) => {}
            Err(refused) => {
                let (route, refusal) = *refused;
                // A fault is told even to those who want no answer.
                if wants_answer || refusal.code != ErrorCode::NotFound {
                    let mut message = route.error(&refusal);
                    message.droppable = request.receipt.is_none();
                    out.push(Output::Publish(message));
                }
            }
        }
        self.take_overflow(now, out);
    }

    /// Gives up the requests that are meant, or the next one that comes.
    fn cancel(
        &mut self,
        wanted: &Wanted,
        now: Instant,
        out: &mut Vec<Output>,
    ) -> Result<CancelReply, Refusal> {
        let mut cancelled = 0;
        if let Some(running) = self.running.as_mut().filter(|r| wanted.means(&r.route)) {
            running.cancel.set();
            running.given_up = true;
            cancelled += 1;
        }
        for waiting in self.backlog.take_if(|w| wanted.means(&w.route)) {
            self.give_up(waiting, now, out);
            cancelled += 1;
        }
        if cancelled == 0 {
            // A cancel that came too late must not meet another request of the same id.
            if !self.deliveries.ended().any(|route| wanted.means(route)) {
                self.tombstones.put(wanted.clone(), now);
            }
            return Err(not_found());
        }
        info!(id = wanted.id(), cancelled, "cancelled");
        Ok(CancelReply {
            id: wanted.id().map(str::to_owned),
            cancelled,
        })
    }

    /// Answers a request that nothing was computed for.
    pub(super) fn give_up(&mut self, waiting: Waiting, now: Instant, out: &mut Vec<Output>) {
        let nothing = Completed {
            prompt_tokens: 0,
            generated: Generated {
                text: String::new(),
                tokens: Vec::new(),
                finish_reason: FinishReason::Cancelled,
                timings: Timings::default(),
            },
        };
        let answer = self.answer_to(&waiting, now);
        self.answer(waiting.job.key, waiting.route, answer, &nothing, out);
    }

    /// Ends the running job soon, and leaves to the broker what it keeps; what it does
    /// not keep is refused.
    pub fn stop(&mut self, out: &mut Vec<Output>) {
        self.stopping = true;
        self.overflow.clear();
        if let Some(running) = &self.running {
            running.cancel.set();
        }
        for waiting in self.backlog.take_if(|_| true) {
            self.hand_back(waiting.job.key, &waiting.route, out);
        }
    }

    fn hand_back(&mut self, key: u64, route: &Route, out: &mut Vec<Output>) {
        if self.has_session && self.deliveries.at_least_once(key) {
            info!(id = route.id(), "left to the broker");
            self.deliveries.close(key);
        } else {
            self.refuse(key, route, &stopping(), out);
        }
    }

    /// The inference thread is gone. The request it was at is told so, and not left to the
    /// broker: it may be the cause.
    pub fn on_inference_lost(&mut self, out: &mut Vec<Output>) {
        if let Some(running) = self.running.take() {
            let refusal = Refusal::new(
                ErrorCode::Internal,
                "the inference thread ended by a fault; the daemon goes down with it",
            );
            self.refuse(running.key, &running.route, &refusal, out);
        }
    }
}

fn not_found() -> Refusal {
    Refusal::new(
        ErrorCode::NotFound,
        "no such request waits or runs here: it may have been answered, or is still to come and will \
         be cancelled then",
    )
}
