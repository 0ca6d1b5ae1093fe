//! The daemon's end of the connection: what came in, and the outbox.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rumqttc::v5::mqttbytes::QoS;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tracing::debug;

use super::acks::Ledger;
use super::connection::{Connected, Connector, Signal, acknowledge, subscribe, unsubscribe};
use super::options::mqtt_options;
use super::subscriptions::{Subscription, Topics};
use super::{Delivered, Message, Outbox, Receipt, Request, Tls};
use crate::config::Secret;

/// Signals from the polling task that were not looked at yet. Each may hold a
/// request of the largest size.
const SIGNALS: usize = 16;
/// How much longer than two keep-alives a connection may give no sign.
const GRACE: Duration = Duration::from_secs(5);
/// How long a DISCONNECT may take to be written.
const DISCONNECT_PATIENCE: Duration = Duration::from_secs(1);

/// What a link must know.
#[derive(Clone, Debug)]
pub struct LinkSettings {
    /// Name or address of the broker.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// Our name there.
    pub client_id: String,
    /// Username and password.
    pub credentials: Option<(String, Secret)>,
    /// How to encrypt; `None`: not at all.
    pub tls: Option<Tls>,
    /// Seconds between signs of life; at least 5.
    pub keep_alive: u16,
    /// Seconds for which the broker keeps requests while we are away; 0: not at all.
    pub session_expiry: u32,
    /// Most requests that the broker sends before the first of them is acknowledged.
    pub receive_maximum: u16,
    /// Largest payload that matters to us.
    pub max_payload_bytes: usize,
    /// Published by the broker when we vanish.
    pub last_will: Message,
    /// What to listen to.
    pub topics: Vec<Subscription>,
}

/// What a link tells.
#[derive(Debug, PartialEq, Eq)]
pub enum LinkEvent {
    /// Connected, and subscribed to everything: time to say so.
    Up,
    /// The connection is gone; the link tries again by itself.
    Down,
    /// A message came in. If it has a receipt, [`Link::ack`] it in the end.
    Request(Request),
    /// The broker took a message out of the outbox.
    Taken,
    /// What became of a message with a key.
    Delivered {
        /// The one that [`Outbox::push_final`] was given.
        key: u64,
        /// What became of it.
        outcome: Delivered,
    },
    /// The task that polls is gone, which only a fault in it explains.
    Ended,
}

/// A connection that comes back.
#[derive(Debug)]
pub struct Link {
    /// Messages to send; [`Self::pump`] sends them.
    pub outbox: Outbox,
    topics: Topics,
    acks: Ledger,
    signals: mpsc::Receiver<Signal>,
    connection: Option<Connected>,
    subscribed: bool,
    /// Tells the task that we disconnect.
    leaving: Arc<AtomicBool>,
    task: JoinHandle<()>,
}

impl Link {
    /// Starts to connect, on a task of its own.
    pub fn start(settings: &LinkSettings) -> Self {
        Self::start_with_grace(settings, GRACE)
    }

    /// Like [`Self::start`], for tests of a connection that hangs: it is given up when
    /// it gave no sign for two keep-alives and this.
    pub fn start_with_grace(settings: &LinkSettings, grace: Duration) -> Self {
        let (sender, signals) = mpsc::channel(SIGNALS);
        let leaving = Arc::new(AtomicBool::new(false));
        let topics = Topics::new(settings.topics.clone());
        let connector = Connector {
            options: mqtt_options(settings),
            topics: topics.clone(),
            receive_maximum: settings.receive_maximum,
            grace,
            leaving: Arc::clone(&leaving),
            signals: sender,
        };
        Self {
            outbox: Outbox::default(),
            topics,
            acks: Ledger::default(),
            signals,
            connection: None,
            subscribed: false,
            leaving,
            task: tokio::spawn(connector.run()),
        }
    }

    /// Waits for something others need to know, pumping meanwhile. Can be dropped at
    /// any time.
    pub async fn next_event(&mut self) -> LinkEvent {
        loop {
            if let Some((key, outcome)) = self.outbox.outcome() {
                return LinkEvent::Delivered { key, outcome };
            }
            let Some(signal) = self.signals.recv().await else {
                return LinkEvent::Ended;
            };
            if let Some(event) = self.handle(signal) {
                return event;
            }
            self.pump();
        }
    }

