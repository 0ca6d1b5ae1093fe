//! Messages as the rest of the daemon sees them.

use std::time::Duration;

use bytes::Bytes;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{Publish, PublishProperties};

use crate::wire::{CONTENT_TYPE_JSON, CONTENT_TYPE_TEXT, ERROR_PROPERTY, ErrorCode};

/// A message that came in on one of our topics.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Request {
    /// The topic.
    pub topic: String,
    /// What it says.
    pub payload: Bytes,
    /// Where the answer should go.
    pub response_topic: Option<String>,
    /// To be sent back with the answer.
    pub correlation: Option<Bytes>,
    /// User properties, the first [`MAX_USER_PROPERTIES`] of them.
    pub user: Vec<(String, String)>,
    /// How long it is of use to its sender, from when it came in.
    pub expires: Option<Duration>,
    /// Whether the broker has sent it before, on this connection or another.
    pub redelivered: bool,
    /// For [`super::Link::ack`] once it is dealt with; `None` where the broker asks
    /// for no acknowledgement (QoS 0).
    pub receipt: Option<Receipt>,
}

/// User properties of a request that are looked at.
const MAX_USER_PROPERTIES: usize = 16;

/// The broker's copy of a request, which it keeps until it is acknowledged. It is
/// of the connection that it came in by: later ones use its packet id again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// Counts connections.
    pub(super) generation: u64,
    /// The broker's name for it.
    pub(super) packet_id: u16,
}

impl Receipt {
    /// The link makes them, and tests of those who only hand receipts on.
    pub fn new(generation: u64, packet_id: u16) -> Self {
        Self {
            generation,
            packet_id,
        }
    }
}

impl Request {
    /// A message that came in by the connection of this number.
    pub(super) fn new(publish: Publish, generation: u64) -> Self {
        let properties = publish.properties.unwrap_or_default();
        let mut user = properties.user_properties;
        user.truncate(MAX_USER_PROPERTIES);
        Self {
            // A topic that is not UTF-8 is none of ours, so it does not matter what it becomes.
            topic: String::from_utf8_lossy(&publish.topic).into_owned(),
            payload: publish.payload,
            response_topic: properties.response_topic,
            // A copy: these are slices of the buffer that packets are read into, and a
            // request that waits would keep all of it.
            correlation: properties
                .correlation_data
                .map(|d| Bytes::copy_from_slice(&d)),
            user,
            expires: properties
                .message_expiry_interval
                .map(|seconds| Duration::from_secs(seconds.into())),
            redelivered: publish.dup,
            receipt: (publish.qos != QoS::AtMostOnce).then_some(Receipt {
                generation,
                packet_id: publish.pkid,
            }),
        }
    }
}

/// What kind of text a message holds; all of ours are UTF-8.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContentType {
    /// Plain text.
    Text,
    /// JSON.
    Json,
}

/// A message to publish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// The topic.
    pub topic: String,
    /// What it says.
    pub payload: Bytes,
    /// Whether the broker keeps it for later subscribers.
    pub retain: bool,
    /// Kind of text.
    pub content_type: ContentType,
    /// From the request.
    pub correlation: Option<Bytes>,
    /// Set in an error.
    pub error: Option<ErrorCode>,
    /// Further user properties.
    pub user: Vec<(&'static str, String)>,
    /// How many seconds the broker keeps it for those who are away; `None`: for ever.
    pub expiry: Option<u32>,
    /// Whether it is of so little weight that it may be lost: QoS 0.
    pub droppable: bool,
}

impl Message {
    /// A retained message about this node.
    pub fn retained(topic: String, payload: impl Into<Bytes>, content_type: ContentType) -> Self {
        Self {
            topic,
            payload: payload.into(),
            retain: true,
            content_type,
            correlation: None,
            error: None,
            user: Vec::new(),
            expiry: None,
            droppable: false,
        }
    }

    /// Its MQTT 5 properties.
    pub(super) fn properties(&self) -> PublishProperties {
        let content_type = match self.content_type {
            ContentType::Text => CONTENT_TYPE_TEXT,
            ContentType::Json => CONTENT_TYPE_JSON,
        };
        let error = self.error.map(|code| (ERROR_PROPERTY, code.as_str()));
        let user = self
            .user
            .iter()
            .map(|(name, value)| (*name, value.as_str()));
        PublishProperties {
            payload_format_indicator: Some(1),
            message_expiry_interval: self.expiry,
            correlation_data: self.correlation.clone(),
            user_properties: error
                .into_iter()
                .chain(user)
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .collect(),
            content_type: Some(content_type.to_owned()),
            ..Default::default()
        }
    }

    /// Upper bound of its packet's size.
    pub(super) fn packet_size(&self) -> usize {
        /// Fixed header, lengths, packet id, expiry, content type and error property.
        const REST: usize = 160;
        /// Of a user property: its kind and the lengths of its two strings.
        const USER_PROPERTY: usize = 5;
        let correlation = self.correlation.as_ref().map_or(0, Bytes::len);
        let user = self.user.iter();
        let user = user.map(|(name, value)| name.len() + value.len() + USER_PROPERTY);
        self.topic.len() + self.payload.len() + correlation + user.sum::<usize>() + REST
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn properties_of_a_reply() {
        let reply = Message {
            correlation: Some(Bytes::from_static(b"\x01")),
            error: Some(ErrorCode::Busy),
            ..Message::retained("t".to_owned(), "x", ContentType::Json)
        };
        let properties = reply.properties();
        assert_eq!(properties.correlation_data.as_deref(), Some(&b"\x01"[..]));
        assert_eq!(properties.content_type.as_deref(), Some("application/json"));
        assert_eq!(
            properties.user_properties,
            [("error".to_owned(), "busy".to_owned())]
        );
        assert_eq!(properties.payload_format_indicator, Some(1));
    }

    #[test]
    fn the_size_is_not_underestimated() {
        let message = Message {
            correlation: Some(vec![0; 300].into()),
            error: Some(ErrorCode::ContextLengthExceeded),
            user: vec![("node", "x".repeat(64)), ("status", "error".into())],
            expiry: Some(9),
            ..Message::retained("a/b".to_owned(), vec![b'x'; 70_000], ContentType::Text)
        };
        let mut publish = Publish::new(
            message.topic.clone(),
            QoS::AtLeastOnce,
            message.payload.clone(),
            Some(message.properties()),
        );
        publish.pkid = 1;
        let size = publish.size();
        assert!(
            (size..size + 200).contains(&message.packet_size()),
            "{size}"
        );
    }

    #[test]
    fn what_a_broker_keeps_has_a_receipt() {
        let mut publish = Publish::new("a", QoS::AtLeastOnce, "hi", None);
        (publish.pkid, publish.dup) = (7, true);
        let request = Request::new(publish, 3);
        let receipt = Receipt {
            generation: 3,
            packet_id: 7,
        };
        assert_eq!(request.receipt, Some(receipt));
        assert!(request.redelivered);
    }

    #[test]
    fn a_request_without_properties() {
        let publish = Publish::new("a", QoS::AtMostOnce, "hi", None);
        let expected = Request {
            topic: "a".to_owned(),
            payload: Bytes::from_static(b"hi"),
            ..Request::default()
        };
        assert_eq!(Request::new(publish, 1), expected);
    }
}
