"""The tools of the fault tests do what they say: a proxy that harms, a tally that counts."""

import json
import socket
import threading
import time

import pytest

from tools.asker import Asker
from tools.mqtt_client import Client
from tools.proxy import DOWN, UP, Proxy
from tools.tally import Question, Tally


class EchoServer:
    """Sends back what it gets, and keeps it by connection, in the order of their making."""

    def __init__(self):
        self.got: list[bytes] = []
        self.ended: list[int] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._accepting = threading.Thread(target=self._listen, daemon=True)
        self._accepting.start()

    def _listen(self):
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.got.append(b"")
            number = len(self.got) - 1
            threading.Thread(target=self._echo, args=(connection, number), daemon=True).start()

    def _echo(self, connection, number):
        with connection:
            try:
                while data := connection.recv(65536):
                    self.got[number] += data
                    connection.sendall(data)
            except OSError:
                pass
        self.ended.append(number)

    def close(self):
        """From here on nobody is taken in."""
        if self._accepting.is_alive():
            # Closed alone, it would go on to listen until `accept` returns.
            self._listener.shutdown(socket.SHUT_RDWR)
            self._accepting.join(20)
        self._listener.close()


@pytest.fixture
def server():
    server = EchoServer()
    yield server
    server.close()


@pytest.fixture
def proxy(server):
    proxy = Proxy(server.port)
    yield proxy
    proxy.close()


@pytest.fixture
def connect(proxy):
    """A function that connects to the proxy; its sockets have a timeout of 20 s."""
    sockets = []

    def connection():
        sockets.append(socket.create_connection(("127.0.0.1", proxy.port), timeout=20))
        return sockets[-1]

    yield connection
    for each in sockets:
        each.close()


def echoed(connection, data: bytes) -> bool:
    connection.sendall(data)
    return received(connection, len(data)) == data


def received(connection, size: int) -> bytes:
    """So many bytes, or fewer at the end of the connection."""
    data = b""
    while len(data) < size and (more := connection.recv(size - len(data))):
        data += more
    return data


def is_silent(connection, seconds: float = 0.3) -> bool:
    """Whether nothing comes, not even the end."""
    connection.settimeout(seconds)
    try:
        connection.recv(1)
    except TimeoutError:
        return True
    finally:
        connection.settimeout(20)
    return False


def wait_until(condition) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)


def test_without_a_fault_all_passes(proxy, server, connect):
    connection, other = connect(), connect()
    assert echoed(connection, b"hello" * 100_000) and echoed(other, b"you")
    assert proxy.is_connected()
    connection.shutdown(socket.SHUT_WR)
    assert connection.recv(1) == b""
    wait_until(lambda: len(server.ended) == 1)
    assert echoed(other, b"still there")


def test_delay(proxy, connect):
    connection = connect()
    proxy.delay(0.2)
    begin = time.monotonic()
    assert echoed(connection, b"x")
    assert time.monotonic() - begin >= 0.4, "there and back"


@pytest.mark.parametrize(("directions", "arrives"), [((), b""), ((UP,), b""), ((DOWN,), b"x")])
def test_stall(proxy, server, connect, directions, arrives):
    connection = connect()
    assert echoed(connection, b"first")
    proxy.stall(*directions)
    connection.sendall(b"x")
    assert is_silent(connection)
    wait_until(lambda: server.got == [b"first" + arrives])
    proxy.resume()
    assert received(connection, 1) == b"x"


def test_a_stall_holds_the_end_back(proxy, server, connect):
    connection = connect()
    assert echoed(connection, b"first")
    proxy.stall()
    connection.shutdown(socket.SHUT_WR)
    assert is_silent(connection) and server.ended == []
    proxy.resume()
    wait_until(lambda: server.ended == [0])


def test_cut_is_a_reset_and_loses_what_was_held(proxy, server, connect):
    connection = connect()
    assert echoed(connection, b"first")
    proxy.stall()
    connection.sendall(b"second")
    assert is_silent(connection)
    proxy.cut()
    proxy.resume()
    with pytest.raises(ConnectionResetError):
        connection.recv(1)
    wait_until(lambda: server.ended == [0])
    assert server.got == [b"first"] and proxy.counts["cut"] == 1
    assert echoed(connect(), b"again")


