//! The connection itself: rumqttc's event loop on a task of its own, so that
//! signs of life are sent while the caller does something else.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::time::Duration;

use chaski_daemon::config::{Broker, Problem};
use chaski_daemon::mqtt::Tls;
use rumqttc::NetworkOptions;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{
    Filter, Packet, PubAckReason, Publish, PublishProperties, SubscribeReasonCode,
};
use rumqttc::v5::{AsyncClient, ConnectionError, Event, EventLoop, MqttOptions};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// Where the broker is and who we are to it.
#[derive(Clone, Debug)]
pub struct BrokerAddress {
    /// Name or address.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// User name and password.
    pub credentials: Option<(String, String)>,
    /// How to encrypt; `None`: not at all.
    pub tls: Option<Tls>,
}

impl BrokerAddress {
    /// The one that a daemon's configuration names, with its account there.
    pub fn configured(broker: &Broker) -> Result<Self, Problem> {
        let credentials = broker.credentials()?;
        Ok(Self {
            host: broker.host.clone(),
            port: broker.port(),
            credentials: credentials
                .map(|(username, password)| (username, password.expose().to_owned())),
            tls: Tls::load(broker)?,
        })
    }

    /// Host and port, as in messages.
    pub fn label(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }
}

/// What happens on the connection, in order.
#[derive(Debug)]
pub(super) enum Notice {
    /// The broker took us.
    Connected,
    /// The answer to the subscription.
    Subscribed(Vec<SubscribeReasonCode>),
    /// A message of ours did not get through.
    PublishRefused(PubAckReason),
    /// A message came.
    Message(Publish),
    /// The end.
    Failed(ConnectionError),
}

/// The largest message taken or sent.
const MAX_PACKET_BYTES: u32 = 4 * 1024 * 1024;
/// Requests of ours to the connection: a question at a time, a subscription, a goodbye.
const QUEUE: usize = 16;
/// Messages that wait for the caller before the connection is left unread.
const NOTICES: usize = 256;

/// A connection to a broker.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) client_id: String,
    mqtt: AsyncClient,
    notices: mpsc::Receiver<Notice>,
    task: JoinHandle<()>,
}

impl Link {
    /// Starts to connect; the outcome is the first notice.
    pub(super) fn open(broker: &BrokerAddress) -> Self {
        let client_id = format!("chaski-cli-{:016x}", random_number());
        let mut options = MqttOptions::new(client_id.clone(), broker.host.clone(), broker.port);
        options.set_keep_alive(Duration::from_secs(20));
        options.set_clean_start(true);
        options.set_max_packet_size(Some(MAX_PACKET_BYTES));
        options.set_connection_timeout(10);
        if let Some((username, password)) = &broker.credentials {
            options.set_credentials(username.clone(), password.clone());
        }
        if let Some(tls) = &broker.tls {
            options.set_transport(tls.transport());
        }
        // Room for the question; the default takes a table of 65,536 of them.
        options.set_outgoing_inflight_upper_limit(QUEUE as u16);
        // Requests are small and alone: without this each waits for the
        // acknowledgement of the one before.
        let mut network = NetworkOptions::new();
        network.set_tcp_nodelay(true);
        options.set_network_options(network);
        let (mqtt, event_loop) = AsyncClient::new(options, QUEUE);
        let (sender, notices) = mpsc::channel(NOTICES);
        Self {
            client_id,
            mqtt,
            notices,
            task: tokio::spawn(drive(event_loop, sender)),
        }
    }

    /// The next notice; `None` after [`Notice::Failed`].
    pub(super) async fn notice(&mut self) -> Option<Notice> {
        self.notices.recv().await
    }

    pub(super) async fn subscribe(&self, topics: &[&str]) -> Result<(), String> {
        let filters = topics
            .iter()
            .map(|topic| Filter::new(*topic, QoS::AtLeastOnce));
        self.mqtt
            .subscribe_many(filters)
            .await
            .map_err(|error| error.to_string())
    }

    pub(super) async fn publish(
        &self,
        topic: &str,
        payload: Vec<u8>,
        properties: PublishProperties,
    ) -> Result<(), String> {
        self.mqtt
            .publish_with_properties(topic, QoS::AtLeastOnce, false, payload, properties)
            .await
            .map_err(|error| error.to_string())
    }

    /// Says goodbye and waits a moment for it to be sent.
    pub(super) async fn close(mut self) {
        if self.mqtt.disconnect().await.is_ok() {
            self.notices.close();
            let _ = tokio::time::timeout(Duration::from_secs(1), &mut self.task).await;
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn drive(mut event_loop: EventLoop, notices: mpsc::Sender<Notice>) {
    loop {
        let notice = match event_loop.poll().await {
            Ok(Event::Incoming(packet)) => match packet {
                Packet::ConnAck(_) => Notice::Connected,
                Packet::SubAck(ack) => Notice::Subscribed(ack.return_codes),
                Packet::PubAck(ack) => match ack.reason {
                    PubAckReason::Success | PubAckReason::NoMatchingSubscribers => continue,
                    reason => Notice::PublishRefused(reason),
                },
                Packet::Publish(publish) => Notice::Message(publish),
                _ => continue,
            },
            Ok(Event::Outgoing(rumqttc::Outgoing::Disconnect)) => return,
            Ok(Event::Outgoing(_)) => continue,
            Err(error) => {
                let _ = notices.send(Notice::Failed(error)).await;
                return;
            }
        };
        // The caller may be gone while the goodbye is still to be sent.
        let _ = notices.send(notice).await;
    }
}

/// The standard library's hash keys are random: enough to keep clients apart.
fn random_number() -> u64 {
    let mut hasher = RandomState::new().build_hasher();
    hasher.write_u32(std::process::id());
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_are_told_apart() {
        assert_ne!(random_number(), random_number());
    }

    #[test]
    fn an_address_for_messages() {
        let address = BrokerAddress {
            host: "pi".to_owned(),
            port: 1883,
            credentials: None,
            tls: None,
        };
        assert_eq!(address.label(), "pi:1883");
    }
}
