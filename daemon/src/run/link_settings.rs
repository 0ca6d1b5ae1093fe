//! From a configuration to a connection.

use super::DaemonError;
use crate::config::Config;
use crate::mqtt::{ContentType, LinkSettings, Message, Subscription, Tls};
use crate::presence::birth_topic;
use crate::wire::STATUS_OFFLINE;

pub(super) fn link_settings(config: &Config) -> Result<LinkSettings, DaemonError> {
    let topics = config.topics();
    let mut subscriptions = vec![
        Subscription::own(topics.ask(), 1),
        Subscription::own(topics.chat(), 1),
        Subscription::own(topics.cancel(), 0),
    ];
    if config.control.is_enabled() {
        subscriptions.push(Subscription::own(topics.control(), 1));
    }
    if let (Some(name), Some(group)) = (&config.node.group, config.group_topics()) {
        subscriptions.push(Subscription::shared(name, &group.ask(), 1));
        subscriptions.push(Subscription::shared(name, &group.chat(), 1));
    }
    subscriptions.extend(birth_topic(config).map(Subscription::optional));
    Ok(LinkSettings {
        host: config.broker.host.clone(),
        port: config.broker.port(),
        client_id: config.client_id(),
        credentials: config.broker.credentials().map_err(DaemonError::Broker)?,
        tls: Tls::load(&config.broker).map_err(DaemonError::Broker)?,
        keep_alive: config.broker.keep_alive,
        session_expiry: config.broker.session_expiry,
        // The running request and those that wait: the broker holds the rest back.
        receive_maximum: u16::try_from(config.limits.queue_depth + 1).unwrap_or(u16::MAX),
        max_payload_bytes: config.limits.max_payload_bytes,
        last_will: Message::retained(topics.status(), STATUS_OFFLINE, ContentType::Text),
        topics: subscriptions,
    })
}
