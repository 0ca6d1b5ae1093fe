//! Whether the broker is there, and takes the node's account.

use std::time::Duration;

use chaski_daemon::config::Config;
use chaski_daemon::mqtt::Tls;
use rumqttc::v5::ConnectionError;
use rumqttc::v5::mqttbytes::v5::ConnectReturnCode;
use tokio::time::timeout;

use super::report::Check;
use crate::client::{BrokerAddress, try_connect};

const NAME: &str = "broker";
const PATIENCE: Duration = Duration::from_secs(10);

/// Connects as the daemon would, but by a client id of our own: a node that runs stays.
pub(super) async fn check(config: &Config) -> Check {
    let broker = &config.broker;
    let address = match BrokerAddress::configured(broker) {
        Ok(address) => address,
        Err(problem) => return Check::problem(NAME, format!("not asked, since {problem}"), ""),
    };
    let account = address
        .credentials
        .as_ref()
        .map(|(username, _)| format!(" as {username:?}"));
    let account = account.unwrap_or_default();
    let label = address.label();
    match timeout(PATIENCE, try_connect(&address)).await {
        Ok(Ok(())) => {
            let encrypted = if broker.tls { ", encrypted" } else { "" };
            Check::ok(NAME, format!("{label} takes us{account}{encrypted}"))
        }
        Ok(Err(error)) => {
            let (finding, remedy) = explain(&label, &error);
            Check::problem(NAME, finding, remedy)
        }
        Err(_) => Check::problem(
            NAME,
            format!("{label} does not answer within {} s", PATIENCE.as_secs()),
            "check broker.host and broker.port, and firewalls between; with TLS set broker.tls",
        ),
    }
}

fn explain(label: &str, error: &ConnectionError) -> (String, &'static str) {
    if let Some(problem) = Tls::describe(error) {
        return (format!("{label}: {problem}"), "");
    }
    match error {
        ConnectionError::ConnectionRefused(
            code @ (ConnectReturnCode::BadUserNamePassword | ConnectReturnCode::NotAuthorized),
        ) => (
            format!("{label} does not take the account ({code:?})"),
            "correct broker.username and the password, or the broker's list of accounts",
        ),
        ConnectionError::ConnectionRefused(code) => (
            format!("{label} refuses the connection ({code:?})"),
            "see the broker's log; it must speak MQTT 5",
        ),
        ConnectionError::Io(error) => (
            format!("nothing answers at {label}: {error}"),
            "start the broker there, or correct broker.host and broker.port; with TLS set broker.tls",
        ),
        other => (
            format!("{label} does not speak MQTT 5: {other}"),
            "correct broker.port, or set broker.tls if the broker wants that",
        ),
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[test]
    fn each_failure_has_its_remedy() {
        let refused = |code| ConnectionError::ConnectionRefused(code);
        for (error, remedy) in [
            (
                ConnectionError::Io(io::ErrorKind::ConnectionRefused.into()),
                "broker.host",
            ),
            (refused(ConnectReturnCode::NotAuthorized), "broker.username"),
            (
                refused(ConnectReturnCode::UnsupportedProtocolVersion),
                "MQTT 5",
            ),
            (ConnectionError::RequestsDone, "broker.tls"),
        ] {
            let (finding, said) = explain("pi:1883", &error);
            assert!(
                finding.contains("pi:1883") && said.contains(remedy),
                "{finding}: {said}"
            );
        }
    }
}
