//! The asking side of MQTT: one node, one question at a time.
//!
//! Requests carry an MQTT 5 response topic of this client and correlation data,
//! by which an answer is known; whatever else arrives there is passed over.

mod error;
mod link;

use std::cmp::Ordering;
use std::time::Duration;

use chaski_daemon::wire::{
    CONTENT_TYPE_JSON, ChatChunk, ChatRequest, ChunkChoice, Reply, STATUS_DRAINING, STATUS_OFFLINE,
    STATUS_ONLINE, StreamOptions, Topics, check_node_name,
};
use rumqttc::v5::ConnectionError;
use rumqttc::v5::mqttbytes::v5::{Publish, PublishProperties, SubscribeReasonCode};
use tokio::time::{Instant, timeout_at};

pub use self::error::ClientError;
pub use self::link::BrokerAddress;
use self::link::{Link, Notice};

/// How long the retained status may be on its way.
const STATUS_PATIENCE: Duration = Duration::from_secs(2);
/// How long connecting and subscribing may take in all.
const CONNECT_PATIENCE: Duration = Duration::from_secs(15);

/// Connects, and says goodbye as soon as the broker has taken us.
pub async fn try_connect(broker: &BrokerAddress) -> Result<(), ConnectionError> {
    let mut link = Link::open(broker);
    loop {
        match link.notice().await {
            Some(Notice::Connected) => {
                link.close().await;
                return Ok(());
            }
            Some(Notice::Failed(error)) => return Err(error),
            Some(_) => {}
            // It ends with a failure.
            None => return Err(ConnectionError::RequestsDone),
        }
    }
}

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
    /// The answer so far, up to the first chunk that is missing.
    text: String,
    /// Tells one run of the node from another.
    created: Option<u64>,
    /// Whether text was handed on that is part of no answer any more.
    in_vain: bool,
}

