//! The asking side of MQTT: one node, one question at a time.
//!
//! Requests carry an MQTT 5 response topic of this client and correlation data,
//! by which an answer is known; whatever else arrives there is passed over.

mod error;
mod link;

use std::time::Duration;

use chaski_daemon::wire::{
    CONTENT_TYPE_JSON, ChatRequest, Reply, STATUS_OFFLINE, STATUS_ONLINE, Topics, check_node_name,
};
use rumqttc::v5::mqttbytes::v5::{Publish, PublishProperties, SubscribeReasonCode};
use tokio::time::{Instant, timeout_at};

pub use self::error::ClientError;
pub use self::link::BrokerAddress;
use self::link::{Link, Notice};

/// How long the retained status may be on its way.
const STATUS_PATIENCE: Duration = Duration::from_secs(2);
/// How long connecting and subscribing may take in all.
const CONNECT_PATIENCE: Duration = Duration::from_secs(15);

/// A connection to one node.
#[derive(Debug)]
pub struct Client {
    link: Link,
    node: String,
    topics: Topics,
    response_topic: String,
    address: String,
    connected: bool,
    online: Option<bool>,
    pending: Option<Pending>,
    asked: u64,
}

/// The question whose answer is awaited.
#[derive(Debug)]
struct Pending {
    correlation: Vec<u8>,
    /// The number the next chunk must have.
    sequence: u64,
}

impl Client {
    /// Connects, and subscribes to the node's status and to a topic for answers.
    pub async fn connect(broker: &BrokerAddress, node: &str) -> Result<Self, ClientError> {
        check_node_name(node).map_err(|problem| ClientError::NodeName {
            name: node.to_owned(),
            problem,
        })?;
        let topics = Topics::new(node);
        let link = Link::open(broker);
        let mut client = Self {
            response_topic: topics.reply(&link.client_id),
            link,
            node: node.to_owned(),
            topics,
            address: broker.label(),
            connected: false,
            online: None,
            pending: None,
            asked: 0,
        };
        let late = ClientError::NoBroker {
            address: client.address.clone(),
            problem: "no reply in time".to_owned(),
        };
        match tokio::time::timeout(CONNECT_PATIENCE, client.subscribe()).await {
            Ok(result) => result.map(|()| client),
            Err(_) => Err(late),
        }
    }

    async fn subscribe(&mut self) -> Result<(), ClientError> {
        let status = self.topics.status();
        loop {
            match self.next().await? {
                Notice::Connected => {
                    self.connected = true;
                    self.link
                        .subscribe(&[&status, &self.response_topic])
                        .await
                        .map_err(ClientError::Lost)?;
                }
                Notice::Subscribed(codes) => {
                    let wanted = [&status, &self.response_topic];
                    for (topic, code) in wanted.into_iter().zip(codes) {
                        if !matches!(code, SubscribeReasonCode::Success(_)) {
                            return Err(ClientError::NotAllowed {
                                action: "subscribe to",
                                topic: topic.clone(),
                                reason: format!("{code:?}"),
                            });
                        }
                    }
                    return Ok(());
                }
                other => drop(self.take(other)?),
            }
        }
    }

    /// Waits for the retained status; an error unless the node is online.
    pub async fn require_online(&mut self) -> Result<(), ClientError> {
        let deadline = Instant::now() + STATUS_PATIENCE;
        loop {
            match self.online {
                Some(true) => return Ok(()),
                Some(false) => return Err(ClientError::Offline(self.node.clone())),
                None => {}
            }
            match timeout_at(deadline, self.next()).await {
                Ok(notice) => drop(self.take(notice?)?),
                Err(_) => return Err(ClientError::Unknown(self.node.clone())),
            }
        }
    }

    /// Waits, for as long as it takes, until the node is online.
    pub async fn wait_online(&mut self) -> Result<(), ClientError> {
        while self.online != Some(true) {
            let notice = self.next().await?;
            drop(self.take(notice)?);
        }
        Ok(())
    }

    /// Sends a request; [`Client::reply`] gives what comes back.
    pub async fn send(&mut self, request: &ChatRequest) -> Result<(), ClientError> {
        let payload = serde_json::to_vec(request).map_err(|error| ClientError::Garbled {
            node: self.node.clone(),
            problem: error.to_string(),
        })?;
        self.asked = self.asked.wrapping_add(1);
        let correlation = self.asked.to_be_bytes().to_vec();
        let properties = PublishProperties {
            response_topic: Some(self.response_topic.clone()),
            correlation_data: Some(correlation.clone().into()),
            content_type: Some(CONTENT_TYPE_JSON.to_owned()),
            ..PublishProperties::default()
        };
        self.pending = Some(Pending {
            correlation,
            sequence: 0,
        });
        self.link
            .publish(&self.topics.chat(), payload, properties)
            .await
            .map_err(ClientError::Lost)
    }

    /// The next message of the answer, waiting at most so long for it.
    pub async fn reply(&mut self, patience: Duration) -> Result<Reply, ClientError> {
        let deadline = Instant::now() + patience;
        loop {
            let notice =
                timeout_at(deadline, self.next())
                    .await
                    .map_err(|_| ClientError::TimedOut {
                        node: self.node.clone(),
                        after: patience,
                    })??;
            if let Some(reply) = self.take(notice)? {
                return Ok(reply);
            }
            if self.online == Some(false) {
                return Err(ClientError::Offline(self.node.clone()));
            }
        }
    }

    /// Disconnects properly.
    pub async fn close(self) {
        self.link.close().await;
    }

