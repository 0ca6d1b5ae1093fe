//! What can go wrong between a question and its answer, and what to do then.

use std::time::Duration;

use chaski_daemon::mqtt::Tls;
use chaski_daemon::wire::ErrorBody;
use rumqttc::v5::ConnectionError;
use rumqttc::v5::mqttbytes::v5::ConnectReturnCode;
use thiserror::Error;

/// Why there is no answer.
#[derive(Debug, Error)]
pub enum ClientError {
    /// A name that cannot be part of a topic.
    #[error("the node name `{name}` {problem}: give the name the node has in its configuration")]
    NodeName {
        /// The name.
        name: String,
        /// What is wrong with it.
        problem: chaski_daemon::wire::TopicError,
    },
    /// Nothing listens there.
    #[error(
        "no MQTT broker answers at {address} ({problem}): start one there, name another with --host and --port, or give --tls if it wants that"
    )]
    NoBroker {
        /// Host and port.
        address: String,
        /// What the system says.
        problem: String,
    },
    /// It is not the broker, or does not believe that it is us.
    #[error("no connection to the broker at {address}: {problem}")]
    Tls {
        /// Host and port.
        address: String,
        /// What is wrong and what may help.
        problem: String,
    },
    /// The broker does not want us.
    #[error("the broker at {address} refuses the connection ({code:?}): {remedy}")]
    Refused {
        /// Host and port.
        address: String,
        /// Its reason.
        code: ConnectReturnCode,
        /// What may help.
        remedy: &'static str,
    },
    /// A subscription or a message was refused.
    #[error(
        "the broker does not allow this client to {action} {topic} ({reason}): see its access rules"
    )]
    NotAllowed {
        /// `subscribe to` or `publish to`.
        action: &'static str,
        /// Where.
        topic: String,
        /// Its reason.
        reason: String,
    },
    /// Cut while waiting.
    #[error("the connection to the broker was lost: {0}")]
    Lost(String),
    /// Its status says so.
    #[error("node `{0}` is offline: start chaskid there, or see its log")]
    Offline(String),
    /// It has no status.
    #[error(
        "no node `{0}` has announced itself at this broker: see the name in its configuration, or name another with --node"
    )]
    Unknown(String),
    /// Silence.
    #[error("node `{node}` sent nothing for {} s: it may have much to do; wait longer with --timeout", .after.as_secs())]
    TimedOut {
        /// Which.
        node: String,
        /// How long.
        after: Duration,
    },
    /// Its queue is full.
    #[error("node `{0}` is busy and its queue is full: ask again in a while")]
    Busy(String),
    /// The node answers with an error.
    #[error("node `{node}` refuses the question ({}): {}", .error.code, .error.message)]
    Refusal {
        /// Which.
        node: String,
        /// Why.
        error: ErrorBody,
    },
    /// Not what a node of this version sends.
    #[error(
        "node `{node}` sent what this version of chaski does not understand ({problem}): use the same version on both sides"
    )]
    Garbled {
        /// Which.
        node: String,
        /// What is wrong with it.
        problem: String,
    },
}

impl ClientError {
    /// A failure of the connection, told apart by whether it ever was up.
    pub(super) fn of_connection(address: &str, was_up: bool, error: &ConnectionError) -> Self {
        if let Some(problem) = Tls::describe(error) {
            return Self::Tls {
                address: address.to_owned(),
                problem: options_for_keys(problem),
            };
        }
        match error {
            ConnectionError::ConnectionRefused(code) => Self::Refused {
                address: address.to_owned(),
                code: *code,
                remedy: remedy(*code),
            },
            _ if was_up => Self::Lost(error.to_string()),
            ConnectionError::Io(error) => Self::NoBroker {
                address: address.to_owned(),
                problem: error.to_string(),
            },
            ConnectionError::Timeout(_) => Self::NoBroker {
                address: address.to_owned(),
                problem: "no reply in time".to_owned(),
            },
            other => Self::NoBroker {
                address: address.to_owned(),
                problem: format!("it does not speak MQTT 5: {other}"),
            },
        }
    }
}

/// The daemon names the keys of its configuration, where the command line has options.
fn options_for_keys(text: String) -> String {
    let options = [
        "host",
        "port",
        "ca-file",
        "client-cert-file",
        "client-key-file",
    ];
    options.iter().fold(text, |text, name| {
        text.replace(&format!("broker.{name}"), &format!("--{name}"))
    })
}

fn remedy(code: ConnectReturnCode) -> &'static str {
    match code {
        ConnectReturnCode::BadUserNamePassword | ConnectReturnCode::NotAuthorized => {
            "give --username and --password-file as its accounts have them"
        }
        ConnectReturnCode::RefusedProtocolVersion
        | ConnectReturnCode::UnsupportedProtocolVersion => "a broker with MQTT 5 is needed",
        _ => "see the broker's log",
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[test]
    fn a_closed_port_is_told_from_a_cut_connection() {
        let refused = || ConnectionError::Io(io::ErrorKind::ConnectionRefused.into());
        let message = ClientError::of_connection("pi:1883", false, &refused()).to_string();
        assert!(message.starts_with("no MQTT broker answers at pi:1883 (connection refused)"));
        assert!(message.contains("--host"));
        let message = ClientError::of_connection("pi:1883", true, &refused()).to_string();
        assert!(message.starts_with("the connection to the broker was lost"));
    }

    #[test]
    fn a_refused_account_names_the_remedy() {
        let error = ConnectionError::ConnectionRefused(ConnectReturnCode::NotAuthorized);
        let message = ClientError::of_connection("pi:1883", false, &error).to_string();
        assert!(message.contains("NotAuthorized"));
        assert!(message.contains("--password-file"));
    }

    #[test]
    fn timeouts_name_the_seconds() {
        let error = ClientError::TimedOut {
            node: "pi".to_owned(),
            after: Duration::from_secs(3),
        };
        assert!(
            error
                .to_string()
                .starts_with("node `pi` sent nothing for 3 s")
        );
    }
}
