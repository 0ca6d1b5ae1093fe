//! Trap 3 of `rumqttc`: its table of messages in flight takes 14 MB by default.
//! Alone in its process, so that nobody else's memory is counted.

use std::fs;
use std::time::Duration;

use chaski_daemon::mqtt::{ContentType, Link, LinkSettings, Message, Subscription};
use tokio::net::TcpListener;
use tokio::time::timeout;

const PAGE: usize = 4096;

/// Bytes of this process that are in memory.
fn resident() -> usize {
    let statm = fs::read_to_string("/proc/self/statm").expect("Linux");
    let pages = statm.split_whitespace().nth(1).expect("a second figure");
    pages.parse::<usize>().expect("a number") * PAGE
}

#[tokio::test]
async fn a_link_takes_less_than_4_mb() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("an address");
    let settings = LinkSettings {
        host: address.ip().to_string(),
        port: address.port(),
        client_id: "chaski-test".into(),
        credentials: None,
        keep_alive: 5,
        tls: None,
        session_expiry: 60,
        receive_maximum: 9,
        max_payload_bytes: 256 * 1024,
        last_will: Message::retained("status".into(), "offline", ContentType::Text),
        topics: vec![Subscription::own("in".into(), 1)],
    };
    let before = resident();
    let link = Link::start(&settings);
    // Its tables are there once it says something.
    let connected = async {
        let (stream, _) = listener.accept().await.expect("a connection");
        stream.readable().await.expect("CONNECT");
        stream
    };
    let stream = timeout(Duration::from_secs(30), connected).await;
    let grown = resident().saturating_sub(before);
    assert!(grown < 4_000_000, "{grown} bytes");
    drop((link, stream));
}
