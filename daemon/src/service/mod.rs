//! What to do with requests, without any I/O: messages in, jobs and messages out.
//!
//! Every method that may ask for something to be done adds it to the outputs it is given.

mod accept;
mod answered;
mod cancel;
mod control;
mod delivery;
mod estimate;
mod figures;
mod identity;
mod jobs;
mod json_values;
mod kept;
mod output;
mod overflow;
mod rate;
mod render;
mod replies;
mod route;
mod strain;

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tracing::{debug, info};

pub use control::{Asker, Command, Done};
pub use figures::Figures;
pub use kept::Kept;
pub use output::{Outcome, Output};
pub use strain::{Refusing, Strain};

use crate::config::{Config, Control, Limits};
use crate::inference::{Cancel, Chunking, Job, SamplingOverrides};
use crate::mqtt::Request;
use crate::queue::{Backlog, Full, Tag};
use crate::refusal::Refusal;
use crate::wire::{ErrorCode, Event, RequestMetrics, Topics, check_id};

use accept::Accepted;
use cancel::Tombstones;
use delivery::{Deliveries, Known};
use estimate::Estimate;
use figures::EVENTS;
use identity::{Identity, Sender};
use jobs::{Running, Waiting};
use overflow::Overflow;
use rate::Buckets;
use route::{Refused, Route};

/// The requests of one node and what became of them.
#[derive(Debug)]
pub struct Service {
    topics: Topics,
    group: Option<Topics>,
    limits: Limits,
    sampling: SamplingOverrides,
    chunking: Chunking,
    system_prompt: Option<String>,
    model: String,
    /// Tells the ids we make up from those of an earlier run.
    started: u64,
    /// Names requests in here, and jobs.
    counter: u64,
    backlog: Backlog<Waiting>,
    overflow: Overflow,
    running: Option<Running>,
    deliveries: Deliveries,
    tombstones: Tombstones,
    buckets: Buckets,
    estimate: Estimate,
    counts: RequestMetrics,
    figures: Figures,
    events: heapless::Deque<Event, EVENTS>,
    /// Whether the broker keeps requests while we are away.
    has_session: bool,
    stopping: bool,
    /// Whether it ends what it has and takes nothing new.
    draining: bool,
    /// What heat and want of memory ask for.
    strain: Strain,
    control: Control,
    log_prompts: bool,
    /// Whether answers are written down.
    keeps_answers: bool,
}

/// A request that is new to us.
struct Arrival<'a> {
    key: u64,
    request: &'a Request,
    identity: Identity,
    sender: Sender,
    /// Whether there was no room for it when it came.
    waited: bool,
    now: Instant,
}

impl Service {
    /// A service that answers with the model of this name.
    pub fn new(config: &Config, model: String) -> Self {
        let limits = config.limits.clone();
        Self {
            topics: config.topics(),
            group: config.group_topics(),
            sampling: SamplingOverrides::from(&config.generation),
            chunking: Chunking::from(&config.stream),
            system_prompt: config.generation.system_prompt.clone(),
            model,
            started: unix_time(),
            counter: 0,
            backlog: Backlog::new(limits.queue()),
            overflow: Overflow::default(),
            running: None,
            deliveries: Deliveries::new(&config.delivery),
            tombstones: Tombstones::default(),
            buckets: Buckets::new(limits.rate_per_minute, limits.rate_burst),
            estimate: Estimate::default(),
            counts: RequestMetrics::default(),
            figures: Figures::default(),
            events: heapless::Deque::new(),
            has_session: config.broker.session_expiry > 0,
            stopping: false,
            draining: false,
            strain: Strain::default(),
            control: config.control.clone(),
            log_prompts: config.log.prompts,
            keeps_answers: config.delivery.answers_file.is_some(),
            limits,
        }
    }

    /// Takes over what of a configuration can change while it runs, see
    /// [`Config::take_over`]. What waits stays.
    pub fn configure(&mut self, config: &Config) {
        self.limits = config.limits.clone();
        self.sampling = SamplingOverrides::from(&config.generation);
        self.chunking = Chunking::from(&config.stream);
        self.system_prompt = config.generation.system_prompt.clone();
        self.backlog.set_bounds(self.limits.queue());
        self.deliveries.configure(&config.delivery);
        let (per_minute, burst) = (self.limits.rate_per_minute, self.limits.rate_burst);
        self.buckets.set_pace(per_minute, burst);
        self.control = config.control.clone();
        self.log_prompts = config.log.prompts;
    }

