//! A service at hand, and the messages that come and go.

use std::time::{Duration, Instant};

use chaski_engine::{FinishReason, Generated, Timings};
use serde_json::{Value, json};

use crate::config::Config;
use crate::inference::{Completed, Finished, Job};
use crate::mqtt::{Message, Receipt, Request};
use crate::service::{Outcome, Output, Service};

/// A service, and what it asked for in the call before.
pub(super) struct Node {
    pub(super) service: Service,
    pub(super) now: Instant,
}

pub(super) fn config(queue_depth: usize) -> Config {
    let mut config = Config::for_model("m");
    config.node.name = "n".into();
    config.limits.queue_depth = queue_depth;
    config.limits.per_client_depth = Some(queue_depth);
    config.generation.temperature = Some(0.5);
    config
}

pub(super) fn node(queue_depth: usize) -> Node {
    Node::new(&config(queue_depth))
}

impl Node {
    pub(super) fn new(config: &Config) -> Self {
        Self {
            service: Service::new(config, "tiny".into()),
            now: Instant::now(),
        }
    }

    pub(super) fn wait(&mut self, seconds: u64) {
        self.now += Duration::from_secs(seconds);
    }

    pub(super) fn request(&mut self, request: &Request) -> Vec<Output> {
        let mut out = Vec::new();
        self.service.on_request(request, self.now, &mut out);
        out
    }

    pub(super) fn accept(&mut self, request: &Request) {
        assert_eq!(self.request(request), []);
    }

    /// The next job, which asks for nothing else.
    pub(super) fn next_job(&mut self) -> Option<Job> {
        let mut out = Vec::new();
        let job = self.service.next_job(self.now, &mut out);
        assert_eq!(out, []);
        job
    }

    pub(super) fn start(&mut self) -> Job {
        self.next_job().unwrap()
    }

    pub(super) fn piece(&mut self, key: u64, text: &str) -> Vec<Output> {
        let mut out = Vec::new();
        self.service.on_piece(key, text.into(), &mut out);
        out
    }

    pub(super) fn finished(&mut self, finished: Finished) -> Vec<Output> {
        let mut out = Vec::new();
        self.service.on_finished(finished, self.now, &mut out);
        out
    }

    /// The end of a job, and its reply.
    pub(super) fn finish(&mut self, key: u64, text: &str) -> Message {
        message(self.finished(finished(key, text)))
    }

    pub(super) fn timer(&mut self) -> Vec<Output> {
        let mut out = Vec::new();
        self.service.on_timer(self.now, &mut out);
        out
    }

    pub(super) fn delivered(&mut self, key: u64, outcome: Outcome) -> Vec<Output> {
        let mut out = Vec::new();
        self.service.on_delivered(key, outcome, self.now, &mut out);
        out
    }

    pub(super) fn stop(&mut self) -> Vec<Output> {
        let mut out = Vec::new();
        self.service.stop(&mut out);
        out
    }
}

/// The one message in there.
pub(super) fn message(outputs: Vec<Output>) -> Message {
    final_of(outputs).1
}

/// The one message in there, and its key if it has one.
pub(super) fn final_of(outputs: Vec<Output>) -> (Option<u64>, Message) {
    let mut outputs = outputs.into_iter();
    let first = match outputs.next() {
        Some(Output::Publish(message)) => (None, message),
        Some(Output::Final { key, message }) => (Some(key), message),
        other => panic!("no message: {other:?}"),
    };
    assert_eq!(outputs.next(), None);
    first
}

pub(super) fn property<'a>(message: &'a Message, name: &str) -> Option<&'a str> {
    let mut found = message.user.iter().filter(|(n, _)| *n == name);
    found.next().map(|(_, value)| value.as_str())
}

/// As the broker sends it and keeps it: of connection 1.
pub(super) fn kept(request: Request, packet_id: u16) -> Request {
    Request {
        receipt: Some(Receipt::new(1, packet_id)),
        ..request
    }
}

pub(super) fn chat(id: &str, stream: bool) -> Request {
    let payload =
        json!({"id": id, "stream": stream, "messages": [{"role": "user", "content": "hi"}]});
    Request {
        topic: "chaski/n/chat".into(),
        payload: payload.to_string().into(),
        ..Request::default()
    }
}

pub(super) fn ask(prompt: &'static str) -> Request {
    Request {
        topic: "chaski/n/ask".into(),
        payload: prompt.into(),
        ..Request::default()
    }
}

pub(super) fn finished(key: u64, text: &str) -> Finished {
    ended(key, text, FinishReason::Stop)
}

pub(super) fn ended(key: u64, text: &str, finish_reason: FinishReason) -> Finished {
    Finished {
        key,
        result: Ok(Completed {
            prompt_tokens: 5,
            generated: Generated {
                text: text.into(),
                tokens: vec![1, 2],
                finish_reason,
                timings: Timings {
                    prefill_tokens: 4,
                    cached_tokens: 1,
                    prefill: Duration::from_secs(2),
                    decode_tokens: 3,
                    decode: Duration::from_secs(1),
                    ..Timings::default()
                },
            },
        }),
    }
}

pub(super) fn parsed(message: &Message) -> Value {
    serde_json::from_slice(&message.payload).unwrap()
}
