//! From our settings to `rumqttc`'s options.

use std::time::Duration;

use rumqttc::NetworkOptions;
use rumqttc::v5::MqttOptions;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{ConnectProperties, LastWill};

use super::link::LinkSettings;
use super::outbox::WINDOW;

/// Room in a packet for its topic and properties, and for payloads that are only
/// somewhat too large: those still come in and get an error.
const PACKET_MARGIN: usize = 256 * 1024;
/// Size of `rumqttc`'s table of publishes without acknowledgement, and of the circle
/// that it takes packet ids from: larger than the window, so that it never fills and
/// no id is taken that is still in use. The default takes 14 MB.
pub(super) const INFLIGHT_LIMIT: u16 = 2 * WINDOW as u16;
/// `rumqttc` panics below.
const MIN_KEEP_ALIVE: u16 = 5;

pub(super) fn mqtt_options(settings: &LinkSettings) -> MqttOptions {
    let mut options = MqttOptions::new(
        &settings.client_id,
        bracketed(&settings.host),
        settings.port,
    );
    let keep_alive = settings.keep_alive.max(MIN_KEEP_ALIVE);
    options.set_keep_alive(Duration::from_secs(keep_alive.into()));
    options.set_clean_start(settings.session_expiry == 0);
    // A request is acknowledged when it is dealt with, not when it is read.
    options.set_manual_acks(true);
    if let Some((username, password)) = &settings.credentials {
        options.set_credentials(username, password.expose());
    }
    if let Some(tls) = &settings.tls {
        options.set_transport(tls.transport());
    }

    let will = &settings.last_will;
    options.set_last_will(LastWill::new(
        &will.topic,
        will.payload.to_vec(),
        QoS::AtLeastOnce,
        will.retain,
        None,
    ));

    let packet = settings.max_payload_bytes.saturating_add(PACKET_MARGIN);
    let mut connect = ConnectProperties::new();
    connect.max_packet_size = Some(u32::try_from(packet).unwrap_or(u32::MAX));
    // 0 would break the protocol.
    connect.receive_maximum = Some(settings.receive_maximum.max(1));
    connect.session_expiry_interval = Some(settings.session_expiry);
    options.set_connect_properties(connect);
    options.set_outgoing_inflight_upper_limit(INFLIGHT_LIMIT);
    let mut network = NetworkOptions::new();
    network.set_tcp_nodelay(true);
    options.set_network_options(network);
    options
}

/// `rumqttc` puts `:port` behind it.
fn bracketed(host: &str) -> String {
    if host.contains(':') && !host.starts_with('[') {
        format!("[{host}]")
    } else {
        host.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Secret;
    use crate::mqtt::{ContentType, Message};

    fn settings() -> LinkSettings {
        LinkSettings {
            host: "::1".into(),
            port: 1884,
            client_id: "chaski-pi".into(),
            credentials: Some(("u".into(), Secret::new("p"))),
            tls: None,
            keep_alive: 6,
            session_expiry: 60,
            receive_maximum: 9,
            max_payload_bytes: 1000,
            last_will: Message::retained("s".into(), "offline", ContentType::Text),
            topics: vec![],
        }
    }

    #[test]
    fn settings_arrive() {
        let options = mqtt_options(&settings());
        assert_eq!(options.broker_address(), ("[::1]".to_owned(), 1884));
        assert_eq!(options.client_id(), "chaski-pi");
        assert_eq!(options.credentials().unwrap().password, "p");
        assert_eq!(options.keep_alive(), Duration::from_secs(6));
        let will = options.last_will().unwrap();
        assert_eq!(
            (&will.topic[..], &will.message[..], will.retain),
            (&b"s"[..], &b"offline"[..], true)
        );
        let connect = options.connect_properties().unwrap();
        assert_eq!(connect.max_packet_size, Some(1000 + PACKET_MARGIN as u32));
        assert_eq!(connect.receive_maximum, Some(9));
        assert_eq!(connect.session_expiry_interval, Some(60));
        // Then brokers may not use aliases, which `rumqttc` resolves too late.
        assert_eq!(connect.topic_alias_max, None);
        assert!(options.manual_acks());
        assert_eq!(options.get_outgoing_inflight_upper_limit(), Some(64));
    }

    #[test]
    fn without_expiry_there_is_no_session() {
        let clean_start = |session_expiry| {
            let settings = LinkSettings {
                session_expiry,
                ..settings()
            };
            mqtt_options(&settings).clean_start()
        };
        assert!(clean_start(0));
        assert!(!clean_start(1));
    }

    #[test]
    fn settings_that_rumqttc_would_not_survive_are_raised() {
        let options = mqtt_options(&LinkSettings {
            keep_alive: 0,
            receive_maximum: 0,
            ..settings()
        });
        assert_eq!(options.keep_alive(), Duration::from_secs(5));
        let connect = options.connect_properties().unwrap();
        assert_eq!(connect.receive_maximum, Some(1));
    }
}
