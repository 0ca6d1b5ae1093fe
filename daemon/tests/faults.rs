//! The whole daemon with a generator that misbehaves, at a broker in this process.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::ops::ControlFlow;
use std::time::Duration;

use chaski_daemon::config::{self, Config};
use chaski_daemon::inference::{Completed, Description, Generator, Job, LoadError, Loader, Models};
use chaski_daemon::refusal::Refusal;
use chaski_daemon::wire::{
    CancelRequest, ChatRequest, LoadedInfo, Message, ModelInfo, Reply, Topics,
};
use chaski_daemon::{DaemonError, run_with};
use chaski_engine::{FinishReason, Generated, Timings};
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{Packet, Publish};
use rumqttc::v5::{AsyncClient, Event, EventLoop, MqttOptions};
use serde::Serialize;
use tokio::sync::oneshot;

/// Far more pieces than any queue between the generator and the broker holds.
const PIECES: usize = 3000;

/// As `max_tokens` of a request: it goes on until it is told to end.
const ENDLESS: usize = 7;

struct Fake;

fn info() -> ModelInfo {
    ModelInfo {
        name: "fake".into(),
        family: "none".into(),
        layers: 1,
        hidden_size: 1,
        heads: 1,
        kv_heads: 1,
        vocab_size: 1,
        context_length: 1,
        file_bytes: 0,
        created_by: "test".into(),
    }
}

/// Gives out generators, or none.
struct Fakes {
    broken: bool,
}

impl Models for Fakes {
    fn look(&self, _: &config::Model) -> Result<ModelInfo, LoadError> {
        Ok(info())
    }

    fn loader(&self, _: &config::Model) -> Loader {
        let broken = self.broken;
        Box::new(move || match broken {
            true => Err("no such model".into()),
            false => Ok(Box::new(Fake)),
        })
    }
}

impl Generator for Fake {
    fn description(&self) -> Description {
        Description {
            model: info(),
            loaded: LoadedInfo {
                context_length: 1,
                backend: "none".into(),
                threads: 1,
                load_seconds: 0.0,
            },
        }
    }

    fn generate(
        &mut self,
        job: &Job,
        emit: &mut dyn FnMut(&str) -> ControlFlow<()>,
    ) -> Result<Completed, Refusal> {
        assert!(job.stream, "a fault in the generator");
        let mut text = String::new();
        let mut finish_reason = FinishReason::Stop;
        let pieces = match job.max_tokens {
            ENDLESS => usize::MAX,
            _ => PIECES,
        };
        for i in 0..pieces {
            let piece = format!("{i} ");
            text += &piece;
            if emit(&piece).is_break() {
                finish_reason = FinishReason::Cancelled;
                break;
            }
        }
        Ok(Completed {
            prompt_tokens: 1,
            generated: Generated {
                text,
                tokens: vec![],
                finish_reason,
                timings: Timings::default(),
            },
        })
    }
}

/// A broker for as long as the test's process lives.
fn broker() -> SocketAddr {
    let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .and_then(|listener| listener.local_addr())
        .expect("a free port");
    let server = rumqttd::ServerSettings {
        name: "test".into(),
        listen: address,
        tls: None,
        next_connection_delay_ms: 1,
        connections: rumqttd::ConnectionSettings {
            connection_timeout_ms: 5000,
            max_payload_size: 1024 * 1024,
            max_inflight_count: 100,
            auth: None,
            external_auth: None,
            dynamic_filters: true,
        },
    };
    let config = rumqttd::Config {
        router: rumqttd::RouterConfig {
            max_connections: 16,
            max_outgoing_packet_count: 200,
            max_segment_size: 1024 * 1024,
            max_segment_count: 10,
            ..rumqttd::RouterConfig::default()
        },
        v5: Some(HashMap::from([("test".to_owned(), server)])),
        ..rumqttd::Config::default()
    };
    std::thread::spawn(move || {
        if let Err(e) = rumqttd::Broker::new(config).start() {
            panic!("no broker: {e}");
        }
    });
    while TcpStream::connect(address).is_err() {
        std::thread::sleep(Duration::from_millis(10));
    }
    address
}

/// A client that listens to everything.
struct Client {
    client: AsyncClient,
    event_loop: EventLoop,
}

impl Client {
    async fn connect(address: SocketAddr) -> Self {
        let mut options = MqttOptions::new("tester", address.ip().to_string(), address.port());
        options.set_keep_alive(Duration::from_secs(5));
        let (client, event_loop) = AsyncClient::new(options, 10);
        client
            .subscribe("chaski/#", QoS::AtLeastOnce)
            .await
            .expect("room");
        let mut this = Self { client, event_loop };
        while !matches!(this.poll().await, Packet::SubAck(_)) {}
        this
    }

    async fn poll(&mut self) -> Packet {
        loop {
            if let Event::Incoming(packet) = self.event_loop.poll().await.expect("a connection") {
                return packet;
            }
        }
    }

