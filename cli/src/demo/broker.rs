//! An MQTT broker inside this process, for this machine only.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rumqttd::{Broker, Config, ConnectionSettings, RouterConfig, ServerSettings};

/// Ports tried before giving up.
const ATTEMPTS: usize = 5;
/// How long the broker may take to listen.
const PATIENCE: Duration = Duration::from_secs(5);

/// Starts a broker on a free port of the loopback address; it lives as long as
/// the process, as rumqttd knows no end.
pub fn start() -> Result<SocketAddr> {
    for _ in 0..ATTEMPTS {
        let address = free_address()?;
        // Between the search and its use another program may take the port.
        if listens(address)? {
            return Ok(address);
        }
    }
    bail!("the embedded MQTT broker found no free port in {ATTEMPTS} attempts");
}

fn free_address() -> Result<SocketAddr> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .and_then(|listener| listener.local_addr())
        .context("cannot find a free TCP port on the loopback address")
}

/// True when the broker answers at this address, false when it gave up on it.
fn listens(address: SocketAddr) -> Result<bool> {
    let (ended, end) = mpsc::channel();
    thread::Builder::new()
        .name("broker".to_owned())
        .spawn(move || {
            let outcome = Broker::new(config(address)).start();
            let _ = ended.send(outcome.map_err(|error| error.to_string()));
        })
        .context("cannot start a thread for the MQTT broker")?;
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        match end.recv_timeout(Duration::from_millis(20)) {
            Err(RecvTimeoutError::Timeout) => {}
            Ok(Err(problem)) => bail!("the embedded MQTT broker does not start: {problem}"),
            Ok(Ok(())) | Err(RecvTimeoutError::Disconnected) => return Ok(false),
        }
        if TcpStream::connect_timeout(&address, Duration::from_millis(200)).is_ok() {
            // Another program may be the one that answers: then ours has ended.
            let ours =
                end.recv_timeout(Duration::from_millis(50)) == Err(RecvTimeoutError::Timeout);
            return Ok(ours);
        }
    }
    bail!("the embedded MQTT broker did not listen on {address} in time");
}

fn config(listen: SocketAddr) -> Config {
    let connections = ConnectionSettings {
        connection_timeout_ms: 5000,
        max_payload_size: 4 * 1024 * 1024,
        max_inflight_count: 100,
        auth: None,
        external_auth: None,
        dynamic_filters: true,
    };
    let server = ServerSettings {
        name: "demo".to_owned(),
        listen,
        tls: None,
        next_connection_delay_ms: 1,
        connections,
    };
    Config {
        router: RouterConfig {
            max_connections: 32,
            max_outgoing_packet_count: 200,
            max_segment_size: 1024 * 1024,
            max_segment_count: 4,
            ..RouterConfig::default()
        },
        v5: Some(HashMap::from([("demo".to_owned(), server)])),
        ..Config::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_listens_on_the_loopback_address() {
        let address = start().expect("a broker");
        assert!(address.ip().is_loopback());
        assert!(TcpStream::connect(address).is_ok());
    }

    #[test]
    fn a_taken_port_is_given_up() {
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let address = taken.local_addr().expect("its address");
        assert!(!listens(address).expect("an ended broker is no error"));
    }
}
