//! The link against brokers that set off the traps of `rumqttc`, one by one.

mod support;

use std::future::Future;
use std::pin::pin;
use std::time::{Duration, Instant};

use bytes::Bytes;
use chaski_daemon::config::Config;
use chaski_daemon::mqtt::{ContentType, Delivered, Link, LinkEvent, Message, Receipt, Request};
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{
    ConnAckProperties, Disconnect, DisconnectReasonCode, Packet, PubAckReason, Publish,
    PublishProperties,
};
use support::{Broker, Connection, TOPIC, no_properties};
use tokio::time::timeout;

/// Longer than any test should take.
const LONG: Duration = Duration::from_secs(60);
/// Most messages without acknowledgement.
const WINDOW: usize = 32;

/// A link, served as the daemon does.
struct Node {
    link: Link,
    /// Events that nobody asked for yet.
    events: Vec<LinkEvent>,
}

impl Node {
    fn start(broker: &Broker) -> Self {
        Self::with(Link::start(&broker.settings()))
    }

    fn with(link: Link) -> Self {
        Self {
            link,
            events: Vec::new(),
        }
    }

    /// Serves the link while the broker does its part.
    async fn during<T>(&mut self, broker: impl Future<Output = T>) -> T {
        let mut broker = pin!(broker);
        let both = async {
            loop {
                self.link.pump();
                tokio::select! {
                    event = self.link.next_event() => {
                        assert_ne!(event, LinkEvent::Ended, "the task is gone");
                        self.events.push(event);
                    }
                    done = &mut broker => return done,
                }
            }
        };
        timeout(LONG, both).await.expect("the broker has its turn")
    }

    /// Serves the link until this event.
    async fn until<T>(&mut self, wanted: impl Fn(LinkEvent) -> Option<T>) -> T {
        let events = async {
            loop {
                while !self.events.is_empty() {
                    if let Some(found) = wanted(self.events.remove(0)) {
                        return found;
                    }
                }
                self.link.pump();
                let event = self.link.next_event().await;
                assert_ne!(event, LinkEvent::Ended, "the task is gone");
                self.events.push(event);
            }
        };
        timeout(LONG, events).await.expect("the event comes")
    }

    async fn request(&mut self) -> Request {
        self.until(|event| match event {
            LinkEvent::Request(request) => Some(request),
            _ => None,
        })
        .await
    }

    async fn receipt(&mut self) -> Receipt {
        self.request().await.receipt.expect("it came with QoS 1")
    }

    async fn down(&mut self) {
        self.until(|event| (event == LinkEvent::Down).then_some(()))
            .await;
    }

    async fn outcome(&mut self) -> (u64, Delivered) {
        self.until(|event| match event {
            LinkEvent::Delivered { key, outcome } => Some((key, outcome)),
            _ => None,
        })
        .await
    }

    async fn connection(&mut self, broker: &Broker) -> Connection {
        self.during(broker.serve(no_properties())).await
    }

    /// Messages with the topics 0, 1, 2 and so on.
    fn push(&mut self, count: usize) {
        (0..count).for_each(|i| self.link.outbox.push(message(i, "x")));
    }
}

fn message(topic: usize, payload: impl Into<Bytes>) -> Message {
    Message {
        retain: false,
        ..Message::retained(topic.to_string(), payload, ContentType::Text)
    }
}

fn topics(publishes: &[(String, u16)]) -> Vec<usize> {
    let topics = publishes.iter();
    topics.map(|(t, _)| t.parse().expect("a number")).collect()
}

async fn acknowledge_all(connection: &mut Connection, publishes: &[(String, u16)]) {
    for &(_, packet_id) in publishes {
        connection
            .acknowledge(packet_id, PubAckReason::Success)
            .await;
    }
}

// Trap 1: more than 10 KiB.

#[tokio::test]
async fn a_large_payload_arrives() {
    let broker = Broker::start();
    let mut node = Node::start(&broker);
    let mut connection = node.connection(&broker).await;
    let properties = connection.connect.properties.clone().expect("properties");
    assert_eq!(properties.max_packet_size, Some(512 * 1024));
    assert_eq!(properties.receive_maximum, Some(9));
    assert_eq!(properties.session_expiry_interval, Some(60));
    let payload = vec![b'x'; 100 * 1024];
    node.during(connection.request(1, payload.clone())).await;
    assert_eq!(node.request().await.payload, payload);
}

