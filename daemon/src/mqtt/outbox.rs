//! Messages on their way to the broker, kept until it has them.

use std::collections::VecDeque;

use tracing::error;

use super::Message;

/// Messages handed to `rumqttc` and not yet acknowledged by the broker.
pub(super) const WINDOW: usize = 32;
/// Above this many waiting messages, [`Outbox::has_room`] asks for a pause.
const HIGH_WATER: usize = 256;

/// First in, first out; what was in flight when a connection was lost is sent
/// again before anything else.
#[derive(Debug, Default)]
pub struct Outbox {
    waiting: VecDeque<Entry>,
    in_flight: VecDeque<InFlight>,
}

#[derive(Debug)]
struct Entry {
    message: Message,
    /// Only true of the connection it was made for.
    presence: bool,
}

#[derive(Debug)]
struct InFlight {
    entry: Entry,
    /// Known once it is written to the connection, which happens in order.
    packet_id: Option<u16>,
}

impl Outbox {
    /// Adds a message.
    pub fn push(&mut self, message: Message) {
        self.waiting.push_back(Entry {
            message,
            presence: false,
        });
    }

    /// Adds messages about the present connection, to go before all others. They
    /// are dropped with it.
    pub fn push_presence(&mut self, messages: impl DoubleEndedIterator<Item = Message>) {
        for message in messages.rev() {
            self.waiting.push_front(Entry {
                message,
                presence: true,
            });
        }
    }

    /// Whether more text should be produced now. Errors are added all the same:
    /// each answers one message that came in.
    pub fn has_room(&self) -> bool {
        self.waiting.len() < HIGH_WATER
    }

    /// Whether the broker has everything.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.in_flight.is_empty()
    }

    /// The next message to hand to the connection, if the window has room. It
    /// counts as in flight until [`Self::acked`], [`Self::lost`] or [`Self::put_back`].
    pub(super) fn next(&mut self, max_packet_size: Option<usize>) -> Option<&Message> {
        if self.in_flight.len() >= WINDOW {
            return None;
        }
        loop {
            let entry = self.waiting.pop_front()?;
            let size = entry.message.packet_size();
            match max_packet_size {
                Some(max) if size > max => error!(
                    topic = entry.message.topic,
                    size,
                    max,
                    "the broker takes no message of this size: dropped; raise its max_packet_size"
                ),
                _ => {
                    self.in_flight.push_back(InFlight {
                        entry,
                        packet_id: None,
                    });
                    return self.in_flight.back().map(|m| &m.entry.message);
                }
            }
        }
    }

    /// The message [`Self::next`] gave last was not taken.
    pub(super) fn put_back(&mut self) {
        if let Some(message) = self.in_flight.pop_back() {
            self.waiting.push_front(message.entry);
        }
    }

    /// The connection wrote its next message, with this packet id.
    pub(super) fn sent(&mut self, packet_id: u16) {
        if let Some(m) = self.in_flight.iter_mut().find(|m| m.packet_id.is_none()) {
            m.packet_id = Some(packet_id);
        }
    }

    /// The broker acknowledged this packet id.
    pub(super) fn acked(&mut self, packet_id: u16) {
        if let Some(i) = self
            .in_flight
            .iter()
            .position(|m| m.packet_id == Some(packet_id))
        {
            self.in_flight.remove(i);
        }
    }

    /// The connection is gone.
    pub(super) fn lost(&mut self) {
        for message in self.in_flight.drain(..).rev() {
            self.waiting.push_front(message.entry);
        }
        self.waiting.retain(|entry| !entry.presence);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mqtt::ContentType;

    fn message(name: &str) -> Message {
        Message::retained(name.to_owned(), "x", ContentType::Text)
    }

    fn take(outbox: &mut Outbox) -> Vec<String> {
        std::iter::from_fn(|| outbox.next(None).map(|m| m.topic.clone())).collect()
    }

    #[test]
    fn acknowledged_messages_are_forgotten_whatever_the_order() {
        let mut outbox = Outbox::default();
        ["a", "b", "c"].iter().for_each(|n| outbox.push(message(n)));
        assert_eq!(take(&mut outbox), ["a", "b", "c"]);
        (1..=3).for_each(|id| outbox.sent(id));
        outbox.acked(2);
        outbox.acked(9);
        outbox.acked(1);
        assert!(!outbox.is_empty());
        outbox.acked(3);
        assert!(outbox.is_empty());
    }

    #[test]
    fn a_lost_connection_sends_the_rest_again_in_order() {
        let mut outbox = Outbox::default();
        ["a", "b", "c", "d"]
            .iter()
            .for_each(|n| outbox.push(message(n)));
        outbox.next(None).unwrap();
        outbox.next(None).unwrap();
        outbox.next(None).unwrap();
        (1..=2).for_each(|id| outbox.sent(id));
        outbox.acked(1);
        outbox.lost();
        assert_eq!(take(&mut outbox), ["b", "c", "d"]);
    }

    #[test]
    fn presence_goes_first_and_dies_with_its_connection() {
        let mut outbox = Outbox::default();
        outbox.push(message("reply"));
        outbox.push_presence([message("info"), message("status")].into_iter());
        assert_eq!(outbox.next(None).unwrap().topic, "info");
        outbox.lost();
        assert_eq!(take(&mut outbox), ["reply"]);
    }

    #[test]
    fn the_window_is_bounded() {
        let mut outbox = Outbox::default();
        (0..WINDOW + 2).for_each(|i| outbox.push(message(&i.to_string())));
        assert_eq!(take(&mut outbox).len(), WINDOW);
        outbox.sent(1);
        outbox.acked(1);
        assert_eq!(take(&mut outbox), [WINDOW.to_string()]);
        outbox.put_back();
        assert_eq!(take(&mut outbox), [WINDOW.to_string()]);
    }

    #[test]
    fn what_the_broker_would_not_take_is_not_sent() {
        let mut outbox = Outbox::default();
        outbox.push(Message {
            payload: vec![b'x'; 2000].into(),
            ..message("big")
        });
        outbox.push(message("small"));
        assert_eq!(outbox.next(Some(1000)).unwrap().topic, "small");
        assert!(outbox.next(Some(1000)).is_none());
    }

    #[test]
    fn a_full_outbox_asks_for_a_pause() {
        let mut outbox = Outbox::default();
        (0..HIGH_WATER).for_each(|_| outbox.push(message("a")));
        assert!(!outbox.has_room());
        outbox.next(None).unwrap();
        assert!(outbox.has_room());
    }
}