    fn handle(&mut self, signal: Signal) -> Option<LinkEvent> {
        match signal {
            Signal::Connected(connected) => {
                self.acks.connected(connected.generation);
                self.connection = Some(connected);
                None
            }
            Signal::Subscribed => {
                self.subscribed = true;
                Some(LinkEvent::Up)
            }
            Signal::Request(request) => {
                let receipt = request.receipt;
                if receipt.is_some_and(|receipt| !self.acks.received(receipt)) {
                    debug!(topic = request.topic, "sent again, but we have it");
                    return None;
                }
                Some(LinkEvent::Request(request))
            }
            Signal::Sent(packet_id) => {
                self.outbox.sent(packet_id);
                None
            }
            Signal::Acked { packet_id, refused } => {
                self.outbox.acked(packet_id, refused);
                let outcome = self.outbox.outcome();
                Some(
                    outcome.map_or(LinkEvent::Taken, |(key, outcome)| LinkEvent::Delivered {
                        key,
                        outcome,
                    }),
                )
            }
            Signal::Lost => {
                self.connection = None;
                self.subscribed = false;
                self.outbox.lost();
                Some(LinkEvent::Down)
            }
        }
    }

    /// Whether there is a connection now.
    pub fn is_connected(&self) -> bool {
        self.connection.is_some()
    }

    /// Whether there is a connection that is told of, and all is subscribed to.
    pub fn is_up(&self) -> bool {
        self.subscribed
    }

    /// Leaves the shared subscriptions to others, on this connection and those after it,
    /// or takes part again. Never waits.
    pub fn pause_shared(&mut self, paused: bool) {
        let changed = self.topics.pause_shared(paused);
        let Some(Connected { client, .. }) = &self.connection else {
            return;
        };
        let done = match paused {
            true => unsubscribe(client, &changed),
            false if changed.is_empty() => Ok(()),
            false => subscribe(client, &changed),
        };
        if let Err(failure) = done {
            // The connection is about to be reported as lost; the next one makes it good.
            debug!(reason = failure.reason, "the subscriptions stay for now");
        }
    }

    /// Tells the broker that it need not keep a request any longer, as soon as all
    /// earlier ones are acknowledged. Never waits. The receipt of an earlier connection
    /// is good for nothing: the broker sends its request again.
    pub fn ack(&mut self, receipt: Receipt) {
        self.acks.done(receipt);
        self.pump_acks();
    }

    /// Hands acknowledgements and then messages to the connection as far as the window
    /// allows. Never waits.
    pub fn pump(&mut self) {
        self.pump_acks();
        let Some(Connected { client, room, .. }) = &self.connection else {
            return;
        };
        // The subscription has a packet id too, so it goes first and alone.
        if !self.subscribed {
            return;
        }
        while let Some(message) = self.outbox.next(*room) {
            let qos = if message.droppable {
                QoS::AtMostOnce
            } else {
                QoS::AtLeastOnce
            };
            let taken = client.try_publish_with_properties(
                message.topic.clone(),
                qos,
                message.retain,
                message.payload.clone(),
                message.properties(),
            );
            if taken.is_err() {
                // The connection is about to be reported as lost.
                return;
            }
            self.outbox.handed_over();
        }
    }

    fn pump_acks(&mut self) {
        let Some(connection) = &self.connection else {
            return;
        };
        while let Some(packet_id) = self.acks.next() {
            if !acknowledge(&connection.client, packet_id) {
                return;
            }
            self.acks.sent();
        }
    }

    /// Says goodbye, so that the broker does not publish the last will.
    pub async fn disconnect(mut self) {
        self.leaving.store(true, Ordering::Relaxed);
        // Without a connection there is nobody to say goodbye to.
        if let Some(Connected { client, .. }) = self.connection.take()
            && client.try_disconnect().is_ok()
        {
            let drained = async { while self.signals.recv().await.is_some() {} };
            let _ = timeout(DISCONNECT_PATIENCE, drained).await;
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.task.abort();
    }
}