#[tokio::test]
async fn a_message_too_large_that_comes_again_ends_with_the_session() {
    let broker = Broker::start();
    let mut node = Node::start(&broker);
    let mut too_large = Publish::new(TOPIC, QoS::AtLeastOnce, vec![b'x'; 600 * 1024], None);
    too_large.pkid = 1;
    for _ in 0..3 {
        let mut connection = node.connection(&broker).await;
        assert!(!connection.connect.clean_start);
        let sent = async {
            // It leaves in the middle of it.
            let _ = connection.write(Packet::Publish(too_large.clone())).await;
            while connection.read().await.is_some() {}
        };
        node.during(sent).await;
        node.down().await;
    }
    let mut connection = node.connection(&broker).await;
    assert!(connection.connect.clean_start);
    node.during(connection.request(1, "small")).await;
    assert_eq!(node.request().await.payload, "small");
}

// Trap 2: a session that is gone.

#[tokio::test]
async fn without_a_session_everything_is_sent_again_in_order() {
    let broker = Broker::start();
    let mut node = Node::start(&broker);
    node.push(40);
    let mut connection = node.connection(&broker).await;
    let first = node.during(connection.publishes(WINDOW)).await;
    assert_eq!(topics(&first), (0..WINDOW).collect::<Vec<_>>());
    drop(connection);
    node.down().await;
    let mut connection = node.connection(&broker).await;
    let again = async {
        let mut all = Vec::new();
        while all.len() < 40 {
            let next = connection.publishes(1).await;
            acknowledge_all(&mut connection, &next).await;
            all.extend(next);
        }
        all
    };
    let again = node.during(again).await;
    assert_eq!(topics(&again), (0..40).collect::<Vec<_>>());
    while !node.link.outbox.is_empty() {
        node.until(|event| (event == LinkEvent::Taken).then_some(()))
            .await;
    }
}

// Trap 3, memory, is in `link_memory.rs`. Trap 4: connecting again at once.

#[tokio::test]
async fn two_nodes_of_one_name_do_not_hammer_their_broker() {
    let broker = Broker::start();
    let mut node = Node::start(&broker);
    let mut gaps = Vec::new();
    let mut ended: Option<Instant> = None;
    for _ in 0..4 {
        // Complete each time, so that only how long it lasts tells that it does not work.
        let mut connection = node.connection(&broker).await;
        gaps.extend(ended.map(|ended| ended.elapsed()));
        ended = Some(Instant::now());
        let taken_over = Disconnect::new(DisconnectReasonCode::SessionTakenOver);
        let told = connection.write(Packet::Disconnect(taken_over));
        node.during(told).await.expect("it listens");
        drop(connection);
        node.down().await;
    }
    for (gap, least) in gaps.iter().zip([250, 500, 1000]) {
        assert!(*gap >= Duration::from_millis(least), "{gaps:?}");
    }
}

// Trap 5: keep-alives that rumqttc does not survive.

#[tokio::test]
async fn a_keep_alive_of_the_brokers_own() {
    for (seconds, pings) in [(0, 0..=1), (1, 2..=9)] {
        let broker = Broker::start();
        let mut node = Node::start(&broker);
        let properties = ConnAckProperties {
            server_keep_alive: Some(seconds),
            ..no_properties()
        };
        let mut connection = node.during(broker.serve(properties)).await;
        let quiet = timeout(Duration::from_millis(3500), connection.read());
        assert!(node.during(quiet).await.is_err(), "only pings");
        assert!(pings.contains(&connection.pings), "{}", connection.pings);
        node.during(connection.request(1, "still there")).await;
        assert_eq!(node.request().await.payload, "still there");
    }
}

#[test]
fn a_keep_alive_below_5_s_is_refused() {
    let mut config = Config::for_model("m");
    config.broker.keep_alive = 4;
    let problems = config.problems();
    assert_eq!(problems.len(), 1);
    assert_eq!(problems[0].key, "broker.keep-alive");
}

// Trap 6: acknowledgements behind a full window.

