//! The daemon's end of the connection: what came in, and the outbox.

use std::time::Duration;

use rumqttc::v5::AsyncClient;
use rumqttc::v5::mqttbytes::QoS;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::connection::{self, Signal};
use super::options::mqtt_options;
use super::{Message, Outbox, Request, Tls};
use crate::config::Secret;

/// Signals from the polling task that were not looked at yet.
const SIGNALS: usize = 64;
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
    /// Largest payload that matters to us.
    pub max_payload_bytes: usize,
    /// Published by the broker when we vanish.
    pub last_will: Message,
    /// What to listen to.
    pub topics: Vec<String>,
}

/// What a link tells.
#[derive(Debug, PartialEq, Eq)]
pub enum LinkEvent {
    /// Connected, and subscribed to everything: time to say so.
    Up,
    /// The connection is gone; the link tries again by itself.
    Down,
    /// A message came in.
    Request(Request),
    /// The broker took a message out of the outbox.
    Taken,
    /// The task that polls is gone, which only a fault in it explains.
    Ended,
}

/// A connection that comes back.
#[derive(Debug)]
pub struct Link {
    /// Messages to send; [`Self::pump`] sends them.
    pub outbox: Outbox,
    signals: mpsc::Receiver<Signal>,
    client: Option<AsyncClient>,
    max_packet_size: Option<usize>,
    task: JoinHandle<()>,
}

impl Link {
    /// Starts to connect, on a task of its own.
    pub fn start(settings: &LinkSettings) -> Self {
        let (sender, signals) = mpsc::channel(SIGNALS);
        let task = connection::run(mqtt_options(settings), settings.topics.clone(), sender);
        Self {
            outbox: Outbox::default(),
            signals,
            client: None,
            max_packet_size: None,
            task: tokio::spawn(task),
        }
    }

    /// Waits for something others need to know, pumping meanwhile. Can be dropped at
    /// any time.
    pub async fn next_event(&mut self) -> LinkEvent {
        loop {
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
            Signal::Connected {
                client,
                max_packet_size,
            } => {
                self.client = Some(client);
                self.max_packet_size = max_packet_size;
                None
            }
            Signal::Subscribed => Some(LinkEvent::Up),
            Signal::Request(request) => Some(LinkEvent::Request(request)),
            Signal::Sent(packet_id) => {
                self.outbox.sent(packet_id);
                None
            }
            Signal::Acked(packet_id) => {
                self.outbox.acked(packet_id);
                Some(LinkEvent::Taken)
            }
            Signal::Lost => {
                self.client = None;
                self.outbox.lost();
                Some(LinkEvent::Down)
            }
        }
    }

    /// Whether there is a connection now.
    pub fn is_connected(&self) -> bool {
        self.client.is_some()
    }

    /// Hands messages to the connection as far as the window allows. Never waits.
    pub fn pump(&mut self) {
        let Some(client) = &self.client else { return };
        while let Some(message) = self.outbox.next(self.max_packet_size) {
            let taken = client.try_publish_with_properties(
                message.topic.clone(),
                QoS::AtLeastOnce,
                message.retain,
                message.payload.clone(),
                message.properties(),
            );
            if taken.is_err() {
                // The connection is about to be reported as lost.
                self.outbox.put_back();
                return;
            }
        }
    }

    /// Says goodbye, so that the broker does not publish the last will.
    pub async fn disconnect(mut self) {
        if let Some(client) = self.client.take() {
            // Without a connection there is nobody to say goodbye to.
            if client.try_disconnect().is_ok() {
                let drained = async { while self.signals.recv().await.is_some() {} };
                let _ = timeout(DISCONNECT_PATIENCE, drained).await;
            }
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.task.abort();
    }
}
