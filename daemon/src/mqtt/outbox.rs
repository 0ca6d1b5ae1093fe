//! Messages on their way to the broker, kept until it has them.

use std::collections::VecDeque;

use tracing::error;

use super::Message;

/// Most messages handed to `rumqttc` that the broker has not acknowledged, and as many
/// of those that it does not acknowledge and that are not yet written.
pub(super) const WINDOW: usize = 32;
/// Above this many waiting messages, [`Outbox::has_room`] asks for a pause.
const HIGH_WATER: usize = 256;
/// Most droppable messages that wait, and most bytes of them.
const MAX_DROPPABLE: usize = 512;
const MAX_DROPPABLE_BYTES: usize = 1024 * 1024;

/// First in, first out; what was in flight when a connection was lost is sent
/// again before anything else.
#[derive(Debug, Default)]
pub struct Outbox {
    waiting: VecDeque<Entry>,
    in_flight: VecDeque<InFlight>,
    /// Of the waiting messages, those that may be dropped.
    droppable: Load,
    dropped: u64,
    /// Droppable messages handed over and not yet written.
    unwritten: usize,
    outcomes: VecDeque<(u64, Delivered)>,
}

/// What became of a message that [`Outbox::push_final`] took.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Delivered {
    /// The broker has it; a droppable one: it was handed to the connection.
    Taken,
    /// The broker will not have it, for this reason.
    Refused(String),
    /// The broker would end the connection.
    TooLarge {
        /// Bytes of its packet, at most.
        size: usize,
        /// Bytes the broker takes.
        max: usize,
    },
}

/// What the connection takes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Room {
    /// Most messages without acknowledgement, up to [`WINDOW`].
    pub(super) window: usize,
    /// Largest packet.
    pub(super) max_packet_size: Option<usize>,
}

#[derive(Debug)]
struct Entry {
    message: Message,
    kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Nobody asks what becomes of it.
    Plain,
    /// Only true of the connection it was made for.
    Presence,
    /// With the key to tell its outcome by.
    Final(u64),
}

#[derive(Debug)]
struct InFlight {
    /// `None` once it is acknowledged, while one before it is not.
    entry: Option<Entry>,
    /// Known once it is written to the connection, which happens in order.
    packet_id: Option<u16>,
}

#[derive(Debug, Default)]
struct Load {
    messages: usize,
    bytes: usize,
}

impl Load {
    fn add(&mut self, entry: &Entry) {
        if entry.message.droppable {
            self.messages += 1;
            self.bytes += entry.message.packet_size();
        }
    }

    fn remove(&mut self, entry: &Entry) {
        if entry.message.droppable {
            self.messages -= 1;
            self.bytes -= entry.message.packet_size();
        }
    }

    fn is_too_much(&self) -> bool {
        self.messages > MAX_DROPPABLE || self.bytes > MAX_DROPPABLE_BYTES
    }
}

impl Outbox {
    /// Adds a message.
    pub fn push(&mut self, message: Message) {
        self.push_entry(message, Kind::Plain);
    }

    /// Adds a message whose outcome [`super::LinkEvent::Delivered`] tells with this key.
    pub fn push_final(&mut self, key: u64, message: Message) {
        self.push_entry(message, Kind::Final(key));
    }

    fn push_entry(&mut self, message: Message, kind: Kind) {
        let entry = Entry { message, kind };
        self.droppable.add(&entry);
        self.waiting.push_back(entry);
        while self.droppable.is_too_much() && self.drop_oldest() {}
    }

    /// Adds messages about the present connection, to go before all others, in place of
    /// what waits of that kind for the same topics. They are dropped with it.
    pub fn push_presence(&mut self, messages: impl DoubleEndedIterator<Item = Message>) {
        for message in messages.rev() {
            let droppable = &mut self.droppable;
            self.waiting.retain(|entry| {
                let kept = entry.kind != Kind::Presence || entry.message.topic != message.topic;
                if !kept {
                    droppable.remove(entry);
                }
                kept
            });
            let entry = Entry {
                message,
                kind: Kind::Presence,
            };
            self.droppable.add(&entry);
            self.waiting.push_front(entry);
        }
    }

    /// Drops the oldest message that may be dropped, if there is one.
    fn drop_oldest(&mut self) -> bool {
        let oldest = self.waiting.iter().position(|e| e.message.droppable);
        let Some(entry) = oldest.and_then(|i| self.waiting.remove(i)) else {
            return false;
        };
        self.droppable.remove(&entry);
        self.dropped += 1;
        if let Kind::Final(key) = entry.kind {
            let reason = "too many messages wait for the connection".to_owned();
            self.outcomes.push_back((key, Delivered::Refused(reason)));
        }
        true
    }