#[tokio::test]
async fn requests_are_acknowledged_while_no_message_of_ours_is() {
    for receive_max in [20, 1] {
        let broker = Broker::start();
        let mut node = Node::start(&broker);
        node.push(40);
        let properties = ConnAckProperties {
            receive_max: Some(receive_max),
            ..no_properties()
        };
        let mut connection = node.during(broker.serve(properties)).await;
        let window = usize::from(receive_max);
        let held = node.during(connection.publishes(window)).await;
        let requests = async {
            for packet_id in [5, 3, 9] {
                connection.request(packet_id, "q").await;
            }
        };
        node.during(requests).await;
        let mut receipts = Vec::new();
        for _ in 0..3 {
            receipts.push(node.receipt().await);
        }
        // The last two are answered first, but acknowledged in order.
        node.link.ack(receipts[2]);
        node.link.ack(receipts[1]);
        node.link.ack(receipts[0]);
        // Also: no message beyond the window comes in between.
        let acknowledged = async {
            let mut ids = Vec::new();
            for _ in 0..3 {
                ids.push(connection.acknowledged().await);
            }
            ids
        };
        assert_eq!(node.during(acknowledged).await, [5, 3, 9]);
        node.during(acknowledge_all(&mut connection, &held)).await;
        let next = node.during(connection.publishes(1)).await;
        assert_eq!(topics(&next), [window]);
    }
}

// Trap 7: packet ids that collide.

#[tokio::test]
async fn acknowledgements_out_of_order_and_then_a_lost_session() {
    const ALL: usize = 400;
    const GROUP: usize = 30;
    let broker = Broker::start();
    let mut node = Node::start(&broker);
    node.push(ALL);
    let mut connection = node.connection(&broker).await;
    let out_of_order = async {
        let mut acknowledged = Vec::new();
        for _ in 0..10 {
            let mut group = connection.publishes(GROUP).await;
            acknowledged.extend(topics(&group));
            group.reverse();
            acknowledge_all(&mut connection, &group).await;
        }
        acknowledged
    };
    let mut delivered = node.during(out_of_order).await;
    assert_eq!(delivered, (0..10 * GROUP).collect::<Vec<_>>());
    drop(connection);
    node.down().await;
    let mut connection = node.connection(&broker).await;
    let rest = async {
        let mut rest = Vec::new();
        while rest.last() != Some(&(ALL - 1)) {
            let next = connection.publishes(1).await;
            acknowledge_all(&mut connection, &next).await;
            rest.extend(topics(&next));
        }
        rest
    };
    let rest = node.during(rest).await;
    // Acknowledgements that were on their way are lost, messages are not.
    assert!(rest.windows(2).all(|pair| pair[0] < pair[1]), "{rest:?}");
    delivered.extend(rest);
    delivered.sort_unstable();
    delivered.dedup();
    assert_eq!(delivered, (0..ALL).collect::<Vec<_>>());
}

// Trap 8: a connection that hangs.

#[tokio::test]
async fn a_broker_that_does_not_read_is_given_up_and_nobody_waits_for_it() {
    let broker = Broker::start();
    let grace = Duration::from_secs(1);
    let mut node = Node::with(Link::start_with_grace(&broker.settings(), grace));
    // More than the system takes off our hands.
    let payload = Bytes::from(vec![b'x'; 512 * 1024]);
    for i in 0..WINDOW {
        node.link.outbox.push(message(i, payload.clone()));
    }
    let properties = ConnAckProperties {
        server_keep_alive: Some(1),
        ..no_properties()
    };
    let deaf = node.during(broker.serve(properties.clone())).await;
    // One task does it all here, so nothing would come if it waited for the connection.
    node.down().await;
    drop(deaf);
    let mut connection = node.during(broker.serve(properties)).await;
    let again = async {
        let mut all = Vec::new();
        while all.len() < WINDOW {
            let next = connection.publishes(1).await;
            acknowledge_all(&mut connection, &next).await;
            all.extend(topics(&next));
        }
        all
    };
    assert_eq!(node.during(again).await, (0..WINDOW).collect::<Vec<_>>());
}

// Receipts.

