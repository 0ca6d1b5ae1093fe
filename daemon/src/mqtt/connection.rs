//! The task that polls `rumqttc`: connects, connects again, passes events on.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rumqttc::Outgoing;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{
    ConnAck, ConnAckProperties, ConnectReturnCode, Filter, Packet, PubAck, PubAckReason, Publish,
    RetainForwardRule, SubAck, SubscribeReasonCode,
};
use rumqttc::v5::{AsyncClient, Event, EventLoop, MqttOptions};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use tracing::{error, info, warn};

use super::Request;
use super::backoff::Backoff;
use super::failure::Failure;
use super::options::INFLIGHT_LIMIT;
use super::outbox::{Room, WINDOW};
use super::poison::Poison;
use super::subscriptions::{Subscription, Topics};

/// Requests in `rumqttc`'s own channel beside acknowledgements: a window of each
/// kind of message, subscriptions and their ends, a disconnect.
const CHANNEL: usize = 2 * WINDOW + 16;
/// A connection that was up for so long works: the next failure is a first one.
const STABLE: Duration = Duration::from_secs(30);

/// What happens on a connection.
#[derive(Debug)]
pub(super) enum Signal {
    /// The broker accepted us; use this until [`Signal::Lost`].
    Connected(Connected),
    /// The broker accepted our subscriptions.
    Subscribed,
    /// A message came in.
    Request(Request),
    /// The next message of the outbox was written.
    Sent(u16),
    /// The broker has this message, or will not have it.
    Acked {
        packet_id: u16,
        refused: Option<String>,
    },
    /// The connection is gone; another will be tried.
    Lost,
}

/// A connection as the other end of the signals sees it.
#[derive(Debug)]
pub(super) struct Connected {
    pub(super) client: AsyncClient,
    pub(super) generation: u64,
    pub(super) room: Room,
}

/// How one connection ended.
enum End {
    /// We disconnected, or nobody listens any more.
    Done,
    /// Something failed.
    Lost(Failure),
}

/// Makes one connection after the other.
pub(super) struct Connector {
    pub(super) options: MqttOptions,
    pub(super) topics: Topics,
    /// Requests that may be without acknowledgement.
    pub(super) receive_maximum: u16,
    /// How much longer than two keep-alives a poll may give no sign.
    pub(super) grace: Duration,
    /// Set before we disconnect.
    pub(super) leaving: Arc<AtomicBool>,
    pub(super) signals: mpsc::Sender<Signal>,
}

impl Connector {
    /// Runs until told to disconnect or until nobody takes the signals.
    pub(super) async fn run(self) {
        let mut backoff = Backoff::default();
        let mut poison = Poison::default();
        for generation in 1.. {
            let mut options = self.options.clone();
            if poison.takes_effect() && !options.clean_start() {
                error!(
                    "what the broker sends cannot be read and would end every connection: \
                     leaving its session behind, and the requests that wait in it"
                );
                options.set_clean_start(true);
            }
            let (end, up) = self.connect(options, generation).await;
            let failure = match end {
                End::Done => return,
                End::Lost(failure) => failure,
            };
            if self.signals.send(Signal::Lost).await.is_err() {
                return;
            }
            if let Some(up) = up {
                poison.ended(failure.unreadable, up);
                if up >= STABLE {
                    backoff.reset();
                }
            }
            let wait = backoff.next();
            warn!(reason = failure.reason, retry_in = ?wait, "no connection to the broker");
            tokio::select! {
                () = sleep(wait) => {}
                () = self.signals.closed() => return,
            }
        }
    }

    /// One connection from its start to its end, and how long the broker had us.
    async fn connect(&self, options: MqttOptions, generation: u64) -> (End, Option<Duration>) {
        // A new event loop each time: see the module's description.
        let channel = CHANNEL + usize::from(self.receive_maximum);
        let (client, event_loop) = AsyncClient::new(options, channel);
        let mut connection = Connection {
            event_loop,
            client,
            generation,
            connector: self,
            since: None,
            asked_for: Vec::new(),
            subscribed: false,
        };
        let end = connection.serve().await;
        (end, connection.since.map(|since| since.elapsed()))
    }
}

struct Connection<'a> {
    event_loop: EventLoop,
    client: AsyncClient,
    generation: u64,
    connector: &'a Connector,
    /// When the broker accepted us.
    since: Option<Instant>,
    /// What we subscribed to first of all.
    asked_for: Vec<Subscription>,
    subscribed: bool,
}