    async fn next(&mut self) -> Result<Notice, ClientError> {
        match self.link.notice().await {
            Some(Notice::Failed(error)) => Err(ClientError::of_connection(
                &self.address,
                self.connected,
                &error,
            )),
            Some(notice) => Ok(notice),
            None => Err(ClientError::Lost("it is closed".to_owned())),
        }
    }

    /// Sorts a notice in; a part of the awaited answer is returned.
    fn take(&mut self, notice: Notice) -> Result<Option<Reply>, ClientError> {
        match notice {
            Notice::Message(message) if message.topic == self.topics.status().as_bytes() => {
                self.online = match &message.payload[..] {
                    payload if payload == STATUS_ONLINE.as_bytes() => Some(true),
                    payload if payload == STATUS_OFFLINE.as_bytes() => Some(false),
                    _ => None,
                };
                Ok(None)
            }
            Notice::Message(message) => match &mut self.pending {
                Some(pending) => pending.take(&self.node, &message),
                None => Ok(None),
            },
            Notice::PublishRefused(reason) => Err(ClientError::NotAllowed {
                action: "publish to",
                topic: self.topics.chat(),
                reason: format!("{reason:?}"),
            }),
            _ => Ok(None),
        }
    }
}

impl Pending {
    /// Passes over what belongs to another question and what came twice.
    fn take(&mut self, node: &str, message: &Publish) -> Result<Option<Reply>, ClientError> {
        let correlation = message
            .properties
            .as_ref()
            .and_then(|properties| properties.correlation_data.as_ref());
        if correlation.is_none_or(|data| data[..] != self.correlation[..]) {
            return Ok(None);
        }
        let garbled = |problem: String| ClientError::Garbled {
            node: node.to_owned(),
            problem,
        };
        let reply = Reply::parse(&message.payload).map_err(|error| garbled(error.to_string()))?;
        match reply {
            Reply::Error(error) if error.error.code == "busy" => {
                Err(ClientError::Busy(node.to_owned()))
            }
            Reply::Error(error) => Err(ClientError::Refusal {
                node: node.to_owned(),
                error: error.error,
            }),
            // At-least-once delivery may bring a chunk twice.
            Reply::Chunk(chunk) if chunk.sequence < self.sequence => Ok(None),
            Reply::Chunk(chunk) if chunk.sequence > self.sequence => Err(garbled(format!(
                "part {} of the answer is missing",
                self.sequence
            ))),
            Reply::Chunk(chunk) => {
                self.sequence = self.sequence.saturating_add(1);
                Ok(Some(Reply::Chunk(chunk)))
            }
            Reply::Completion(completion) => Ok(Some(Reply::Completion(completion))),
        }
    }
}

#[cfg(test)]
mod tests {
    use chaski_daemon::wire::{ErrorCode, ErrorReply};
    use rumqttc::v5::mqttbytes::QoS;
    use serde_json::{Value, json};

    use super::*;

    fn message(correlation: &[u8], payload: &Value) -> Publish {
        let properties = PublishProperties {
            correlation_data: Some(correlation.to_vec().into()),
            ..PublishProperties::default()
        };
        Publish::new(
            "chaski/pi/reply/me",
            QoS::AtLeastOnce,
            payload.to_string(),
            Some(properties),
        )
    }

    fn chunk(sequence: u64) -> Value {
        json!({
            "id": "a", "object": "chat.completion.chunk", "created": 1, "model": "m",
            "sequence": sequence,
            "choices": [{"index": 0, "delta": {"content": "x"}, "finish_reason": null}]
        })
    }

    fn pending() -> Pending {
        Pending {
            correlation: vec![1, 2],
            sequence: 0,
        }
    }

    #[test]
    fn answers_to_other_questions_are_passed_over() {
        let mut pending = pending();
        let other = pending.take("pi", &message(&[9], &chunk(0)));
        assert!(matches!(other, Ok(None)));
        let mut bare = message(&[1, 2], &chunk(0));
        bare.properties = None;
        assert!(matches!(pending.take("pi", &bare), Ok(None)));
        let own = pending.take("pi", &message(&[1, 2], &chunk(0)));
        assert!(matches!(own, Ok(Some(Reply::Chunk(_)))));
    }

    #[test]
    fn a_chunk_twice_is_taken_once_and_a_gap_is_an_error() {
        let mut pending = pending();
        let first = message(&[1, 2], &chunk(0));
        assert!(matches!(pending.take("pi", &first), Ok(Some(_))));
        assert!(matches!(pending.take("pi", &first), Ok(None)));
        let error = pending
            .take("pi", &message(&[1, 2], &chunk(2)))
            .expect_err("part 1 is missing");
        assert!(
            error
                .to_string()
                .contains("part 1 of the answer is missing")
        );
    }

    #[test]
    fn errors_of_the_node_become_errors() {
        let reply = |code| {
            serde_json::to_value(ErrorReply::new(None, code, "too much")).expect("an error is JSON")
        };
        let busy = pending().take("pi", &message(&[1, 2], &reply(ErrorCode::Busy)));
        assert!(matches!(busy, Err(ClientError::Busy(_))));
        let refusal = pending()
            .take("pi", &message(&[1, 2], &reply(ErrorCode::PromptTooLarge)))
            .expect_err("a refusal");
        assert_eq!(
            refusal.to_string(),
            "node `pi` refuses the question (prompt_too_large): too much"
        );
    }

    #[test]
    fn what_is_not_a_reply_is_garbled() {
        let result = pending().take("pi", &message(&[1, 2], &json!({"no": "reply"})));
        assert!(matches!(result, Err(ClientError::Garbled { .. })));
    }
}
