//! The connection to the broker.
//!
//! `rumqttc` is seen only in here. Its traps are met as follows:
//!
//! - *Incoming packets above 10 KiB are fatal by default.* The size that we take is
//!   announced to the broker, which then does not send more. If it does all the same,
//!   and again on the next connections, its session is left behind (`poison`).
//! - *A CONNACK without session clears what was not acknowledged; a collision of packet
//!   ids outlives its connection.* Every connection gets a new event loop, so that nothing
//!   of a lost one is left; what was not acknowledged waits in our own [`Outbox`].
//! - *Packet ids collide when the broker acknowledges out of order.* The outbox counts its
//!   window from the oldest message without acknowledgement, and the circle of ids is
//!   twice as large.
//! - *The table of messages in flight takes 14 MB.* Ours has 64 places.
//! - *It connects again at once.* `backoff` waits.
//! - *A keep-alive below 5 s panics, one of zero pings without end.* Neither gets there.
//! - *Acknowledgements of requests wait while its window is full.* The broker's receive
//!   maximum is kept by the outbox alone; `rumqttc` is told a larger one, so that its
//!   window is never full. Its channel has room for all acknowledgements and both windows.
//! - *A full channel blocks the task that polls when it publishes.* That task only passes
//!   events on; messages come from the daemon's own task, which never waits for it.
//! - *A poll may hang in a write.* One that gives no sign for longer than the keep-alive
//!   allows is given up.
//!
//! Requests are acknowledged when the service says so, in the order they came (`acks`).

mod acks;
mod backoff;
mod connection;
mod failure;
mod link;
mod message;
mod options;
mod outbox;
mod poison;
mod subscriptions;
mod tls;

pub use link::{Link, LinkEvent, LinkSettings};
pub use message::{ContentType, Message, Receipt, Request};
pub use outbox::{Delivered, Outbox};
pub use subscriptions::Subscription;
pub use tls::Tls;
