//! A service that a script happens to, and what must hold whatever the script is.
//!
//! - Nothing panics, and no more waits than the queue is deep.
//! - Every message can be published, is no request to a node, and says what it is.
//! - A reply has one last message under way at a time, and only a started job has pieces.
//! - Once all is computed and delivered, the broker was told to forget each request that
//!   came by this connection, exactly once, unless the node was told to stop.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use chaski_daemon::config::Config;
use chaski_daemon::inference::{Completed, Finished, Job};
use chaski_daemon::mqtt::{Message, Receipt, Request};
use chaski_daemon::refusal::Refusal;
use chaski_daemon::service::{Command, Done, Kept, Outcome, Output, Service};
use chaski_daemon::wire::{
    CancelReply, ControlReply, ErrorCode, Reply, Topics, check_response_topic,
};
use chaski_engine::{FinishReason, Generated, Timings};

use crate::script::{Envelope, Fate, Script, Step, Topic};

/// Packet ids that a broker has for requests that are not acknowledged.
const MAX_UNACKNOWLEDGED: usize = 64;

pub struct Node {
    service: Service,
    topics: Topics,
    group: Topics,
    queue_depth: usize,
    now: Instant,
    running: Option<Job>,
    /// Messages that came, for those that come again.
    came: Vec<Request>,
    /// Keys of last messages that the broker has not taken.
    under_way: Vec<u64>,
    generation: u64,
    packet_id: u16,
    /// Requests of this connection, and whether they are acknowledged.
    receipts: BTreeMap<u16, bool>,
    stopped: bool,
    /// Last messages of replies that must arrive.
    pub replies: usize,
    /// Errors of all kinds.
    pub errors: BTreeMap<&'static str, usize>,
}

/// Runs a script to its end, and on until the node has nothing left to do.
pub fn run(script: Script) -> Node {
    let mut node = Node::new(&script);
    for step in script.steps {
        node.step(step);
    }
    node.settle();
    node
}

/// A node that has seen one chat request with this payload, and nothing else.
pub fn run_chat(payload: &[u8]) -> Node {
    let mut node = Node::with(&config());
    let receipt = node.receipt();
    node.message(Request {
        topic: node.topics.chat(),
        receipt,
        payload: payload.to_vec().into(),
        response_topic: Some("me/0".to_owned()),
        ..Request::default()
    });
    node.settle();
    assert_eq!(node.replies, 1, "one request has one reply");
    node
}

fn config() -> Config {
    let mut config = Config::for_model("m");
    config.node.name = "n".to_owned();
    config.node.group = Some("g".to_owned());
    config.control.drain = true;
    config.control.reload = true;
    config.control.models_folder = Some("models".into());
    config.limits.max_prompt_bytes = 200;
    config.limits.max_payload_bytes = 2000;
    config.limits.max_correlation_bytes = 20;
    config.limits.max_json_values = 60;
    config
}

impl Node {
    fn new(script: &Script) -> Self {
        let mut config = config();
        config.limits.queue_depth = usize::from(script.queue_depth % 5) + 1;
        config.limits.per_client_depth = Some(config.limits.queue_depth.div_ceil(2));
        if script.slow_rate {
            config.limits.rate_burst = 3;
        } else {
            config.limits.rate_burst = 100_000;
        }
        if script.own_prefix {
            config.limits.response_prefixes = vec!["me/".to_owned(), "chaski/".to_owned()];
        }
        config.broker.session_expiry = if script.has_session { 600 } else { 0 };
        config.delivery.dedup_entries = usize::from(script.dedup_entries % 4);
        config.delivery.answers_file = Some("answers".into());
        Self::with(&config)
    }

