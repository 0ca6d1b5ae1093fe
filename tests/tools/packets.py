"""MQTT 5 packets by hand: what no client library would send, and clients that cost little."""

import socket
from dataclasses import dataclass

CONNECT, CONNACK, PUBLISH, PUBACK, SUBSCRIBE, SUBACK = 0x10, 0x20, 0x30, 0x40, 0x82, 0x90
PINGREQ, PINGRESP, DISCONNECT = 0xC0, 0xD0, 0xE0

PAYLOAD_FORMAT, EXPIRY, CONTENT_TYPE, RESPONSE_TOPIC, CORRELATION = 0x01, 0x02, 0x03, 0x08, 0x09
SUBSCRIPTION_ID, TOPIC_ALIAS, USER = 0x0B, 0x23, 0x26
"""Properties of a PUBLISH."""


class Closed(Exception):
    """The broker ended the connection."""


def varint(number: int) -> bytes:
    """A number in 1 to 4 bytes of 7 bits, the lowest first."""
    out = bytearray()
    while True:
        number, low = number >> 7, number & 0x7F
        out.append(low | (0x80 if number else 0))
        if not number:
            return bytes(out)


def string(data: bytes) -> bytes:
    """Bytes behind their number, which may be no UTF-8 at all."""
    return len(data).to_bytes(2) + data


def packet(first: int, body: bytes) -> bytes:
    return bytes([first]) + varint(len(body)) + body


def connect(client_id: str, keep_alive: int = 600) -> bytes:
    """With a clean start and without will, user or limits."""
    head = string(b"MQTT") + bytes([5, 2]) + keep_alive.to_bytes(2) + b"\0"
    return packet(CONNECT, head + string(client_id.encode()))


def subscribe(topic: str, qos: int, packet_id: int = 1) -> bytes:
    return packet(SUBSCRIBE, packet_id.to_bytes(2) + b"\0" + string(topic.encode()) + bytes([qos]))


def text_property(kind: int, data: bytes) -> bytes:
    """One whose value is a string or bytes."""
    return bytes([kind]) + string(data)


def user_property(name: bytes, value: bytes) -> bytes:
    return bytes([USER]) + string(name) + string(value)


def publish(
    topic: bytes,
    payload: bytes,
    properties: bytes = b"",
    packet_id: int | None = None,
    flags: int = 0,
) -> bytes:
    """QoS 1 if there is a packet id, else 0; `properties` are encoded ones, one after the other."""
    name = b"" if packet_id is None else packet_id.to_bytes(2)
    first = PUBLISH | (0 if packet_id is None else 2) | flags
    return packet(first, string(topic) + name + varint(len(properties)) + properties + payload)


@dataclass(frozen=True)
class Publish:
    """A message that came in; its properties are left as they are."""

    topic: bytes
    packet_id: int | None
    properties: bytes
    payload: bytes

    @classmethod
    def read(cls, first: int, body: bytes) -> "Publish":
        size = int.from_bytes(body[:2])
        topic, at, packet_id = body[2 : 2 + size], 2 + size, None
        if first & 0x06:
            packet_id, at = int.from_bytes(body[at : at + 2]), at + 2
        length, at = _read_varint(body, at)
        return cls(topic, packet_id, body[at : at + length], body[at + length :])


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    """A number and the place behind it."""
    number = shift = 0
    while True:
        byte = data[at]
        number, shift, at = number | (byte & 0x7F) << shift, shift + 7, at + 1
        if byte < 0x80:
            return number, at


class Connection:
    """A client that the broker has accepted, without threads: it reads when asked to."""

    def __init__(self, port: int, client_id: str = "", timeout: float = 60):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=timeout)
        # A packet is sent when it is there, not when the one before is acknowledged.
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._buffer = bytearray()
        self.send(connect(client_id))
        first, body = self.receive()
        assert first == CONNACK and body[1] == 0, f"the broker refuses us: {first:#x} {body!r}"

    def send(self, data: bytes) -> None:
        try:
            self.socket.sendall(data)
        except (BrokenPipeError, ConnectionResetError) as error:
            raise Closed from error

    def subscribe(self, topic: str, qos: int) -> None:
        """Subscribes and waits for the broker's word."""
        self.send(subscribe(topic, qos))
        first, body = self.receive()
        assert first == SUBACK and body[-1] == qos, f"no subscription to {topic}"

    def receive(self) -> tuple[int, bytes]:
        """The next packet: its first byte, and what is behind the length."""
        while (found := self._whole_packet()) is None:
            try:
                data = self.socket.recv(65536)
            except ConnectionResetError as error:
                raise Closed from error
            if not data:
                raise Closed
            self._buffer += data
        return found

    def _whole_packet(self) -> tuple[int, bytes] | None:
        try:
            length, at = _read_varint(self._buffer, 1)
        except IndexError:
            return None
        if len(self._buffer) < at + length:
            return None
        first, body = self._buffer[0], bytes(self._buffer[at : at + length])
        del self._buffer[: at + length]
        return first, body

    def next_message(self) -> Publish:
        """The next message; acknowledged if the broker wants that."""
        while True:
            first, body = self.receive()
            if first & 0xF0 == PUBLISH:
                message = Publish.read(first, body)
                if message.packet_id is not None:
                    self.send(packet(PUBACK, message.packet_id.to_bytes(2)))
                return message

    def ping(self) -> None:
        """Waits until the broker has read all that was sent; `Closed` if it did not like it."""
        self.send(packet(PINGREQ, b""))
        while (kind := self.receive()[0]) != PINGRESP:
            if kind == DISCONNECT:
                raise Closed

    def close(self) -> None:
        self.socket.close()

    def __enter__(self) -> "Connection":
        return self

    def __exit__(self, *_) -> None:
        self.close()