impl Pending {
    fn new(correlation: Vec<u8>) -> Self {
        Self {
            correlation,
            sequence: 0,
            text: String::new(),
            created: None,
            in_vain: false,
        }
    }
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
    ///
    /// The end of a streamed answer is asked to bring its whole text, so that it can
    /// be had when parts were lost.
    pub async fn send(&mut self, request: &ChatRequest) -> Result<(), ClientError> {
        let stream_options = StreamOptions {
            include_text: Some(true),
        };
        let request = ChatRequest {
            stream_options: request.stream.unwrap_or(false).then_some(stream_options),
            ..request.clone()
        };
        let payload = serde_json::to_vec(&request).map_err(|error| ClientError::Garbled {
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
        self.pending = Some(Pending::new(correlation));
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
                self.online = match std::str::from_utf8(&message.payload) {
                    // It is there, and says itself that it takes nothing new.
                    Ok(STATUS_ONLINE | STATUS_DRAINING) => Some(true),
                    Ok(STATUS_OFFLINE) => Some(false),
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
            Reply::Chunk(chunk) => match self.take_chunk(chunk) {
                Ok(chunk) => Ok(chunk.map(Reply::Chunk)),
                Err(problem) => Err(garbled(problem)),
            },
            Reply::Completion(completion) => Ok(Some(Reply::Completion(completion))),
        }
    }

    /// The chunk with the text that comes next, which may be none: behind a gap text is
    /// held back until the end brings the whole.
    fn take_chunk(&mut self, mut chunk: ChatChunk) -> Result<Option<ChatChunk>, String> {
        let before = self.created.replace(chunk.created);
        let mut nothing = ChunkChoice::default();
        let choice = chunk.choices.first_mut().unwrap_or(&mut nothing);
        let whole = choice.message.as_ref().map(|whole| whole.content.as_str());
        if before.is_some_and(|before| before != chunk.created) {
            // The node was restarted in between and has begun anew.
            let goes_on = whole.is_some_and(|whole| whole.starts_with(&self.text));
            if !goes_on {
                self.in_vain |= !self.text.is_empty();
                self.text.clear();
            }
            self.sequence = 0;
        }
        if let Some(whole) = whole {
            let rest = (whole.strip_prefix(self.text.as_str()))
                .ok_or("the whole answer does not begin with its parts")?;
            // Its number does not matter then: the node may have sent it anew.
            let rest = Some(rest.to_owned()).filter(|rest| !rest.is_empty());
            choice.delta.content = rest.map(|rest| self.apart(rest));
            return Ok(Some(chunk));
        }
        match chunk.sequence.cmp(&self.sequence) {
            // At-least-once delivery may bring a chunk twice.
            Ordering::Less => return Ok(None),
            Ordering::Equal => {
                self.sequence = self.sequence.saturating_add(1);
                self.text += choice.delta.content.as_deref().unwrap_or_default();
                let content = choice.delta.content.take();
                choice.delta.content = content.map(|content| self.apart(content));
            }
            Ordering::Greater if choice.finish_reason.is_some() => {
                return Err(format!("part {} of the answer is missing", self.sequence));
            }
            Ordering::Greater => choice.delta.content = None,
        }
        Ok(Some(chunk))
    }

    /// The text to hand on: in a line of its own behind one that came to nothing.
    fn apart(&mut self, text: String) -> String {
        match std::mem::take(&mut self.in_vain) {
            true => format!("\n{text}"),
            false => text,
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

    fn end(sequence: u64, whole: Option<&str>) -> Value {
        let mut end = chunk(sequence);
        let choice = &mut end["choices"][0];
        choice["delta"] = json!({});
        choice["finish_reason"] = "stop".into();
        if let Some(whole) = whole {
            choice["message"] = json!({"role": "assistant", "content": whole});
        }
        end
    }

    /// The text a caller gets of it.
    fn text(pending: &mut Pending, payload: &Value) -> Option<String> {
        match pending.take("pi", &message(&[1, 2], payload)) {
            Ok(Some(Reply::Chunk(chunk))) => chunk.choices[0].delta.content.clone(),
            other => panic!("{other:?}"),
        }
    }

    fn pending() -> Pending {
        Pending::new(vec![1, 2])
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
    fn a_chunk_twice_is_taken_once() {
        let mut pending = pending();
        let first = message(&[1, 2], &chunk(0));
        assert!(matches!(pending.take("pi", &first), Ok(Some(_))));
        assert!(matches!(pending.take("pi", &first), Ok(None)));
        assert_eq!(text(&mut pending, &chunk(1)).as_deref(), Some("x"));
        assert_eq!(text(&mut pending, &end(2, Some("xx"))), None);
    }

    #[test]
    fn what_was_lost_comes_with_the_end() {
        let mut pending = pending();
        assert_eq!(text(&mut pending, &chunk(0)).as_deref(), Some("x"));
        assert_eq!(text(&mut pending, &chunk(2)), None);
        assert_eq!(text(&mut pending, &chunk(3)), None);
        let rest = text(&mut pending, &end(4, Some("xyxx")));
        assert_eq!(rest.as_deref(), Some("yxx"));
    }

    #[test]
    fn an_answer_sent_anew_is_one_message_whatever_its_number() {
        let mut pending = pending();
        for sequence in 0..3 {
            assert_eq!(text(&mut pending, &chunk(sequence)).as_deref(), Some("x"));
        }
        let rest = text(&mut pending, &end(0, Some("xxxyz")));
        assert_eq!(rest.as_deref(), Some("yz"));
    }

    #[test]
    fn an_answer_that_is_begun_anew_stands_in_a_line_of_its_own() {
        let of_another_run = |mut value: Value| {
            value["created"] = 2.into();
            value
        };
        let mut pending = pending();
        assert_eq!(text(&mut pending, &chunk(0)).as_deref(), Some("x"));
        assert_eq!(text(&mut pending, &chunk(1)).as_deref(), Some("x"));
        let anew = of_another_run(chunk(0));
        assert_eq!(text(&mut pending, &anew).as_deref(), Some("\nx"));
        let next = of_another_run(chunk(1));
        assert_eq!(text(&mut pending, &next).as_deref(), Some("x"));
        let last = of_another_run(end(2, Some("xxy")));
        assert_eq!(text(&mut pending, &last).as_deref(), Some("y"));
    }

    #[test]
    fn the_whole_answer_of_another_run_goes_on_where_it_can() {
        for (whole, expected) in [("xyz", "yz"), ("other", "\nother")] {
            let mut pending = pending();
            assert_eq!(text(&mut pending, &chunk(0)).as_deref(), Some("x"));
            let mut last = end(0, Some(whole));
            last["created"] = 2.into();
            assert_eq!(text(&mut pending, &last).as_deref(), Some(expected));
        }
    }

    #[test]
    fn another_text_than_its_parts_is_garbled() {
        let mut pending = pending();
        assert_eq!(text(&mut pending, &chunk(0)).as_deref(), Some("x"));
        let result = pending.take("pi", &message(&[1, 2], &end(1, Some("y"))));
        assert!(matches!(result, Err(ClientError::Garbled { .. })));
    }

    #[test]
    fn a_gap_that_nothing_fills_is_an_error() {
        let mut pending = pending();
        assert_eq!(text(&mut pending, &chunk(0)).as_deref(), Some("x"));
        assert_eq!(text(&mut pending, &chunk(2)), None);
        let error = pending
            .take("pi", &message(&[1, 2], &end(3, None)))
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