    /// Answers with the model of this name from now on.
    pub fn set_model(&mut self, name: String) {
        self.model = name;
    }

    /// Takes a message that came in.
    pub fn on_request(&mut self, request: &Request, now: Instant, out: &mut Vec<Output>) {
        if let Some(chat) = self.is_chat(&request.topic) {
            self.on_question(chat, request, now, out);
            return;
        }
        if request.topic == self.topics.cancel() {
            self.on_cancel(request, now, out);
        } else if request.topic == self.topics.control() {
            self.on_control(request, out);
        } else {
            debug!(topic = request.topic, "not a topic of ours");
        }
        out.extend(request.receipt.map(Output::Ack));
    }

    /// Whether a question on this topic is JSON; `None`: none comes there.
    fn is_chat(&self, topic: &str) -> Option<bool> {
        let all = [Some(&self.topics), self.group.as_ref()];
        let mut all = all.into_iter().flatten();
        all.find_map(|topics| match topic {
            _ if topic == topics.chat() => Some(true),
            _ if topic == topics.ask() => Some(false),
            _ => None,
        })
    }

    fn is_of_group(&self, topic: &str) -> bool {
        let group = self.group.as_ref();
        group.is_some_and(|group| topic == group.chat() || topic == group.ask())
    }

    /// Where the answers to a question on this topic go that names no response topic.
    fn topics_of(&self, topic: &str) -> &Topics {
        match &self.group {
            Some(group) if self.is_of_group(topic) => group,
            _ => &self.topics,
        }
    }

    fn on_question(&mut self, chat: bool, request: &Request, now: Instant, out: &mut Vec<Output>) {
        self.take_question(chat, request, false, now, out);
    }

    /// `waited`: whether there was no room for it when it came.
    fn take_question(
        &mut self,
        chat: bool,
        request: &Request,
        waited: bool,
        now: Instant,
        out: &mut Vec<Output>,
    ) {
        let identity = Identity::of(request);
        match self.deliveries.arrived(&identity, request, now) {
            // The broker keeps it for whoever comes next under our name.
            Known::New if self.stopping && self.has_session && request.receipt.is_some() => return,
            Known::New if !waited && self.overflows(request, now) => {
                debug!("the broker sends more than it was asked for");
                return;
            }
            Known::New => {}
            Known::UnderWay => {
                self.counts.repeated += 1;
                debug!("a request came again while its answer is under way");
                return;
            }
            Known::Answered(answered) => {
                self.send_again(*answered, request.receipt, out);
                return;
            }
        }
        let arrival = Arrival {
            key: self.next_key(),
            request,
            identity,
            sender: if chat {
                Sender::of_json(request)
            } else {
                Sender::of_text(request)
            },
            waited,
            now,
        };
        let named = arrival.sender.named;
        self.deliveries
            .open(arrival.key, identity, named, request.receipt);
        match self.admitted(chat, &arrival) {
            Ok(accepted) => self.enqueue(accepted, &arrival, out),
            Err(refused) => {
                let (route, refusal) = *refused;
                self.refuse(arrival.key, &route, &refusal, out);
            }
        }
    }

    /// Checks first what costs least, so that a flood of requests costs little.
    fn admitted(&mut self, chat: bool, arrival: &Arrival<'_>) -> Result<Accepted, Refused> {
        let request = arrival.request;
        let room = self.room_for(arrival);
        let topics = self.topics_of(&request.topic);
        if let Err(refusal) = room {
            let route = if chat {
                let id = arrival.sender.id.clone();
                let usable = id.filter(|id| check_id(id).is_ok());
                Route::for_chat(request, topics, &self.limits, usable)?
            } else {
                Route::for_ask(request, topics, &self.limits)?
            };
            return Err(Box::new((route, refusal)));
        }
        if chat {
            accept::chat(request, topics, &self.limits)
        } else {
            let system = self.system_prompt.as_deref();
            accept::ask(request, topics, &self.limits, system)
        }
    }

