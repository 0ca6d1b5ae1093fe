//! Why a connection ended, in words that help.

use rumqttc::v5::mqttbytes::Error as PacketError;
use rumqttc::v5::mqttbytes::v5::DisconnectReasonCode;
use rumqttc::v5::{ConnectionError, StateError};

use super::tls;

/// Why a connection ended.
#[derive(Debug)]
pub(super) struct Failure {
    /// For the log.
    pub(super) reason: String,
    /// Whether it was something that came in, which a session would send again.
    pub(super) unreadable: bool,
}

impl Failure {
    /// A failure that another connection may not have.
    pub(super) fn new(reason: impl Into<String>) -> Self {
        Self {
            reason: reason.into(),
            unreadable: false,
        }
    }

    /// A message that cannot be taken.
    pub(super) fn unreadable(reason: impl Into<String>) -> Self {
        Self {
            reason: reason.into(),
            unreadable: true,
        }
    }

    /// What `rumqttc` says.
    pub(super) fn from_error(error: ConnectionError, client_id: &str) -> Self {
        match error {
            ConnectionError::ConnectionRefused(code) => Self::new(format!(
                "the broker refuses us ({code:?}): check username, password and client id"
            )),
            // Its own text has the whole packet, and with it perhaps somebody's words.
            ConnectionError::NotConnAck(_) => {
                Self::new("the broker answers CONNECT with another packet than CONNACK")
            }
            ConnectionError::MqttState(StateError::ServerDisconnect {
                reason_code: DisconnectReasonCode::SessionTakenOver,
                ..
            }) => Self::new(format!(
                "another client connected with our client id {client_id:?}: give each node a \
                 node.name or a broker.client-id of its own"
            )),
            // Also what is left of SessionTakenOver when the broker sends no properties with
            // it, as Mosquitto does: `rumqttc` then drops that packet.
            ConnectionError::MqttState(StateError::ConnectionAborted) => Self::new(format!(
                "the broker closed the connection; if it does so again and again, look for \
                 another client with our client id {client_id:?}"
            )),
            ConnectionError::MqttState(e) if is_unreadable(&e) => Self::unreadable(e.to_string()),
            e => Self::new(tls::describe(&e).unwrap_or_else(|| e.to_string())),
        }
    }
}

/// Whether it is about a packet that came in.
fn is_unreadable(error: &StateError) -> bool {
    match error {
        StateError::Unsolicited(_)
        | StateError::WrongPacket
        | StateError::IncomingPacketTooLarge { .. } => true,
        StateError::Deserialization(e) => !matches!(
            e,
            PacketError::Io(_)
                | PacketError::OutgoingPacketTooLarge { .. }
                // A DISCONNECT in its shortest form, which is right but not understood.
                | PacketError::PayloadRequired
        ),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    fn failure(error: StateError) -> Failure {
        Failure::from_error(ConnectionError::MqttState(error), "chaski-board")
    }

    #[test]
    fn what_comes_in_is_told_from_what_fails() {
        let too_large = PacketError::PayloadSizeLimitExceeded {
            pkt_size: 9,
            max: 1,
        };
        assert!(failure(StateError::Deserialization(too_large)).unreadable);
        assert!(failure(StateError::Unsolicited(3)).unreadable);
        let gone = PacketError::Io(io::ErrorKind::ConnectionReset.into());
        assert!(!failure(StateError::Deserialization(gone)).unreadable);
    }

    #[test]
    fn a_session_taken_over_names_the_client_id_and_the_remedy() {
        let taken_over = failure(StateError::ServerDisconnect {
            reason_code: DisconnectReasonCode::SessionTakenOver,
            reason_string: None,
        });
        assert!(taken_over.reason.contains("\"chaski-board\""));
        assert!(taken_over.reason.contains("broker.client-id"));
        let closed = failure(StateError::ConnectionAborted);
        assert!(closed.reason.contains("\"chaski-board\"") && !closed.unreadable);
    }
}
