//! `[limits]`: what a request, and a client, may ask for.

use std::time::Duration;

use serde::Deserialize;

use super::check::Problems;
use crate::queue::{BACKLOG_CAPACITY, Bounds};

/// MQTT's own limit of one packet is 256 MiB; this daemon keeps a request in memory.
const MAX_PAYLOAD_BYTES: usize = 16 * 1024 * 1024;
const MAX_MESSAGES: usize = 65_536;
/// MQTT has 16 bits for its length.
const MAX_CORRELATION_BYTES: usize = 65_535;
const MIN_JSON_VALUES: usize = 100;
const MAX_JSON_VALUES: usize = 1_000_000;
const MAX_AGING_SECONDS: u64 = 3600;
const MAX_RATE_PER_MINUTE: usize = 60_000;
const MAX_RATE_BURST: usize = 10_000;

/// `[limits]`
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Limits {
    /// Requests that may wait behind the running one.
    pub queue_depth: usize,
    /// Those of one client; `None`: half of them.
    pub per_client_depth: Option<usize>,
    /// Seconds after which a request that waits is as urgent as the next priority.
    pub aging_seconds: u64,
    /// Requests of one client in the long run; 0: any number.
    pub rate_per_minute: usize,
    /// Requests of one client at once.
    pub rate_burst: usize,
    /// Largest text of a request, all messages together.
    pub max_prompt_bytes: usize,
    /// Largest payload of a request.
    pub max_payload_bytes: usize,
    /// Largest correlation data of a request.
    pub max_correlation_bytes: usize,
    /// Most values in the JSON of a request.
    pub max_json_values: usize,
    /// Most messages of a chat request.
    pub max_messages: usize,
    /// Most tokens of an answer.
    pub max_tokens: usize,
    /// What response topics may begin with; empty: anything.
    pub response_prefixes: Vec<String>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            queue_depth: 8,
            per_client_depth: None,
            aging_seconds: 30,
            rate_per_minute: 600,
            rate_burst: 60,
            max_prompt_bytes: 64 * 1024,
            max_payload_bytes: 256 * 1024,
            max_correlation_bytes: 4096,
            max_json_values: 20_000,
            max_messages: 256,
            max_tokens: 512,
            response_prefixes: Vec::new(),
        }
    }
}

impl Limits {
    /// What the queue is bounded by.
    pub fn queue(&self) -> Bounds {
        let half = (self.queue_depth / 2).max(1);
        Bounds {
            depth: self.queue_depth,
            per_client: self.per_client_depth.unwrap_or(half),
            aging: Duration::from_secs(self.aging_seconds),
        }
    }

    pub(super) fn check(&self, found: &mut Problems) {
        let depth = self.queue_depth;
        found.range("limits.queue-depth", depth, 1, BACKLOG_CAPACITY);
        if let Some(share) = self.per_client_depth {
            found.range("limits.per-client-depth", share, 1, depth.max(1));
        }
        if !(1..=MAX_AGING_SECONDS).contains(&self.aging_seconds) {
            found.add(
                "limits.aging-seconds",
                format!("is {}; give 1 to {MAX_AGING_SECONDS}", self.aging_seconds),
            );
        }
        let ranges = [
            (
                "limits.rate-per-minute",
                self.rate_per_minute,
                0,
                MAX_RATE_PER_MINUTE,
            ),
            ("limits.rate-burst", self.rate_burst, 1, MAX_RATE_BURST),
            (
                "limits.max-payload-bytes",
                self.max_payload_bytes,
                256,
                MAX_PAYLOAD_BYTES,
            ),
            (
                "limits.max-prompt-bytes",
                self.max_prompt_bytes,
                1,
                MAX_PAYLOAD_BYTES,
            ),
            (
                "limits.max-correlation-bytes",
                self.max_correlation_bytes,
                0,
                MAX_CORRELATION_BYTES,
            ),
            (
                "limits.max-json-values",
                self.max_json_values,
                MIN_JSON_VALUES,
                MAX_JSON_VALUES,
            ),
            ("limits.max-messages", self.max_messages, 1, MAX_MESSAGES),
            ("limits.max-tokens", self.max_tokens, 1, usize::MAX),
        ];
        for (key, value, min, max) in ranges {
            found.range(key, value, min, max);
        }
        if self.max_prompt_bytes > self.max_payload_bytes {
            found.add(
                "limits.max-prompt-bytes",
                format!(
                    "is {}, more than limits.max-payload-bytes ({}), which holds the prompt",
                    self.max_prompt_bytes, self.max_payload_bytes
                ),
            );
        }
        let useless = |prefix: &&String| {
            prefix.is_empty() || prefix.starts_with('$') || prefix.contains(['+', '#'])
        };
        if let Some(prefix) = self.response_prefixes.iter().find(useless) {
            found.add(
                "limits.response-prefixes",
                format!(
                    "has {prefix:?}; give beginnings of topics, without `+`, `#` and a leading `$`"
                ),
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn keys(limits: Limits) -> Vec<&'static str> {
        let config = Config {
            limits,
            ..Config::for_model("m")
        };
        config.problems().iter().map(|p| p.key).collect()
    }

    #[test]
    fn a_prompt_must_fit_its_payload() {
        let limits = Limits {
            max_payload_bytes: 1000,
            ..Limits::default()
        };
        assert_eq!(keys(limits), ["limits.max-prompt-bytes"]);
    }

    #[test]
    fn one_client_has_half_of_the_queue() {
        let share = |queue_depth, per_client_depth| {
            let limits = Limits {
                queue_depth,
                per_client_depth,
                ..Limits::default()
            };
            limits.queue().per_client
        };
        assert_eq!([share(1, None), share(8, None), share(9, None)], [1, 4, 4]);
        assert_eq!(share(8, Some(7)), 7);
    }

    #[test]
    fn ranges() {
        let limits = Limits {
            queue_depth: 4,
            per_client_depth: Some(5),
            aging_seconds: 0,
            rate_per_minute: MAX_RATE_PER_MINUTE + 1,
            rate_burst: 0,
            max_correlation_bytes: MAX_CORRELATION_BYTES + 1,
            max_json_values: 99,
            ..Limits::default()
        };
        assert_eq!(
            keys(limits),
            [
                "limits.per-client-depth",
                "limits.aging-seconds",
                "limits.rate-per-minute",
                "limits.rate-burst",
                "limits.max-correlation-bytes",
                "limits.max-json-values",
            ]
        );
    }

    #[test]
    fn prefixes_are_beginnings_of_topics() {
        let of = |prefix: &str| Limits {
            response_prefixes: vec!["home/".into(), prefix.into()],
            ..Limits::default()
        };
        assert_eq!(keys(of("me")), [""; 0]);
        for bad in ["", "$SYS", "a/+", "#"] {
            assert_eq!(keys(of(bad)), ["limits.response-prefixes"], "{bad}");
        }
    }
}
