"""Thousands of requests a second: some are told to come later, and the node stays as it is."""

import json
import time

from tools import flood
from tools.daemon import Chaskid
from tools.mqtt_client import Client
from tools.process import memory

RATE = 2000
SECONDS = 8.0
MOST_GROWTH = 8.0
"""MB, of a process that has answered before."""


def ask(node: Chaskid, me: Client) -> None:
    me.publish(node.topic("ask"), "What is the capital of Peru?", "me")
    assert b"Lima" in me.next().payload


def tell(node: Chaskid, client: Client, name: str) -> None:
    """Sends a request that runs for long."""
    story = [{"role": "user", "content": "Tell me a very long story about a dog."}]
    request = {"id": name, "messages": story, "max_tokens": 200}
    client.publish(node.topic("chat"), request, "story")


def told(client: Client) -> bool:
    """Whether the next message is the answer to that."""
    message = client.next()
    return message.topic == "story" and "choices" in json.loads(message.payload)


def accepted(node: Chaskid) -> int:
    """Requests that the node took, by its log."""
    return node.log().count(" request ")


def test_a_flood_of_requests(node):
    # What is lost is then lost by the node.
    node = node(broker="max_queued_messages 0\n")
    with Client(node.port) as me, Client(node.port) as watcher:
        me.subscribe("me")
        watcher.subscribe(node.topic("status"))
        watcher.subscribe("story")
        watcher.wait_for(node.topic("status"), "online")
        # The KV cache takes memory when it is first written.
        tell(node, watcher, "warm")
        assert told(watcher)
        ask(node, me)
        before, taken = memory(node.process.pid), accepted(node)
        tell(node, watcher, "long")
        process = flood.start(node.port, node.node, RATE, SECONDS, clients=4)
        try:
            sizes = []
            end = time.monotonic() + SECONDS
            while process.poll() is None:
                sizes.append(memory(node.process.pid))
                time.sleep(0.1)
                if time.monotonic() > end:
                    # So that those who wait have their turn while the flood listens.
                    watcher.publish(node.topic("cancel"), "long")
                    end = float("inf")
        finally:
            if process.poll() is None:
                process.kill()
        counts = flood.counts_of(process)
        assert told(watcher)
        ask(node, me)
        after = memory(node.process.pid)
        assert watcher.messages.empty(), "it was not offline in between"
    # The story and the last question are ours.
    taken = accepted(node) - taken - 2
    print(f"\n{counts}, {taken} taken; {before:.1f} MB, at most {max(sizes):.1f}, {after:.1f} MB")
    # A machine that does other things too may not come to all of them.
    assert counts["sent"] > RATE
    assert counts["busy"] > 0 and counts["rate_limited"] > 0
    # Nothing but these two is wrong with any. Of the errors some may be lost, of the answers none.
    assert counts["errors"] == counts["busy"] + counts["rate_limited"]
    assert counts["answered"] == taken >= 8
    assert counts["errors"] + taken <= counts["sent"]
    assert max(*sizes, after) - before < MOST_GROWTH
    assert "panic" not in node.log()