    /// How many droppable messages were dropped because too many of them waited.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Whether more text should be produced now. Droppable messages do not count:
    /// others could stop a generation with them.
    pub fn has_room(&self) -> bool {
        self.waiting.len() - self.droppable.messages < HIGH_WATER
    }

    /// Whether the broker has everything.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.in_flight.is_empty()
    }

    /// The next outcome of a message with a key.
    pub(super) fn outcome(&mut self) -> Option<(u64, Delivered)> {
        self.outcomes.pop_front()
    }

    /// The next message to hand to the connection, if that has room;
    /// [`Self::handed_over`] then takes it off the queue.
    pub(super) fn next(&mut self, room: Room) -> Option<&Message> {
        self.skip_too_large(room.max_packet_size);
        let message = &self.waiting.front()?.message;
        let full = if message.droppable {
            self.unwritten >= WINDOW
        } else {
            // Counted from the oldest without acknowledgement, so that packet ids, which
            // `rumqttc` takes from a circle, never meet one that is still in use.
            self.in_flight.len() >= room.window
        };
        (!full).then_some(message)
    }

    fn skip_too_large(&mut self, max: Option<usize>) {
        let Some(max) = max else { return };
        while let Some(size) = self.waiting.front().map(|e| e.message.packet_size()) {
            if size <= max {
                return;
            }
            let Some(entry) = self.take_first() else {
                return;
            };
            match entry.kind {
                Kind::Final(key) => self
                    .outcomes
                    .push_back((key, Delivered::TooLarge { size, max })),
                Kind::Plain | Kind::Presence => error!(
                    topic = entry.message.topic,
                    size,
                    max,
                    "the broker takes no message of this size: dropped; raise its max_packet_size"
                ),
            }
        }
    }

    fn take_first(&mut self) -> Option<Entry> {
        let entry = self.waiting.pop_front()?;
        self.droppable.remove(&entry);
        Some(entry)
    }

    /// The connection took the message that [`Self::next`] gave. It is in flight until
    /// [`Self::acked`] or [`Self::lost`]; a droppable one is done.
    pub(super) fn handed_over(&mut self) {
        let Some(entry) = self.take_first() else {
            return;
        };
        if !entry.message.droppable {
            self.in_flight.push_back(InFlight {
                entry: Some(entry),
                packet_id: None,
            });
            return;
        }
        self.unwritten += 1;
        if let Kind::Final(key) = entry.kind {
            self.outcomes.push_back((key, Delivered::Taken));
        }
    }

    /// The connection wrote its next message, with this packet id; 0: a droppable one.
    pub(super) fn sent(&mut self, packet_id: u16) {
        if packet_id == 0 {
            self.unwritten = self.unwritten.saturating_sub(1);
        } else if let Some(m) = self.in_flight.iter_mut().find(|m| m.packet_id.is_none()) {
            m.packet_id = Some(packet_id);
        }
    }

    /// The broker acknowledged this packet id; `refused`: why it will not have it.
    pub(super) fn acked(&mut self, packet_id: u16, refused: Option<String>) {
        let mut in_flight = self.in_flight.iter_mut();
        let acked = in_flight.find(|m| m.packet_id == Some(packet_id));
        let Some(entry) = acked.and_then(|m| m.entry.take()) else {
            return;
        };
        while self.in_flight.front().is_some_and(|m| m.entry.is_none()) {
            self.in_flight.pop_front();
        }
        match (entry.kind, refused) {
            (Kind::Final(key), None) => self.outcomes.push_back((key, Delivered::Taken)),
            (Kind::Final(key), Some(reason)) => {
                self.outcomes.push_back((key, Delivered::Refused(reason)))
            }
            (_, Some(reason)) => error!(
                topic = entry.message.topic,
                reason, "the broker refuses a message: dropped; check its access rules"
            ),
            (_, None) => {}
        }
    }

    /// The connection is gone.
    pub(super) fn lost(&mut self) {
        let unacknowledged = self.in_flight.drain(..).filter_map(|m| m.entry);
        for entry in unacknowledged.rev() {
            self.waiting.push_front(entry);
        }
        self.unwritten = 0;
        let droppable = &mut self.droppable;
        self.waiting.retain(|entry| {
            let kept = entry.kind != Kind::Presence;
            if !kept {
                droppable.remove(entry);
            }
            kept
        });
    }
}

#[cfg(test)]
mod tests;