    fn room_for(&mut self, arrival: &Arrival<'_>) -> Result<(), Refusal> {
        if self.stopping {
            return Err(stopping());
        }
        // What the broker gave us of the group's it gives to no other.
        let had = arrival.waited || self.is_of_group(&arrival.request.topic);
        if self.draining && !had {
            return Err(draining());
        }
        if !self.is_of_group(&arrival.request.topic) {
            self.bear(arrival)?;
        }
        let client = arrival.sender.client;
        // One that the broker sends again was counted when it came first.
        if !arrival.request.redelivered
            && let Err(wait) = self.buckets.take(client, arrival.now)
        {
            let problem = "this client asks too often";
            return Err(Refusal::for_now(ErrorCode::RateLimited, problem, wait));
        }
        self.backlog
            .room(client, arrival.request.redelivered)
            .map_err(|full| self.busy(full, arrival.now))
    }

    fn enqueue(&mut self, accepted: Accepted, arrival: &Arrival<'_>, out: &mut Vec<Output>) {
        let Accepted {
            mut route,
            priority,
            prompt,
        } = accepted;
        let &Arrival {
            key,
            request,
            identity,
            ref sender,
            now,
            ..
        } = arrival;
        let mut sampling = prompt.sampling.or(self.sampling);
        if sender.named {
            // Should it have to be computed once more, in another run of the daemon even,
            // nobody will see two texts.
            sampling.seed = sampling.seed.or_else(|| Some(identity.seed()));
        }
        let id = route.id_or(|| match sender.named {
            true => format!("chatcmpl-{:016x}", identity.short()),
            false => format!("chatcmpl-{:x}-{key}", self.started),
        });
        let waiting = Waiting {
            job: Job {
                key,
                prompt: prompt.prompt,
                sampling,
                max_tokens: prompt.max_tokens,
                stop: prompt.stop,
                stream: prompt.stream,
                chunking: self.chunking,
                include_text: prompt.include_text,
                cancel: Cancel::default(),
            },
            route,
            arrived: now,
            expires: request.expires.and_then(|time| now.checked_add(time)),
        };
        if self.tombstones.take(&waiting.route, now) {
            self.give_up(waiting, now, out);
            return;
        }
        let tag = Tag {
            client: sender.client,
            priority,
            arrived: now,
            again: request.redelivered,
        };
        match self.backlog.push(tag, waiting) {
            Ok(()) => {
                let bytes = request.payload.len();
                info!(id, bytes, waiting = self.backlog.len(), "request");
                if self.log_prompts {
                    let prompt = String::from_utf8_lossy(&request.payload);
                    info!(id, ?prompt, "its prompt");
                }
            }
            Err((full, waiting)) => {
                let refusal = self.busy(full, now);
                self.refuse(key, &waiting.route, &refusal, out);
            }
        }
    }

    fn busy(&self, full: Full, now: Instant) -> Refusal {
        let problem = match full {
            Full::Depth => format!("the queue of {} is full", self.backlog.len()),
            Full::Share => format!(
                "this client has its share of the queue, {} requests",
                self.limits.queue().per_client
            ),
        };
        Refusal::for_now(ErrorCode::Busy, &problem, self.wait(now))
    }

    /// How long all that is here now will take.
    fn wait(&self, now: Instant) -> Duration {
        let running = self.running.as_ref().map(|r| r.elapsed(now));
        self.estimate.wait(self.backlog.len(), running)
    }

    fn next_key(&mut self) -> u64 {
        self.counter += 1;
        self.counter
    }

    /// Whether the inference thread has nothing to do.
    pub fn is_idle(&self) -> bool {
        self.running.is_none()
    }

    /// Whether the running job was told to end.
    pub fn is_cancelling(&self) -> bool {
        self.running.as_ref().is_some_and(Running::is_cancelled)
    }

    /// Requests that wait.
    pub fn waiting(&self) -> usize {
        self.backlog.len()
    }

    /// Most requests that may wait.
    pub fn depth(&self) -> usize {
        self.limits.queue_depth
    }

    /// What became of the requests.
    pub fn counts(&self) -> RequestMetrics {
        self.counts
    }
}

fn stopping() -> Refusal {
    Refusal::new(
        ErrorCode::ShuttingDown,
        "this node is going down: try again later or ask another",
    )
}

fn draining() -> Refusal {
    Refusal::new(
        ErrorCode::Draining,
        "this node was told to take nothing new: ask another, or have it told to resume",
    )
}

fn unix_time() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.unwrap_or(Duration::ZERO).as_secs()
}

#[cfg(test)]
mod tests;
