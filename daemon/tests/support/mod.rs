//! A broker that does what a test says, packet by packet, over the packets of
//! `rumqttc` itself.

use std::io;
use std::net::Ipv4Addr;

use bytes::BytesMut;
use chaski_daemon::mqtt::{ContentType, LinkSettings, Message, Subscription};
use rumqttc::v5::mqttbytes::v5::{
    ConnAck, ConnAckProperties, Connect, ConnectReturnCode, Disconnect, DisconnectReasonCode,
    Packet, PingResp, PubAck, PubAckReason, Publish, SubAck, SubscribeReasonCode,
};
use rumqttc::v5::mqttbytes::{Error, QoS};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

/// The topic that links of [`Broker::settings`] listen to.
pub const TOPIC: &str = "in";
/// Small enough that a few large messages fill it and what the system adds.
const RECEIVE_BUFFER: u32 = 64 * 1024;

/// Waits for connections.
pub struct Broker {
    listener: TcpListener,
}

/// One connection, from the broker's side.
pub struct Connection {
    stream: TcpStream,
    buffer: BytesMut,
    /// What the client said first.
    pub connect: Connect,
    /// How many pings it sent; they are answered.
    pub pings: usize,
}

impl Broker {
    /// Listens on a port of its own.
    pub fn start() -> Self {
        let listen = || {
            let socket = TcpSocket::new_v4()?;
            socket.set_recv_buffer_size(RECEIVE_BUFFER)?;
            socket.bind((Ipv4Addr::LOCALHOST, 0).into())?;
            socket.listen(8)
        };
        Self {
            listener: listen().expect("a free port"),
        }
    }

    /// What a link needs to come here.
    pub fn settings(&self) -> LinkSettings {
        let address = self.listener.local_addr().expect("an address");
        LinkSettings {
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
            topics: vec![Subscription::own(TOPIC.into(), 1)],
        }
    }

    /// The next client, which waits for its CONNACK.
    pub async fn accept(&self) -> Connection {
        let (stream, _) = self.listener.accept().await.expect("a connection");
        let mut connection = Connection {
            stream,
            buffer: BytesMut::new(),
            connect: Connect {
                keep_alive: 0,
                client_id: String::new(),
                clean_start: false,
                properties: None,
            },
            pings: 0,
        };
        match connection.read().await {
            Some(Packet::Connect(connect, ..)) => connection.connect = connect,
            other => panic!("no CONNECT: {other:?}"),
        }
        connection
    }

    /// The next client, connected and subscribed.
    pub async fn serve(&self, properties: ConnAckProperties) -> Connection {
        let mut connection = self.accept().await;
        let ack = Packet::ConnAck(ConnAck {
            session_present: false,
            code: ConnectReturnCode::Success,
            properties: Some(properties),
        });
        connection.write(ack).await.expect("it listens");
        let Some(Packet::Subscribe(subscribe)) = connection.read().await else {
            panic!("no SUBSCRIBE before anything else")
        };
        let ack = Packet::SubAck(SubAck {
            pkid: subscribe.pkid,
            return_codes: vec![
                SubscribeReasonCode::Success(QoS::AtLeastOnce);
                subscribe.filters.len()
            ],
            properties: None,
        });
        connection.write(ack).await.expect("it listens");
        connection
    }
}

impl Connection {
    /// The next packet but pings; `None`: the client is gone.
    pub async fn read(&mut self) -> Option<Packet> {
        loop {
            match Packet::read(&mut self.buffer, None) {
                Ok(Packet::PingReq(_)) => {
                    self.pings += 1;
                    let _ = self.write(Packet::PingResp(PingResp)).await;
                }
                Ok(packet) => return Some(packet),
                // The shortest form of a DISCONNECT, which the library writes but does not read.
                Err(Error::PayloadRequired) => {
                    let normal = DisconnectReasonCode::NormalDisconnection;
                    return Some(Packet::Disconnect(Disconnect::new(normal)));
                }
                Err(Error::InsufficientBytes(_)) => {
                    if !self.fill().await {
                        return None;
                    }
                }
                Err(e) => panic!("no packet: {e}"),
            }
        }
    }

    async fn fill(&mut self) -> bool {
        let mut chunk = [0; 4096];
        loop {
            if self.stream.readable().await.is_err() {
                return false;
            }
            match self.stream.try_read(&mut chunk) {
                Ok(0) => return false,
                Ok(n) => {
                    self.buffer.extend_from_slice(&chunk[..n]);
                    return true;
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => return false,
            }
        }
    }

    /// The next packet, which must be a message.
    pub async fn publish(&mut self) -> Publish {
        match self.read().await {
            Some(Packet::Publish(publish)) => publish,
            other => panic!("no PUBLISH: {other:?}"),
        }
    }

    /// So many messages, by their topics.
    pub async fn publishes(&mut self, count: usize) -> Vec<(String, u16)> {
        let mut publishes = Vec::new();
        while publishes.len() < count {
            let publish = self.publish().await;
            let topic = String::from_utf8(publish.topic.to_vec()).expect("UTF-8");
            publishes.push((topic, publish.pkid));
        }
        publishes
    }

    /// The packet id of the next packet, which must be an acknowledgement.
    pub async fn acknowledged(&mut self) -> u16 {
        match self.read().await {
            Some(Packet::PubAck(ack)) => ack.pkid,
            other => panic!("no PUBACK: {other:?}"),
        }
    }

    /// Sends a packet.
    pub async fn write(&mut self, packet: Packet) -> io::Result<()> {
        let mut bytes = BytesMut::new();
        packet.write(&mut bytes, None).expect("a packet");
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            self.stream.writable().await?;
            match self.stream.try_write(rest) {
                Ok(n) => rest = &rest[n..],
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    /// Sends a request with QoS 1.
    pub async fn request(&mut self, packet_id: u16, payload: impl Into<bytes::Bytes>) {
        let mut publish = Publish::new(TOPIC, QoS::AtLeastOnce, payload, None);
        publish.pkid = packet_id;
        self.write(Packet::Publish(publish))
            .await
            .expect("it listens");
    }

    /// Acknowledges a message.
    pub async fn acknowledge(&mut self, packet_id: u16, reason: PubAckReason) {
        let mut ack = PubAck::new(packet_id, None);
        ack.reason = reason;
        self.write(Packet::PubAck(ack)).await.expect("it listens");
    }
}

/// A CONNACK that says nothing.
pub fn no_properties() -> ConnAckProperties {
    ConnAckProperties {
        session_expiry_interval: None,
        receive_max: None,
        max_qos: None,
        retain_available: None,
        max_packet_size: None,
        assigned_client_identifier: None,
        topic_alias_max: None,
        reason_string: None,
        user_properties: Vec::new(),
        wildcard_subscription_available: None,
        subscription_identifiers_available: None,
        shared_subscription_available: None,
        server_keep_alive: None,
        response_information: None,
        server_reference: None,
        authentication_method: None,
        authentication_data: None,
    }
}