impl Connection<'_> {
    async fn serve(&mut self) -> End {
        let keep_alive = self.event_loop.options.keep_alive();
        let client_id = self.event_loop.options.client_id();
        loop {
            // The broker may ask for another keep-alive; none at all would ping without end.
            if self.event_loop.options.keep_alive().is_zero() {
                self.event_loop.options.set_keep_alive(keep_alive);
            }
            // A poll returns at least once per keep-alive, with a ping.
            let patience = self.event_loop.options.keep_alive() * 2 + self.connector.grace;
            let failure = match timeout(patience, self.event_loop.poll()).await {
                Ok(Ok(event)) => match self.pass_on(event).await {
                    Some(end) => return end,
                    None if self.is_deaf(patience) => {
                        Failure::new("the broker does not answer our subscription")
                    }
                    None => continue,
                },
                Ok(Err(e)) => Failure::from_error(e, &client_id),
                Err(_) => Failure::new(format!("no sign of life for {patience:?}")),
            };
            // What came in before it: an acknowledgement lost here is a message sent twice.
            while let Some(event) = self.event_loop.state.events.pop_front() {
                if let Some(end) = self.pass_on(event).await {
                    return end;
                }
            }
            return End::Lost(failure);
        }
    }

    /// Whether the subscription is overdue.
    fn is_deaf(&self, patience: Duration) -> bool {
        !self.subscribed && self.since.is_some_and(|since| since.elapsed() > patience)
    }

    /// Makes a signal of an event. What comes back is the end of the connection.
    async fn pass_on(&mut self, event: Event) -> Option<End> {
        let signal = match event {
            Event::Incoming(Packet::ConnAck(ack)) => self.on_connected(&ack),
            // Of a subscription that was paused meanwhile.
            Event::Incoming(Packet::SubAck(ack)) if self.subscribed => {
                match ack.return_codes.iter().find(|code| !is_granted(code)) {
                    None => return None,
                    Some(code) => Err(Failure::new(format!(
                        "the broker refuses a subscription that it had allowed ({code:?})"
                    ))),
                }
            }
            Event::Incoming(Packet::SubAck(ack)) => self.on_subscribed(&ack),
            Event::Incoming(Packet::Publish(publish)) => self.on_publish(publish),
            Event::Incoming(Packet::PubAck(ack)) => Ok(Signal::Acked {
                packet_id: ack.pkid,
                refused: refusal(&ack),
            }),
            Event::Outgoing(Outgoing::Publish(packet_id)) => Ok(Signal::Sent(packet_id)),
            // Also said when the broker breaks the protocol.
            Event::Outgoing(Outgoing::Disconnect) => {
                return Some(if self.connector.leaving.load(Ordering::Relaxed) {
                    End::Done
                } else {
                    End::Lost(Failure::unreadable("the broker breaks the protocol"))
                });
            }
            Event::Incoming(_) | Event::Outgoing(_) => return None,
        };
        match signal {
            Ok(signal) => match self.connector.signals.send(signal).await {
                Ok(()) => None,
                Err(_) => Some(End::Done),
            },
            Err(failure) => Some(End::Lost(failure)),
        }
    }

    fn on_connected(&mut self, ack: &ConnAck) -> Result<Signal, Failure> {
        self.since = Some(Instant::now());
        lift_window(&mut self.event_loop);
        let (wanted, unwanted) = self.connector.topics.now();
        subscribe(&self.client, &wanted)?;
        // The session at the broker may have them from before.
        unsubscribe(&self.client, &unwanted)?;
        self.asked_for = wanted;
        Ok(Signal::Connected(Connected {
            client: self.client.clone(),
            generation: self.generation,
            room: room(ack),
        }))
    }

    fn on_subscribed(&mut self, ack: &SubAck) -> Result<Signal, Failure> {
        if let Some(reason) = refused(ack, &self.asked_for) {
            return Err(Failure::new(reason));
        }
        self.subscribed = true;
        info!("connected and subscribed");
        Ok(Signal::Subscribed)
    }

    fn on_publish(&self, publish: Publish) -> Result<Signal, Failure> {
        if publish.topic.is_empty() {
            // We allow no topic alias, and `rumqttc` tells of a message before it has
            // looked its alias up.
            return Err(Failure::unreadable(
                "the broker sends a message without topic",
            ));
        }
        if publish.qos == QoS::ExactlyOnce {
            return Err(Failure::unreadable(
                "the broker sends a message with QoS 2, which we did not subscribe with",
            ));
        }
        Ok(Signal::Request(Request::new(publish, self.generation)))
    }
}

/// Takes the broker's receive maximum off `rumqttc`, which holds acknowledgements back
/// as well while its window is full. The outbox keeps to it.
fn lift_window(event_loop: &mut EventLoop) {
    let ack = ConnAck {
        session_present: false,
        code: ConnectReturnCode::Success,
        properties: Some(ConnAckProperties {
            receive_max: Some(INFLIGHT_LIMIT),
            ..no_properties()
        }),
    };
    let state = &mut event_loop.state;
    if state.handle_incoming_packet(Packet::ConnAck(ack)).is_ok() {
        // The event of it, which nobody else needs to know of.
        state.events.pop_back();
    }
}