#[tokio::test]
async fn the_receipt_of_an_earlier_connection_acknowledges_nothing() {
    let broker = Broker::start();
    let mut node = Node::start(&broker);
    let mut connection = node.connection(&broker).await;
    node.during(connection.request(7, "first")).await;
    let stale = node.receipt().await;
    drop(connection);
    node.down().await;
    node.link.ack(stale);
    let mut connection = node.connection(&broker).await;
    node.during(connection.request(7, "second")).await;
    let fresh = node.receipt().await;
    node.link.ack(stale);
    node.push(1);
    // The message comes, and before it nothing.
    assert_eq!(
        topics(&node.during(connection.publishes(1)).await),
        [0],
        "the first packet"
    );
    node.link.ack(fresh);
    assert_eq!(node.during(connection.acknowledged()).await, 7);
}

#[tokio::test]
async fn a_request_sent_twice_on_one_connection_is_one_request() {
    let broker = Broker::start();
    let mut node = Node::start(&broker);
    let mut connection = node.connection(&broker).await;
    let twice = async {
        connection.request(7, "slow").await;
        connection.request(7, "slow").await;
        connection.request(8, "next").await;
    };
    node.during(twice).await;
    let first = node.request().await;
    assert_eq!(first.payload, "slow");
    assert_eq!(node.request().await.payload, "next");
    // Once it is acknowledged, the packet id is free for another.
    node.link.ack(first.receipt.expect("it came with QoS 1"));
    assert_eq!(node.during(connection.acknowledged()).await, 7);
    node.during(connection.request(7, "another")).await;
    assert_eq!(node.request().await.payload, "another");
}

// Outcomes.

#[tokio::test]
async fn the_outcome_of_a_message_is_told() {
    let broker = Broker::start();
    let mut node = Node::start(&broker);
    let properties = ConnAckProperties {
        max_packet_size: Some(1000),
        ..no_properties()
    };
    let mut connection = node.during(broker.serve(properties)).await;
    let outbox = &mut node.link.outbox;
    outbox.push_final(7, message(0, vec![b'x'; 2000]));
    outbox.push_final(8, message(1, "forbidden"));
    outbox.push_final(9, message(2, "good"));
    outbox.push(Message {
        droppable: true,
        ..message(3, "of little weight")
    });
    let (key, outcome) = node.outcome().await;
    assert_eq!(key, 7);
    assert!(matches!(outcome, Delivered::TooLarge { max: 1000, .. }));
    let published = node.during(connection.publishes(3)).await;
    assert_eq!(topics(&published), [1, 2, 3]);
    assert_eq!(published[2].1, 0, "QoS 0 has no packet id");
    let acknowledged = async {
        let (forbidden, good) = (published[0].1, published[1].1);
        connection
            .acknowledge(forbidden, PubAckReason::NotAuthorized)
            .await;
        connection
            .acknowledge(good, PubAckReason::NoMatchingSubscribers)
            .await;
    };
    node.during(acknowledged).await;
    let refused = Delivered::Refused("NotAuthorized".into());
    assert_eq!(node.outcome().await, (8, refused));
    assert_eq!(node.outcome().await, (9, Delivered::Taken));
    assert!(node.link.outbox.is_empty());
}

// Ends.

#[tokio::test]
async fn an_unknown_topic_alias_costs_the_connection_and_no_more() {
    let broker = Broker::start();
    let mut node = Node::start(&broker);
    let mut connection = node.connection(&broker).await;
    let properties = PublishProperties {
        topic_alias: Some(3),
        ..PublishProperties::default()
    };
    let unknown = Publish::new("", QoS::AtMostOnce, "x", Some(properties));
    let sent = connection.write(Packet::Publish(unknown));
    node.during(sent).await.expect("it listens");
    node.down().await;
    let mut connection = node.connection(&broker).await;
    node.during(connection.request(1, "named")).await;
    assert_eq!(node.request().await.payload, "named");
}

#[tokio::test]
async fn a_goodbye_is_said() {
    let broker = Broker::start();
    let mut node = Node::start(&broker);
    let mut connection = node.connection(&broker).await;
    node.until(|event| (event == LinkEvent::Up).then_some(()))
        .await;
    let (said, ()) = tokio::join!(connection.read(), node.link.disconnect());
    assert!(matches!(said, Some(Packet::Disconnect(_))), "{said:?}");
    assert_eq!(connection.read().await, None);
}
