//! The connection to the broker.
//!
//! `rumqttc` is seen only in here. Its traps are met as follows: every connection
//! gets a new event loop, so that nothing of a lost one (packet ids, collisions,
//! pending publishes) is left; what was not acknowledged waits in our own
//! [`Outbox`] and is sent again; the task that polls only passes events on, so it
//! cannot wait for itself; the packet size is announced to the broker, which then
//! does not send what would be fatal; a poll that gives no sign for longer than
//! the keep-alive allows is given up.

mod backoff;
mod connection;
mod link;
mod message;
mod options;
mod outbox;
mod tls;

pub use link::{Link, LinkEvent, LinkSettings};
pub use message::{ContentType, Message, Receipt, Request};
pub use outbox::Outbox;
pub use tls::Tls;
