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