fn no_properties() -> ConnAckProperties {
    ConnAckProperties {
        session_expiry_interval: None,
        receive_max: None,
        max_qos: None,
        retain_available: None,
        max_packet_size: None,
        assigned_client_identifier: None,
        topic_alias_max: None,
        reason_string: None,
        user_properties: Vec::new(),
        wildcard_subscription_available: None,
        subscription_identifiers_available: None,
        shared_subscription_available: None,
        server_keep_alive: None,
        response_information: None,
        server_reference: None,
        authentication_method: None,
        authentication_data: None,
    }
}

/// What the broker lets us send.
fn room(ack: &ConnAck) -> Room {
    let properties = ack.properties.as_ref();
    let receive_max = properties.and_then(|p| p.receive_max).unwrap_or(u16::MAX);
    let max_packet_size = properties.and_then(|p| p.max_packet_size);
    Room {
        window: usize::from(receive_max).clamp(1, WINDOW),
        max_packet_size: max_packet_size.map(|size| usize::try_from(size).unwrap_or(usize::MAX)),
    }
}

pub(super) fn subscribe(client: &AsyncClient, topics: &[Subscription]) -> Result<(), Failure> {
    let filters = topics.iter().map(|topic| Filter {
        path: topic.filter.clone(),
        qos: match topic.qos {
            0 => QoS::AtMostOnce,
            _ => QoS::AtLeastOnce,
        },
        // A retained request would be answered again after every reconnect.
        retain_forward_rule: RetainForwardRule::Never,
        ..Filter::default()
    });
    client
        .try_subscribe_many(filters)
        .map_err(|e| Failure::new(e.to_string()))
}

pub(super) fn unsubscribe(client: &AsyncClient, topics: &[Subscription]) -> Result<(), Failure> {
    for topic in topics {
        client
            .try_unsubscribe(topic.filter.clone())
            .map_err(|e| Failure::new(e.to_string()))?;
    }
    Ok(())
}

/// Why the broker does not let us listen to what we cannot do without, if it does not.
fn refused(ack: &SubAck, topics: &[Subscription]) -> Option<String> {
    let answers = topics.iter().zip(&ack.return_codes);
    for (topic, code) in answers.filter(|(_, code)| !is_granted(code)) {
        let reason = format!(
            "the broker refuses the subscription to {} ({code:?}): check its access rules",
            topic.filter
        );
        if !topic.optional {
            return Some(reason);
        }
        warn!("{reason}, or configure this node to do without");
    }
    None
}

fn is_granted(code: &SubscribeReasonCode) -> bool {
    matches!(code, SubscribeReasonCode::Success(_))
}

/// Why the broker will not have a message, if it will not.
fn refusal(ack: &PubAck) -> Option<String> {
    match ack.reason {
        PubAckReason::Success | PubAckReason::NoMatchingSubscribers => None,
        reason => Some(format!("{reason:?}")),
    }
}

/// The packet that is acknowledged is known by its id alone.
pub(super) fn acknowledge(client: &AsyncClient, packet_id: u16) -> bool {
    let publish = Publish {
        qos: QoS::AtLeastOnce,
        pkid: packet_id,
        ..Publish::default()
    };
    client.try_ack(&publish).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subscription(filter: &str) -> Subscription {
        Subscription::own(filter.to_owned(), 1)
    }

    #[test]
    fn a_refused_subscription_names_its_topic() {
        let topics = [subscription("a"), subscription("b")];
        let ack = |second| SubAck {
            pkid: 1,
            return_codes: vec![SubscribeReasonCode::Success(QoS::AtLeastOnce), second],
            properties: None,
        };
        assert_eq!(
            refused(&ack(SubscribeReasonCode::Success(QoS::AtMostOnce)), &topics),
            None
        );
        let reason = refused(&ack(SubscribeReasonCode::NotAuthorized), &topics).unwrap();
        assert!(
            reason.contains("subscription to b (NotAuthorized)"),
            "{reason}"
        );
        let topics = [subscription("a"), Subscription::optional("b".to_owned())];
        assert_eq!(
            refused(&ack(SubscribeReasonCode::NotAuthorized), &topics),
            None
        );
    }

    #[test]
    fn the_room_is_what_the_broker_says_within_our_window() {
        let window = |receive_max| {
            let properties = ConnAckProperties {
                receive_max,
                ..no_properties()
            };
            let ack = ConnAck {
                session_present: false,
                code: ConnectReturnCode::Success,
                properties: Some(properties),
            };
            room(&ack).window
        };
        assert_eq!(window(None), WINDOW);
        assert_eq!(window(Some(1)), 1);
        assert_eq!(window(Some(20)), 20);
        assert_eq!(window(Some(u16::MAX)), WINDOW);
    }
}
