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
/// Requests the broker may send without waiting for an acknowledgement.
const RECEIVE_MAXIMUM: u16 = 32;

pub(super) fn mqtt_options(settings: &LinkSettings) -> MqttOptions {
    let mut options = MqttOptions::new(
        &settings.client_id,
        bracketed(&settings.host),
        settings.port,
    );
    options.set_keep_alive(Duration::from_secs(settings.keep_alive.into()));
    options.set_clean_start(true);
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
    connect.receive_maximum = Some(RECEIVE_MAXIMUM);
    options.set_connect_properties(connect);

    // Room for the window; the default takes a table of 65,536 publishes.
    options.set_outgoing_inflight_upper_limit(2 * WINDOW as u16);
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

    #[test]
    fn settings_arrive() {
        let options = mqtt_options(&LinkSettings {
            host: "::1".into(),
            port: 1884,
            client_id: "chaski-pi".into(),
            credentials: Some(("u".into(), Secret::new("p"))),
            tls: None,
            keep_alive: 5,
            max_payload_bytes: 1000,
            last_will: Message::retained("s".into(), "offline", ContentType::Text),
            topics: vec![],
        });
        assert_eq!(options.broker_address(), ("[::1]".to_owned(), 1884));
        assert_eq!(options.client_id(), "chaski-pi");
        assert_eq!(options.credentials().unwrap().password, "p");
        assert_eq!(options.keep_alive(), Duration::from_secs(5));
        let will = options.last_will().unwrap();
        assert_eq!(
            (&will.topic[..], &will.message[..], will.retain),
            (&b"s"[..], &b"offline"[..], true)
        );
        let connect = options.connect_properties().unwrap();
        assert_eq!(connect.max_packet_size, Some(1000 + PACKET_MARGIN as u32));
        assert_eq!(options.get_outgoing_inflight_upper_limit(), Some(64));
    }
}
