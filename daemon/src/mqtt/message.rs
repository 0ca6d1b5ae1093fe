//! Messages as the rest of the daemon sees them.

use bytes::Bytes;
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
}

impl From<Publish> for Request {
    fn from(publish: Publish) -> Self {
        let properties = publish.properties.unwrap_or_default();
        Self {
            // A topic that is not UTF-8 is none of ours, so it does not matter what it becomes.
            topic: String::from_utf8_lossy(&publish.topic).into_owned(),
            payload: publish.payload,
            response_topic: properties.response_topic,
            correlation: properties.correlation_data,
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

/// A message to publish at least once.
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
        }
    }

    /// Its MQTT 5 properties.
    pub(super) fn properties(&self) -> PublishProperties {
        let content_type = match self.content_type {
            ContentType::Text => CONTENT_TYPE_TEXT,
            ContentType::Json => CONTENT_TYPE_JSON,
        };
        let error = self
            .error
            .map(|code| (ERROR_PROPERTY.to_owned(), code.as_str().to_owned()));
        PublishProperties {
            payload_format_indicator: Some(1),
            correlation_data: self.correlation.clone(),
            user_properties: error.into_iter().collect(),
            content_type: Some(content_type.to_owned()),
            ..Default::default()
        }
    }

    /// Upper bound of its packet's size.
    pub(super) fn packet_size(&self) -> usize {
        /// Fixed header, lengths, packet id, content type and error property.
        const REST: usize = 160;
        let correlation = self.correlation.as_ref().map_or(0, Bytes::len);
        self.topic.len() + self.payload.len() + correlation + REST
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
            ..Message::retained("a/b".to_owned(), vec![b'x'; 70_000], ContentType::Text)
        };
        let mut publish = Publish::new(
            message.topic.clone(),
            rumqttc::v5::mqttbytes::QoS::AtLeastOnce,
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
    fn a_request_without_properties() {
        let publish = Publish::new("a", rumqttc::v5::mqttbytes::QoS::AtMostOnce, "hi", None);
        let expected = Request {
            topic: "a".to_owned(),
            payload: Bytes::from_static(b"hi"),
            ..Request::default()
        };
        assert_eq!(Request::from(publish), expected);
    }
}