def test_halves(proxy, server, connect):
    connection = connect()
    proxy.halve(UP)
    connection.sendall(b"0123456789")
    wait_until(lambda: server.ended == [0])
    assert server.got == [b"01234"]

    connection = connect()
    proxy.halve(DOWN)
    connection.sendall(b"0123456789")
    assert connection.recv(5) == b"01234"
    with pytest.raises(ConnectionResetError):
        connection.recv(1)
    assert server.got[1] == b"0123456789"
    assert echoed(connect(), b"0123456789"), "once only"


def test_cut_after_bytes_of_several_chunks(proxy, server, connect):
    proxy.cut_after(UP, 7)
    connection = connect()
    assert echoed(connection, b"0123")
    connection.sendall(b"4567")
    wait_until(lambda: server.ended == [0])
    assert server.got == [b"0123456"]


def test_old_and_new_connection_overlap(proxy, server, connect):
    old = connect()
    assert echoed(old, b"first")
    threading.Timer(0.1, old.sendall, [b" late"]).start()
    proxy.part(0.7)
    with pytest.raises(ConnectionResetError):
        old.recv(1)
    assert echoed(connect(), b"new")
    assert server.got == [b"first", b"new"] and server.ended == []
    wait_until(lambda: server.ended == [0])
    assert server.got == [b"first late", b"new"]


def test_refuse(proxy, server, connect):
    old = connect()
    assert echoed(old, b"x")
    proxy.refuse()
    with pytest.raises(ConnectionResetError):
        connect().recv(1)
    assert echoed(old, b"y") and proxy.counts["refused"] == 1
    proxy.admit()
    assert echoed(connect(), b"z") and len(server.got) == 2


def test_connections_in_another_order(proxy, server, connect):
    proxy.swap(0.3)
    first = connect()
    first.sendall(b"first")
    with pytest.raises(ConnectionResetError):
        first.recv(1)
    assert server.got == []
    second = connect()
    assert echoed(second, b"second")
    wait_until(lambda: server.got == [b"second", b"first"])
    wait_until(lambda: server.ended == [1])
    assert echoed(second, b"goes on")


def test_a_server_that_is_not_there(proxy, server, connect):
    server.close()
    with pytest.raises(ConnectionResetError):
        connect().recv(1)


# The tally.

CHAT = '{"messages": ["x"]}'


def whole(text: str, reason: str = "stop") -> bytes:
    choice = {"message": {"content": text}, "finish_reason": reason}
    return json.dumps({"created": 1, "choices": [choice]}).encode()


def piece(sequence: int, text: str, created: int = 1) -> bytes:
    choice = {"delta": {"content": text}, "finish_reason": None}
    return json.dumps({"created": created, "sequence": sequence, "choices": [choice]}).encode()


def end(sequence: int, text: str | None = None, created: int = 1) -> bytes:
    choice = {"delta": {}, "finish_reason": "stop"}
    if text is not None:
        choice["message"] = {"content": text}
    return json.dumps({"created": created, "sequence": sequence, "choices": [choice]}).encode()


def tally_of(streamed: bool, *replies: bytes, payload: str = CHAT):
    """The counts after these replies to one question that was accepted."""
    question = Question(1, "t", payload, streamed=streamed, sampled=streamed)
    tally = Tally([question, Question(2, "t", "never asked")])
    tally.asked.add(1)
    tally.accepted(question)
    for reply in replies:
        tally.reply(b"1", reply)
    return tally.counts()