    fn with(config: &Config) -> Self {
        Self {
            service: Service::new(config, "tiny".to_owned()),
            topics: config.topics(),
            group: Topics::of_group("g", "n"),
            queue_depth: config.limits.queue_depth,
            now: Instant::now(),
            running: None,
            came: Vec::new(),
            under_way: Vec::new(),
            generation: 1,
            packet_id: 0,
            receipts: BTreeMap::new(),
            stopped: false,
            replies: 0,
            errors: BTreeMap::new(),
        }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Message(envelope) => {
                let kept = envelope.kept;
                let mut request = self.request(envelope);
                request.receipt = if kept { self.receipt() } else { None };
                self.message(request);
            }
            Step::Again { which, redelivered } => {
                let Some(index) = usize::from(which).checked_rem(self.came.len()) else {
                    return;
                };
                let mut request = self.came[index].clone();
                request.redelivered = redelivered;
                if request.receipt.is_some() {
                    request.receipt = self.receipt();
                }
                self.message(request);
            }
            Step::Wait { seconds } => {
                self.now += Duration::from_secs(seconds.into());
                if self.service.next_timer().is_some_and(|at| at <= self.now) {
                    self.call(|service, now, out| service.on_timer(now, out));
                }
            }
            Step::Start => self.start(),
            Step::Piece(text) => {
                if let Some(key) = self.running.as_ref().map(|job| job.key) {
                    self.call(|service, _, out| service.on_piece(key, text, out));
                }
            }
            Step::Finish { text, failed } => self.finish(text, failed),
            Step::Delivered { which, outcome } => {
                if let Some(index) = usize::from(which).checked_rem(self.under_way.len()) {
                    self.deliver(index, outcome);
                }
            }
            Step::ConnectionLost => {
                self.generation += 1;
                self.receipts.clear();
                self.service.on_connection_lost();
            }
            Step::Stop => {
                self.stopped = true;
                self.call(|service, _, out| service.stop(out));
            }
        }
        assert!(
            self.service.waiting() <= self.queue_depth,
            "more wait than the queue is deep"
        );
    }

    /// Computes what waits and delivers what is sent.
    fn settle(&mut self) {
        loop {
            if self.running.is_some() {
                self.finish("the end".to_owned(), false);
            } else if !self.under_way.is_empty() {
                self.deliver(0, Fate::Taken);
            } else {
                self.start();
                if self.running.is_none() && self.under_way.is_empty() {
                    break;
                }
            }
        }
        assert!(self.service.is_idle() && self.service.waiting() == 0);
        if !self.stopped {
            let kept: Vec<_> = self.receipts.iter().filter(|(_, acked)| !**acked).collect();
            assert!(kept.is_empty(), "never acknowledged: {kept:?}");
        }
    }

    fn request(&self, envelope: Envelope) -> Request {
        Request {
            topic: match envelope.topic {
                Topic::Ask => self.topics.ask(),
                Topic::Chat => self.topics.chat(),
                Topic::Cancel => self.topics.cancel(),
                Topic::Control => self.topics.control(),
                Topic::GroupAsk => self.group.ask(),
                Topic::GroupChat => self.group.chat(),
                Topic::Other => self.topics.status(),
            },
            payload: envelope.payload.bytes().into(),
            response_topic: envelope.response_topic.map(|topic| topic.text()),
            correlation: envelope.correlation.map(Into::into),
            user: envelope
                .user
                .into_iter()
                .map(|(name, value)| (name.into_text(), value))
                .collect(),
            expires: envelope
                .expires_seconds
                .map(|seconds| Duration::from_secs(seconds.into())),
            redelivered: envelope.redelivered,
            receipt: None,
        }
    }

    fn receipt(&mut self) -> Option<Receipt> {
        let kept = self.receipts.values().filter(|acked| !**acked).count();
        if kept >= MAX_UNACKNOWLEDGED || self.packet_id == u16::MAX {
            return None;
        }
        self.packet_id += 1;
        self.receipts.insert(self.packet_id, false);
        Some(Receipt::new(self.generation, self.packet_id))
    }

    fn message(&mut self, request: Request) {
        self.call(|service, now, out| service.on_request(&request, now, out));
        if self.came.len() < MAX_UNACKNOWLEDGED {
            self.came.push(request);
        }
    }

    fn start(&mut self) {
        if self.running.is_none() {
            let mut job = None;
            self.call(|service, now, out| job = service.next_job(now, out));
            self.running = job;
        }
    }

    fn finish(&mut self, text: String, failed: bool) {
        let Some(job) = self.running.take() else {
            return;
        };
        let cancelled = job.cancel.is_set();
        let result = if failed {
            Err(Refusal::new(ErrorCode::Internal, "as the script says"))
        } else {
            Ok(Completed {
                prompt_tokens: 3,
                generated: Generated {
                    text,
                    tokens: vec![1],
                    finish_reason: if cancelled {
                        FinishReason::Cancelled
                    } else {
                        FinishReason::Stop
                    },
                    timings: Timings::default(),
                },
            })
        };
        let finished = Finished {
            key: job.key,
            result,
        };
        self.call(|service, now, out| service.on_finished(finished, now, out));
    }

    fn deliver(&mut self, index: usize, fate: Fate) {
        let key = self.under_way.remove(index);
        let outcome = match fate {
            Fate::Taken => Outcome::Taken,
            Fate::Refused => Outcome::Refused("as the script says".to_owned()),
            Fate::TooLarge => Outcome::TooLarge { size: 2, max: 1 },
        };
        self.call(|service, now, out| service.on_delivered(key, outcome, now, out));
    }

    fn call(&mut self, work: impl FnOnce(&mut Service, Instant, &mut Vec<Output>)) {
        let mut out = Vec::new();
        work(&mut self.service, self.now, &mut out);
        for output in out {
            match output {
                Output::Publish(message) => self.check(&message),
                Output::Final { key, message } => {
                    self.check(&message);
                    self.replies += 1;
                    assert!(!self.under_way.contains(&key), "two last messages at once");
                    self.under_way.push(key);
                }
                Output::Control { command, asker } => {
                    let done = match command {
                        Command::Reload => Ok(Done::Reloaded(vec!["node"])),
                        Command::Model(_) => {
                            Err(Refusal::new(ErrorCode::ModelUnavailable, "none here"))
                        }
                    };
                    let mut out = Vec::new();
                    self.service.on_done(&asker, done, &mut out);
                    for output in out {
                        match output {
                            Output::Publish(message) => self.check(&message),
                            other => panic!("more than an answer to a command: {other:?}"),
                        }
                    }
                }
                Output::Keep(kept) => {
                    let line = serde_json::to_vec(&kept).expect("it can be written");
                    let read: Kept = serde_json::from_slice(&line).expect("and read");
                    assert_eq!(read, *kept);
                }
                Output::Ack(receipt) => {
                    // One of a lost connection is worth nothing, and the link drops it.
                    let of_now = (1..=self.packet_id)
                        .find(|&id| receipt == Receipt::new(self.generation, id));
                    if let Some(acked) = of_now.and_then(|id| self.receipts.get_mut(&id)) {
                        assert!(!*acked, "acknowledged twice");
                        *acked = true;
                    }
                }
            }
        }
    }

    /// A message that goes to a stranger.
    fn check(&mut self, message: &Message) {
        if let Some(code) = message.error {
            *self.errors.entry(code.as_str()).or_default() += 1;
        }
        let topics = &self.topics;
        assert_ne!(message.topic, topics.ask());
        assert_ne!(message.topic, topics.chat());
        assert_ne!(message.topic, topics.cancel());
        assert_ne!(message.topic, topics.control());
        if message.topic != topics.answer() && message.topic != self.group.answer() {
            assert_eq!(check_response_topic(&message.topic), Ok(()), "{message:?}");
        }
        assert!(!message.retain, "a reply that stays: {message:?}");
        let text = std::str::from_utf8(&message.payload).expect("replies are UTF-8");
        let error = text.strip_prefix("error: ");
        match (Reply::parse(text.as_bytes()), message.error) {
            (Ok(Reply::Error(reply)), Some(code)) => assert_eq!(reply.error.code, code.as_str()),
            (_, Some(_)) => assert!(error.is_some_and(|e| !e.is_empty()), "{message:?}"),
            (Ok(Reply::Error(_)), None) => panic!("an error without its property: {message:?}"),
            (Ok(_), None) => {}
            // Plain text, or the answer to a cancel or a command.
            (Err(_), None) => {
                if message.content_type == chaski_daemon::mqtt::ContentType::Json {
                    let cancelled = serde_json::from_str::<CancelReply>(text);
                    let done = serde_json::from_str::<ControlReply>(text);
                    assert!(cancelled.is_ok() || done.is_ok(), "of no kind: {text}");
                }
            }
        }
    }
}
