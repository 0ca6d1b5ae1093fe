//! Topic names, and the checks on names that come from outside.

use thiserror::Error;

/// First level of every topic.
const ROOT: &str = "chaski";
/// Longest `id` and node name, in bytes.
const MAX_NAME_BYTES: usize = 64;
/// Longest response topic, in bytes.
const MAX_RESPONSE_TOPIC_BYTES: usize = 1024;
/// The id level of replies to requests that could not be told apart.
const UNKNOWN_ID: &str = "unknown";

/// The topics of one node, or those of its group as that node uses them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topics {
    base: String,
    node: String,
}

impl Topics {
    /// The topics of the node of this name; see [`check_node_name`].
    pub fn new(node: &str) -> Self {
        Self::of_group(node, node)
    }

    /// The topics of a group, at a node of it. Only those that questions come in on, and
    /// that answers go to without a response topic, are there for groups.
    pub fn of_group(group: &str, node: &str) -> Self {
        Self {
            base: format!("{ROOT}/{group}"),
            node: node.to_owned(),
        }
    }

    /// `<node>`: who answers.
    pub fn node(&self) -> &str {
        &self.node
    }

    /// `chaski/<node>`.
    pub fn base(&self) -> &str {
        &self.base
    }

    /// Plain text prompts come in here.
    pub fn ask(&self) -> String {
        format!("{}/ask", self.base)
    }

    /// JSON chat requests come in here.
    pub fn chat(&self) -> String {
        format!("{}/chat", self.base)
    }

    /// Requests to give up a request come in here.
    pub fn cancel(&self) -> String {
        format!("{}/cancel", self.base)
    }

    /// Commands for the node itself come in here, if its configuration lets any be given.
    pub fn control(&self) -> String {
        format!("{}/control", self.base)
    }

    /// Plain text answers to prompts without a response topic.
    pub fn answer(&self) -> String {
        format!("{}/answer", self.base)
    }

    /// Replies to chat requests that have an id but no response topic.
    pub fn reply(&self, id: &str) -> String {
        format!("{}/reply/{id}", self.base)
    }

    /// Errors for chat requests with neither response topic nor usable id.
    pub fn reply_unknown(&self) -> String {
        self.reply(UNKNOWN_ID)
    }

    /// Retained `online` or `offline`.
    pub fn status(&self) -> String {
        format!("{}/status", self.base)
    }

    /// Retained JSON: see [`super::Info`].
    pub fn info(&self) -> String {
        format!("{}/info", self.base)
    }

    /// Retained JSON: the schema of a chat request.
    pub fn schema(&self) -> String {
        format!("{}/schema", self.base)
    }

    /// JSON now and then: see [`super::Metrics`].
    pub fn metrics(&self) -> String {
        format!("{}/metrics", self.base)
    }

    /// JSON for each thing that happens: see [`super::Event`].
    pub fn event(&self) -> String {
        format!("{}/event", self.base)
    }
}

/// Why a name cannot be part of a topic, or a topic cannot be replied to.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum TopicError {
    /// Nothing there.
    #[error("is empty")]
    Empty,
    /// Over the limit.
    #[error("is longer than {0} bytes")]
    TooLong(usize),
    /// A character with a meaning in topics or logs.
    #[error("contains {0:?}, which is not allowed there")]
    Character(char),
    /// `$SYS` and the like belong to the broker.
    #[error("starts with `$`: such topics belong to the broker")]
    Dollar,
    /// Taken by replies without an id.
    #[error("is `{UNKNOWN_ID}`, which is reserved")]
    Reserved,
    /// A topic of Chaski that is not for replies.
    #[error("is one of Chaski's own topics; below `chaski/` use only `chaski/<node>/reply/…`")]
    Own,
}

/// A node name is one topic level without spaces or control characters.
pub fn check_node_name(name: &str) -> Result<(), TopicError> {
    check_level(name)?;
    match name.chars().find(|c| c.is_whitespace()) {
        Some(c) => Err(TopicError::Character(c)),
        None if name.starts_with('$') => Err(TopicError::Dollar),
        None => Ok(()),
    }
}

/// A request id becomes one topic level.
pub fn check_id(id: &str) -> Result<(), TopicError> {
    check_level(id)?;
    if id == UNKNOWN_ID {
        return Err(TopicError::Reserved);
    }
    Ok(())
}