@pytest.mark.parametrize(
    ("streamed", "replies", "expected"),
    [
        (False, [], "unanswered"),
        (False, [whole("a")], None),
        (False, [whole("a"), whole("a")], "repeated"),
        (False, [whole("a"), whole("b")], "different"),
        (False, [whole("a"), whole("a", "length")], "different"),
        (True, [piece(0, "a")], "unanswered"),
        (True, [piece(0, "a"), end(2)], "unanswered"),
        (True, [piece(0, "a"), piece(1, "b"), end(2)], None),
        (True, [piece(0, "a"), piece(0, "a"), piece(1, "b"), end(2)], None),
        (True, [piece(1, "b"), end(2), piece(0, "a"), end(2)], "repeated"),
        (True, [piece(0, "a"), end(2), end(2, "ab")], "repeated"),
        (True, [end(2, "ab")], None),
        (True, [piece(0, "a"), piece(0, "x"), piece(1, "b"), end(2)], "different"),
        (True, [piece(0, "a"), piece(1, "b"), end(2), end(2, "ax")], "different"),
        (True, [piece(0, "a"), end(1), end(2, "a")], "different"),
        (True, [piece(0, "a"), end(1), piece(1, "b")], "different"),
        # Begun anew, after a part of another text.
        (True, [piece(0, "x"), piece(0, "a", 2), end(1, created=2)], None),
        (True, [piece(0, "x"), piece(1, "y"), end(1, "a", 2)], None),
        (True, [piece(0, "a"), piece(0, "b", 2), end(2, created=2)], "unanswered"),
        (True, [piece(0, "a"), end(1), piece(0, "a", 2), end(1, created=2)], "repeated"),
        (True, [piece(0, "a"), end(1), piece(0, "b", 2), end(1, created=2)], "different"),
    ],
)
def test_what_the_tally_finds(streamed, replies, expected):
    counts = tally_of(streamed, *replies)
    assert counts.asked == counts.accepted == 1
    found = {
        name: getattr(counts, name) for name in ("unanswered", "repeated", "different", "strangers")
    }
    assert found == {name: int(name == expected) for name in found}
    assert counts.answered == (expected != "unanswered")


def test_plain_text_is_compared_as_it_is():
    assert tally_of(False, b"a", b"a", payload="hello").repeated == 1
    assert tally_of(False, b"a", b"b", payload="hello").different == 1


def test_errors_and_strangers_are_no_answers():
    tally = Tally([Question(1, "t", CHAT)])
    tally.asked.add(1)
    tally.reply(b"1", b"{}", error="busy")
    tally.reply(b"7", whole("a"))
    tally.reply(None, whole("a"))
    tally.reply(b"1", b"no JSON")
    tally.reply(b"1", b"{}")
    counts = tally.counts()
    assert counts.errors == {"busy": 1} and counts.strangers == 4
    assert counts.answered == 0 and len(tally.unanswered()) == 1
    # Nobody owes an answer to what the broker did not accept.
    assert counts.unanswered == 0


def test_the_asker_finds_what_a_node_does_wrong(mosquitto):
    """A node of the test's, which leaves out one question and answers one in two ways."""
    broker = mosquitto()
    questions = [Question(number, "chaski/n/ask", f"question {number}") for number in range(40)]
    with Client(broker.port) as node:
        node.subscribe("chaski/n/ask")
        asker = Asker(broker.port, questions)
        replies = {3: [], 5: ["one", "another"], 7: ["same", "same"], 9: ["one"]}

        def answer():
            while not node.messages.empty():
                message = node.next()
                number = int(message.properties.CorrelationData)
                for text in replies.get(number, ["text"]):
                    topic = message.properties.ResponseTopic
                    node.publish(topic, text, correlation=b"%d" % number, qos=1)

        asker.finish(3, answer)
        asker.close()
    counts = asker.tally.counts()
    assert counts.asked == counts.accepted == 40 and counts.answered == 39
    assert [q.number for q in asker.tally.unanswered()] == [3]
    assert (counts.unanswered, counts.different, counts.repeated) == (1, 1, 1)
    assert asker.counts["again"] == 0, "the broker answers for what it has accepted"


def test_the_asker_asks_again_what_a_broker_may_have_forgotten(mosquitto):
    broker = mosquitto()
    with Client(broker.port) as node:
        node.subscribe("chaski/n/ask")
        asker = Asker(broker.port, [Question(1, "chaski/n/ask", "lost")])
        asker.step()
        asker.settle()
        assert node.next().payload == b"lost" and asker.tally.counts().unanswered == 1
    # This broker keeps nothing, and so there is nobody who listens when it is back.
    broker.kill()
    asker.doubt()
    broker.start()
    for _ in range(200):
        asker.go_on(0.1)
        if asker.counts["unheard"] > 0:
            break
    with Client(broker.port) as node:
        node.subscribe("chaski/n/ask")
        deadline = time.monotonic() + 30
        while node.messages.empty() and time.monotonic() < deadline:
            asker.step()
        message = node.next()
        node.publish(message.properties.ResponseTopic, "found", correlation=b"1")
        asker.finish(20, lambda: None)
    asker.close()
    counts = asker.tally.counts()
    assert (counts.answered, counts.unanswered) == (1, 0)
    assert asker.counts["unheard"] >= 1 and asker.counts["again"] >= 2
