//! The last message of every reply, and what becomes of it.

use std::time::Instant;

use chaski_engine::FinishReason;
use tracing::{debug, error, info, warn};

use super::answered::Answered;
use super::delivery::{Sent, TooLarge};
use super::render::{self, Answer};
use super::route::Route;
use super::{Outcome, Output, Service};
use crate::inference::Completed;
use crate::mqtt::Receipt;
use crate::refusal::Refusal;
use crate::wire::{Ended, ErrorCode, Event};

impl Service {
    /// Ends a reply with an answer.
    pub(super) fn answer(
        &mut self,
        key: u64,
        route: Route,
        answer: Answer,
        completed: &Completed,
        out: &mut Vec<Output>,
    ) {
        let generated = &completed.generated;
        let finish_reason = render::finish_reason(generated.finish_reason);
        let ended = Ended {
            id: route.id().unwrap_or_default().to_owned(),
            finish_reason: finish_reason.to_owned(),
            prompt_tokens: completed.prompt_tokens,
            completion_tokens: generated.tokens.len(),
            seconds: (generated.timings.prefill + generated.timings.decode).as_secs_f64(),
        };
        info!(
            id = ended.id,
            finish_reason,
            prompt_tokens = ended.prompt_tokens,
            completion_tokens = ended.completion_tokens,
            seconds = ended.seconds,
            "answered"
        );
        if completed.prompt_tokens > 0 {
            self.figures.computed(completed);
        }
        match generated.finish_reason {
            FinishReason::Cancelled => {
                self.counts.cancelled += 1;
                self.tell(Event::Cancelled(ended));
            }
            FinishReason::Stop | FinishReason::Length => {
                self.counts.answered += 1;
                self.tell(Event::Answered(ended));
            }
        }
        if self.log_prompts {
            info!(id = route.id(), answer = ?generated.text, "its answer");
        }
        let whole = answer.replay(completed);
        let message = route.done(answer.finish(completed), finish_reason);
        let replay = match whole {
            Some(payload) => route.done(payload, finish_reason),
            None => message.clone(),
        };
        let sent = Sent {
            route,
            replay: Some(replay),
        };
        self.deliveries.sent(key, sent);
        self.keep(key, out);
        out.push(Output::Final { key, message });
    }

    /// Ends a reply with an error: for sure, if the broker keeps the request until then,
    /// and else for what it is worth.
    pub(super) fn refuse(
        &mut self,
        key: u64,
        route: &Route,
        refusal: &Refusal,
        out: &mut Vec<Output>,
    ) {
        let code = refusal.code;
        self.counts.refused += 1;
        match code {
            ErrorCode::Busy => self.counts.busy += 1,
            ErrorCode::Expired => self.counts.expired += 1,
            _ => {}
        }
        // The message of a refusal may quote the request, so it is not logged here.
        match code {
            // Of these there may be thousands a second.
            ErrorCode::Busy
            | ErrorCode::RateLimited
            | ErrorCode::Overheated
            | ErrorCode::LowMemory => {
                debug!(id = route.id(), code = code.as_str(), "refused");
            }
            _ => {
                info!(id = route.id(), code = code.as_str(), "refused");
                self.tell(Event::Failed {
                    id: route.id().map(str::to_owned),
                    error: code.as_str().to_owned(),
                });
            }
        }
        let mut message = route.error(refusal);
        if self.deliveries.at_least_once(key) {
            let sent = Sent {
                route: route.clone(),
                replay: None,
            };
            self.deliveries.sent(key, sent);
            out.push(Output::Final { key, message });
        } else {
            self.deliveries.close(key);
            message.droppable = true;
            out.push(Output::Publish(message));
        }
    }

    /// Answers a request that came again as the first time.
    pub(super) fn send_again(
        &mut self,
        answered: Answered,
        receipt: Option<Receipt>,
        out: &mut Vec<Output>,
    ) {
        self.counts.repeated += 1;
        info!(id = answered.route.id(), "answered again");
        let key = self.next_key();
        let Answered {
            identity,
            named,
            route,
            message,
        } = answered;
        self.deliveries.open(key, identity, named, receipt);
        let sent = Sent {
            route,
            replay: Some(message.clone()),
        };
        self.deliveries.sent(key, sent);
        out.push(Output::Final { key, message });
    }

    /// What became of a [`Output::Final`].
    pub fn on_delivered(
        &mut self,
        key: u64,
        outcome: Outcome,
        now: Instant,
        out: &mut Vec<Output>,
    ) {
        let receipts = match outcome {
            Outcome::Taken => self.deliveries.taken(key, now),
            Outcome::Refused(reason) => {
                warn!(reason, "the broker refused a reply");
                self.counts.undelivered += 1;
                self.deliveries.refused(key)
            }
            Outcome::TooLarge { size, max } => match self.deliveries.too_large(key) {
                TooLarge::Replace(route) => {
                    warn!(id = route.id(), size, max, "too large for the broker");
                    let message = route.error(&too_large(size, max));
                    out.push(Output::Final { key, message });
                    return;
                }
                TooLarge::GiveUp(receipts) => {
                    error!(size, max, "an error is too large for the broker: dropped");
                    self.counts.undelivered += 1;
                    receipts
                }
            },
        };
        out.extend(receipts.into_iter().map(Output::Ack));
    }

    /// The connection is lost: the broker sends again what it was not told to forget.
    pub fn on_connection_lost(&mut self) {
        self.deliveries.connection_lost();
        self.overflow.clear();
    }
}

fn too_large(size: usize, max: usize) -> Refusal {
    Refusal::new(
        ErrorCode::ReplyTooLarge,
        format!(
            "the answer makes a message of {size} bytes, and the broker takes at most {max}: ask for a \
             shorter one with max_tokens, or raise the broker's max_packet_size"
        ),
    )
}