/// A response topic comes from a stranger: it must be publishable and must
/// neither reach the broker's own topics nor start another request.
pub fn check_response_topic(topic: &str) -> Result<(), TopicError> {
    if topic.is_empty() {
        return Err(TopicError::Empty);
    }
    if topic.len() > MAX_RESPONSE_TOPIC_BYTES {
        return Err(TopicError::TooLong(MAX_RESPONSE_TOPIC_BYTES));
    }
    if topic.starts_with('$') {
        return Err(TopicError::Dollar);
    }
    if let Some(c) = topic
        .chars()
        .find(|c| matches!(c, '+' | '#') || c.is_control())
    {
        return Err(TopicError::Character(c));
    }
    let mut levels = topic.split('/');
    if levels.next() == Some(ROOT) {
        let below_reply = levels.nth(1) == Some("reply") && levels.next().is_some();
        if !below_reply {
            return Err(TopicError::Own);
        }
    }
    Ok(())
}

fn check_level(name: &str) -> Result<(), TopicError> {
    if name.is_empty() {
        return Err(TopicError::Empty);
    }
    if name.len() > MAX_NAME_BYTES {
        return Err(TopicError::TooLong(MAX_NAME_BYTES));
    }
    match name
        .chars()
        .find(|c| matches!(c, '+' | '#' | '/') || c.is_control())
    {
        Some(c) => Err(TopicError::Character(c)),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_of_a_node() {
        let topics = Topics::new("kitchen");
        assert_eq!(topics.base(), "chaski/kitchen");
        assert_eq!(topics.node(), "kitchen");
        assert_eq!(topics.ask(), "chaski/kitchen/ask");
        assert_eq!(topics.chat(), "chaski/kitchen/chat");
        assert_eq!(topics.cancel(), "chaski/kitchen/cancel");
        assert_eq!(topics.answer(), "chaski/kitchen/answer");
        assert_eq!(topics.reply("q-1"), "chaski/kitchen/reply/q-1");
        assert_eq!(topics.reply_unknown(), "chaski/kitchen/reply/unknown");
        assert_eq!(topics.status(), "chaski/kitchen/status");
        assert_eq!(topics.info(), "chaski/kitchen/info");
        assert_eq!(topics.control(), "chaski/kitchen/control");
        assert_eq!(topics.schema(), "chaski/kitchen/schema");
        assert_eq!(topics.metrics(), "chaski/kitchen/metrics");
        assert_eq!(topics.event(), "chaski/kitchen/event");
    }

    #[test]
    fn topics_of_a_group() {
        let topics = Topics::of_group("house", "kitchen");
        assert_eq!(topics.node(), "kitchen");
        assert_eq!(topics.chat(), "chaski/house/chat");
        assert_eq!(topics.reply("q-1"), "chaski/house/reply/q-1");
    }

    #[test]
    fn ids_that_would_change_the_topic_are_refused() {
        assert_eq!(check_id("q-1.a:b c"), Ok(()));
        assert_eq!(check_id(""), Err(TopicError::Empty));
        for (id, c) in [
            ("a/b", '/'),
            ("+", '+'),
            ("a#", '#'),
            ("a\0", '\0'),
            ("a\n", '\n'),
        ] {
            assert_eq!(check_id(id), Err(TopicError::Character(c)), "{id:?}");
        }
        assert_eq!(check_id(&"x".repeat(64)), Ok(()));
        assert_eq!(check_id(&"x".repeat(65)), Err(TopicError::TooLong(64)));
        assert_eq!(check_id("unknown"), Err(TopicError::Reserved));
    }

    #[test]
    fn node_names_are_plain() {
        assert_eq!(check_node_name("pi-4.kitchen_1"), Ok(()));
        assert_eq!(check_node_name("my pi"), Err(TopicError::Character(' ')));
        assert_eq!(check_node_name("$share"), Err(TopicError::Dollar));
    }

    #[test]
    fn response_topics_of_every_bad_kind() {
        for good in [
            "me/replies",
            "/",
            "a b",
            "chaski/pi/reply/x",
            "chaski/pi/reply/x/y",
            "chaskix/a",
        ] {
            assert_eq!(check_response_topic(good), Ok(()), "{good}");
        }
        for own in [
            "chaski",
            "chaski/pi/ask",
            "chaski/pi/chat",
            "chaski/pi/cancel",
            "chaski/pi/status",
            "chaski/pi/reply",
        ] {
            assert_eq!(check_response_topic(own), Err(TopicError::Own), "{own}");
        }
        assert_eq!(check_response_topic(""), Err(TopicError::Empty));
        assert_eq!(check_response_topic("$SYS/x"), Err(TopicError::Dollar));
        assert_eq!(
            check_response_topic("a/+/b"),
            Err(TopicError::Character('+'))
        );
        assert_eq!(check_response_topic("a/#"), Err(TopicError::Character('#')));
        assert_eq!(
            check_response_topic("a\0b"),
            Err(TopicError::Character('\0'))
        );
        assert_eq!(
            check_response_topic(&"x".repeat(1025)),
            Err(TopicError::TooLong(1024))
        );
    }
}
