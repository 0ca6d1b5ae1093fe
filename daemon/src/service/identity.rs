//! How a request is known again when it comes a second time.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::mqtt::Request;

/// A request, by all that its client said: where it came in, its response topic,
/// its correlation data and its payload, which has its `id` and `user`.
///
/// The payload is part of it so that a client that starts to count anew is not given
/// the answer to an earlier question of the same number. It is the same in every run
/// of the daemon, and nobody can make another request that has it.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub(super) struct Identity(#[serde(with = "hex::serde")] [u8; 32]);

impl Identity {
    pub(super) fn of(request: &Request) -> Self {
        let mut hash = Sha256::new();
        for part in [
            request.topic.as_bytes(),
            request.response_topic.as_deref().unwrap_or("").as_bytes(),
            request.correlation.as_deref().unwrap_or_default(),
            &request.payload,
        ] {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
        Self(hash.finalize().into())
    }

    /// A seed for sampling: a request that has to be computed again has the same answer.
    pub(super) fn seed(&self) -> u64 {
        first(&self.0)
    }

    /// For a request that has a name, but none to put into its reply.
    pub(super) fn short(&self) -> u64 {
        first(&self.0[8..])
    }
}

/// What can be told of a request before its payload is checked.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Sender {
    /// Whose it is: the response topic, else the JSON `user`, else nobody's. MQTT does
    /// not tell a subscriber who published.
    pub(super) client: u64,
    /// The JSON `id`.
    pub(super) id: Option<String>,
    /// Whether its client gave it a name, correlation data or `id`, by which it may be
    /// sent again.
    pub(super) named: bool,
}

impl Sender {
    /// Of a prompt as plain text.
    pub(super) fn of_text(request: &Request) -> Self {
        Self::new(request, Peek::default())
    }

    /// Of JSON. This costs little: it keeps nothing but two strings.
    pub(super) fn of_json(request: &Request) -> Self {
        let peek = serde_json::from_slice(&request.payload);
        Self::new(request, peek.unwrap_or_default())
    }

    fn new(request: &Request, peek: Peek) -> Self {
        let client = match (&request.response_topic, &peek.user) {
            (Some(topic), _) => digest(b"topic", topic),
            (None, Some(user)) => digest(b"user", user),
            (None, None) => 0,
        };
        let correlated = request.correlation.as_ref().is_some_and(|c| !c.is_empty());
        Self {
            client,
            named: correlated || peek.id.is_some(),
            id: peek.id,
        }
    }
}

#[derive(Default, Deserialize)]
struct Peek {
    id: Option<String>,
    user: Option<String>,
}

fn digest(kind: &[u8], name: &str) -> u64 {
    first(
        &Sha256::new()
            .chain_update(kind)
            .chain_update(name)
            .finalize(),
    )
}

fn first(bytes: &[u8]) -> u64 {
    let eight = bytes.iter().take(8);
    eight.fold(0, |n, &byte| n << 8 | u64::from(byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request() -> Request {
        Request {
            topic: "chaski/n/chat".into(),
            payload: r#"{"id": "q", "user": "me"}"#.into(),
            ..Request::default()
        }
    }

    #[test]
    fn everything_the_client_said_counts() {
        let request = request();
        let identity = Identity::of(&request);
        let dup = Request {
            redelivered: true,
            ..request.clone()
        };
        assert_eq!(Identity::of(&dup), identity);
        let others = [
            Request {
                topic: "chaski/n/ask".into(),
                ..request.clone()
            },
            Request {
                payload: "{}".into(),
                ..request.clone()
            },
            Request {
                response_topic: Some("a".into()),
                ..request.clone()
            },
            // The same bytes in another place.
            Request {
                correlation: Some("a".into()),
                ..request
            },
        ];
        for (i, other) in others.iter().enumerate() {
            assert_ne!(Identity::of(other), identity, "{i}");
            for before in &others[..i] {
                assert_ne!(Identity::of(other), Identity::of(before));
            }
        }
    }

    #[test]
    fn seeds_stay_the_same_from_version_to_version() {
        assert_eq!(Identity::of(&request()).seed(), SEED);
        assert_ne!(Identity::of(&request()).short(), SEED);
    }

    /// SHA-256 of the four parts, each after its length.
    const SEED: u64 = 0xf03a_87ea_12ce_6f0b;

    #[test]
    fn a_client_is_its_response_topic_or_user_or_nobody() {
        let client = |response_topic: Option<&str>, payload: &'static str| {
            let request = Request {
                response_topic: response_topic.map(str::to_owned),
                payload: payload.into(),
                ..Request::default()
            };
            Sender::of_json(&request).client
        };
        let me = r#"{"user": "me"}"#;
        assert_eq!(client(None, "{}"), 0);
        assert_eq!(client(None, "{"), 0);
        assert_ne!(client(None, me), 0);
        assert_ne!(client(None, me), client(None, r#"{"user": "you"}"#));
        assert_ne!(client(Some("me"), me), client(None, me));
        assert_eq!(client(Some("me"), me), client(Some("me"), "{}"));
    }

    #[test]
    fn a_name_is_an_id_or_correlation_data() {
        let sender = Sender::of_json(&request());
        assert_eq!((sender.id.as_deref(), sender.named), (Some("q"), true));
        assert!(!Sender::of_text(&request()).named);
        let with = |data: &'static str| Request {
            correlation: Some(data.into()),
            ..request()
        };
        assert!(Sender::of_text(&with("1")).named);
        assert!(!Sender::of_text(&with("")).named);
    }
}