    /// The next message on this topic.
    async fn next(&mut self, topic: &str) -> Publish {
        loop {
            match self.poll().await {
                Packet::Publish(publish) if publish.topic == topic => return publish,
                _ => {}
            }
        }
    }

    async fn ask(&self, topics: &Topics, stream: bool) {
        let request = ChatRequest {
            stream: Some(stream),
            ..question()
        };
        self.send(topics.chat(), &request).await;
    }

    async fn send(&self, topic: String, request: &impl Serialize) {
        let payload = serde_json::to_vec(request).expect("JSON");
        let sent = self.client.publish(topic, QoS::AtLeastOnce, false, payload);
        sent.await.expect("room");
    }
}

fn question() -> ChatRequest {
    ChatRequest {
        id: Some("q".into()),
        messages: vec![Message::new("user", "hi")],
        ..ChatRequest::default()
    }
}

fn config(address: SocketAddr) -> Config {
    let mut config = Config::for_model("none");
    config.broker.host = address.ip().to_string();
    config.broker.port = Some(address.port());
    // As many messages as pieces.
    config.stream.chunk_ms = 0;
    config
}

fn fake() -> Box<dyn Models> {
    Box::new(Fakes { broken: false })
}

#[tokio::test]
async fn a_panic_is_told_to_all_and_ends_the_daemon() {
    let address = broker();
    let config = config(address);
    let topics = config.topics();
    let mut client = Client::connect(address).await;
    let daemon = tokio::spawn(run_with(config, |_| fake(), None, std::future::pending()));
    assert_eq!(client.next(&topics.status()).await.payload, "online");
    client.ask(&topics, false).await;
    let reply = client.next(&topics.reply("q")).await;
    match Reply::parse(&reply.payload).expect("a reply") {
        Reply::Error(e) => assert_eq!(e.error.code, "internal_error"),
        other => panic!("{other:?}"),
    }
    assert_eq!(client.next(&topics.status()).await.payload, "offline");
    match daemon.await.expect("no panic here") {
        Err(DaemonError::InferenceLost(reason)) => {
            assert!(reason.contains("a fault in the generator"))
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_generator_faster_than_the_broker_waits_and_nothing_is_lost() {
    let address = broker();
    let config = config(address);
    let topics = config.topics();
    let mut client = Client::connect(address).await;
    let (stop, stopped) = oneshot::channel::<()>();
    let shutdown = async {
        let _ = stopped.await;
    };
    let daemon = tokio::spawn(run_with(config, |_| fake(), None, shutdown));
    assert_eq!(client.next(&topics.status()).await.payload, "online");
    client.ask(&topics, true).await;
    let mut text = String::new();
    for sequence in 0..=PIECES {
        let message = client.next(&topics.reply("q")).await;
        let Reply::Chunk(chunk) = Reply::parse(&message.payload).expect("a reply") else {
            panic!("not a chunk: {message:?}")
        };
        assert_eq!(chunk.sequence, sequence as u64);
        text += chunk.choices[0]
            .delta
            .content
            .as_deref()
            .unwrap_or_default();
        assert_eq!(chunk.choices[0].finish_reason.is_some(), sequence == PIECES);
    }
    assert_eq!(
        text,
        (0..PIECES).map(|i| format!("{i} ")).collect::<String>()
    );
    stop.send(()).expect("the daemon listens");
    assert_eq!(client.next(&topics.status()).await.payload, "offline");
    assert!(daemon.await.expect("no panic").is_ok());
}

#[tokio::test]
async fn a_cancel_is_heard_by_a_generator_that_has_no_room_for_its_text() {
    let address = broker();
    let config = config(address);
    let topics = config.topics();
    let mut client = Client::connect(address).await;
    let daemon = tokio::spawn(run_with(config, |_| fake(), None, std::future::pending()));
    assert_eq!(client.next(&topics.status()).await.payload, "online");
    let request = ChatRequest {
        stream: Some(true),
        max_tokens: Some(ENDLESS as u64),
        ..question()
    };
    client.send(topics.chat(), &request).await;
    client.next(&topics.reply("q")).await;
    let cancel = CancelRequest { id: "q".into() };
    client.send(topics.cancel(), &cancel).await;
    loop {
        let message = client.next(&topics.reply("q")).await;
        let Reply::Chunk(chunk) = Reply::parse(&message.payload).expect("a reply") else {
            panic!("not a chunk: {message:?}")
        };
        if let Some(reason) = &chunk.choices[0].finish_reason {
            assert_eq!(reason, "cancelled");
            break;
        }
    }
    daemon.abort();
}

#[tokio::test]
async fn a_model_that_does_not_load_ends_the_daemon() {
    let models = Box::new(Fakes { broken: true });
    let config = Config::for_model("none");
    let result = run_with(config, |_| models, None, std::future::pending()).await;
    assert!(matches!(result, Err(DaemonError::Load(e)) if e.to_string() == "no such model"));
}
