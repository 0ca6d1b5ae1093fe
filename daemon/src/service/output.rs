//! What the service asks of its surroundings, and what it counts.

use super::{Asker, Command, Kept};
use crate::mqtt::{Message, Receipt};

/// Something to do, in the order given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Send a message.
    Publish(Message),
    /// Send the last message of a reply, and tell [`super::Service::on_delivered`] what
    /// became of it.
    Final {
        /// Its name there.
        key: u64,
        /// The message.
        message: Message,
    },
    /// Write an answer down before the next output, for [`super::Service::restore`] in
    /// another run.
    Keep(Box<Kept>),
    /// Tell the broker that it may forget a request.
    Ack(Receipt),
    /// Do what the node was told, and tell [`super::Service::on_done`] what came of it.
    Control {
        /// What.
        command: Command,
        /// Who wants to know.
        asker: Asker,
    },
}

/// What became of the last message of a reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The broker has it.
    Taken,
    /// The broker does not want it, for this reason.
    Refused(String),
    /// The broker takes no message of this size; it was not sent.
    TooLarge {
        /// Bytes of its packet.
        size: usize,
        /// Most bytes that the broker takes.
        max: usize,
    },
}

/// What became of the requests since the daemon started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Computed to their end.
    pub answered: u64,
    /// Given up for their client.
    pub cancelled: u64,
    /// Answered with an error, whatever it was.
    pub refused: u64,
    /// Those of them that found no room to wait.
    pub busy: u64,
    /// Those of them that waited too long.
    pub expired: u64,
    /// Came again, and were not computed for that.
    pub repeated: u64,
    /// Replies that the broker did not want.
    pub undelivered: u64,
}
