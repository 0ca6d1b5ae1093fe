//! The task that polls `rumqttc`: connects, connects again, passes events on.

use std::time::Duration;

use rumqttc::Outgoing;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{
    ConnAck, Filter, Packet, RetainForwardRule, SubAck, SubscribeReasonCode,
};
use rumqttc::v5::{AsyncClient, ConnectionError, Event, EventLoop, MqttOptions};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

use super::Request;
use super::backoff::Backoff;
use super::outbox::WINDOW;
use super::tls;

/// Requests in `rumqttc`'s own channel: the window, a subscription, a disconnect.
const CHANNEL: usize = WINDOW + 4;

/// What happens on a connection.
#[derive(Debug)]
pub(super) enum Signal {
    /// The broker accepted us; use this client until [`Signal::Lost`].
    Connected {
        client: AsyncClient,
        max_packet_size: Option<usize>,
    },
    /// The broker accepted our subscriptions.
    Subscribed,
    /// A message came in.
    Request(Request),
    /// The next message of the outbox was written.
    Sent(u16),
    /// The broker has this message.
    Acked(u16),
    /// The connection is gone; another will be tried.
    Lost,
}

/// How one connection ended.
enum End {
    /// We disconnected, or nobody listens any more.
    Done,
    /// Something failed.
    Lost(String),
}

/// Runs until told to disconnect or until nobody takes the signals.
pub(super) async fn run(options: MqttOptions, topics: Vec<String>, signals: mpsc::Sender<Signal>) {
    let mut backoff = Backoff::default();
    for generation in 1.. {
        // A new event loop each time: see the module's description.
        let (client, event_loop) = AsyncClient::new(options.clone(), CHANNEL);
        let reason = match serve(
            event_loop,
            client,
            generation,
            &topics,
            &signals,
            &mut backoff,
        )
        .await
        {
            End::Done => return,
            End::Lost(reason) => reason,
        };
        if signals.send(Signal::Lost).await.is_err() {
            return;
        }
        let wait = backoff.next();
        warn!(reason, retry_in = ?wait, "no connection to the broker");
        tokio::select! {
            () = sleep(wait) => {}
            () = signals.closed() => return,
        }
    }
}

async fn serve(
    mut event_loop: EventLoop,
    client: AsyncClient,
    generation: u64,
    topics: &[String],
    signals: &mpsc::Sender<Signal>,
    backoff: &mut Backoff,
) -> End {
    let keep_alive = event_loop.options.keep_alive();
    loop {
        // The broker may ask for another keep-alive; none at all would ping without end.
        if event_loop.options.keep_alive().is_zero() {
            event_loop.options.set_keep_alive(keep_alive);
        }
        // A poll returns at least once per keep-alive, with a ping.
        let patience = event_loop.options.keep_alive() * 2
            + Duration::from_secs(event_loop.options.connection_timeout());
        let event = match timeout(patience, event_loop.poll()).await {
            Ok(Ok(event)) => event,
            Ok(Err(e)) => return End::Lost(describe(&e)),
            Err(_) => return End::Lost(format!("no sign of life for {patience:?}")),
        };
        let signal = match event {
            Event::Incoming(Packet::ConnAck(ack)) => match subscribe(&client, topics) {
                Ok(()) => connected(&client, &ack),
                Err(reason) => return End::Lost(reason),
            },
            Event::Incoming(Packet::SubAck(ack)) => match refused(&ack, topics) {
                None => {
                    backoff.reset();
                    info!("connected and subscribed");
                    Signal::Subscribed
                }
                Some(reason) => return End::Lost(reason),
            },
            Event::Incoming(Packet::Publish(publish)) => {
                Signal::Request(Request::new(publish, generation))
            }
            Event::Incoming(Packet::PubAck(ack)) => Signal::Acked(ack.pkid),
            Event::Outgoing(Outgoing::Publish(packet_id)) => Signal::Sent(packet_id),
            Event::Outgoing(Outgoing::Disconnect) => return End::Done,
            Event::Incoming(_) | Event::Outgoing(_) => continue,
        };
        if signals.send(signal).await.is_err() {
            return End::Done;
        }
    }
}

fn connected(client: &AsyncClient, ack: &ConnAck) -> Signal {
    let max_packet_size = ack.properties.as_ref().and_then(|p| p.max_packet_size);
    Signal::Connected {
        client: client.clone(),
        max_packet_size: max_packet_size.map(|size| usize::try_from(size).unwrap_or(usize::MAX)),
    }
}

fn subscribe(client: &AsyncClient, topics: &[String]) -> Result<(), String> {
    let filters = topics.iter().map(|topic| Filter {
        path: topic.clone(),
        qos: QoS::AtLeastOnce,
        // A retained request would be answered again after every reconnect.
        retain_forward_rule: RetainForwardRule::Never,
        ..Filter::default()
    });
    client
        .try_subscribe_many(filters)
        .map_err(|e| e.to_string())
}

/// Why the broker does not let us listen, if it does not.
fn refused(ack: &SubAck, topics: &[String]) -> Option<String> {
    let mut answers = topics.iter().zip(&ack.return_codes);
    answers
        .find(|(_, code)| !matches!(code, SubscribeReasonCode::Success(_)))
        .map(|(topic, code)| {
            format!(
                "the broker refuses the subscription to {topic} ({code:?}): check its access rules"
            )
        })
}

fn describe(error: &ConnectionError) -> String {
    match error {
        ConnectionError::ConnectionRefused(code) => {
            format!("the broker refuses us ({code:?}): check username, password and client id")
        }
        e => tls::describe(e).unwrap_or_else(|| e.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_subscription_names_its_topic() {
        let topics = ["a".to_owned(), "b".to_owned()];
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
    }
}
