"""A TCP proxy between the daemon and its broker that does to connections what networks do.

It knows nothing of MQTT: it holds bytes back, cuts, and mixes up old and new
connections. `up` is the way from the daemon to the broker, `down` the way back.
Every fault is a method that can be called from the test's thread; it has taken
effect when the method returns, unless that says otherwise.
"""

import asyncio
import contextlib
import socket
import struct
import threading
from collections import Counter

UP, DOWN = "up", "down"
CHUNK = 65536
HALF = "half"


class Proxy:
    """Listens on `port` from its making to `close`.

    `counts` tells what happened so far: `served`, `refused`, `ended`, `cut`,
    `parted` and `swapped` connections.
    """

    def __init__(self, broker_port: int, host: str = "127.0.0.1"):
        self.counts: Counter[str] = Counter()
        self._broker = (host, broker_port)
        self._links: set[_Link] = set()
        self._tasks: set[asyncio.Task] = set()
        self._faults: list[BaseException] = []
        self._open = {UP: asyncio.Event(), DOWN: asyncio.Event()}
        for gate in self._open.values():
            gate.set()
        self._delay = 0.0
        self._limit: dict[str, int | str | None] = {UP: None, DOWN: None}
        self._refusing = False
        self._swap: float | None = None
        self._ghost: tuple[bytes, float] | None = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._server = self._wait(asyncio.start_server(self._serve, host, 0))
        self.port = self._server.sockets[0].getsockname()[1]

    def is_connected(self) -> bool:
        """Whether the daemon has a connection to the broker now, as far as TCP goes."""
        return bool(self._links)

    def delay(self, seconds: float) -> None:
        """Holds each chunk of bytes for so long from now on; 0 ends it."""
        self._wait(self._set("_delay", seconds))

    def stall(self, *directions: str) -> None:
        """Lets nothing pass, not even the end of a connection, until `resume`."""

        async def close_gates() -> None:
            for direction in directions or (UP, DOWN):
                self._open[direction].clear()

        self._wait(close_gates())

    def resume(self) -> None:
        """Ends `stall`: what was held passes now."""

        async def open_gates() -> None:
            for gate in self._open.values():
                gate.set()

        self._wait(open_gates())

    def cut(self) -> None:
        """Resets every connection, on both sides; what was held is lost."""
        self._wait(self._cut())

    def cut_after(self, direction: str, bytes_: int) -> None:
        """Lets so many more bytes pass in one direction and then cuts, whenever that is."""
        self._wait(self._set_limit(direction, bytes_))

    def halve(self, direction: str) -> None:
        """Lets the first half of the next chunk pass and then cuts, whenever that is."""
        self._wait(self._set_limit(direction, HALF))

    def part(self, seconds: float) -> None:
        """Resets the daemon's side; the broker learns of it `seconds` later.

        What the daemon sent last reaches the broker only then: old and new connection
        overlap. Waits up to a second for there to be something.
        """

        async def part_all() -> None:
            await asyncio.gather(*(link.part(seconds) for link in list(self._links)))

        self._wait(part_all())

    def refuse(self) -> None:
        """Resets new connections at once until `admit`; those that are there stay."""
        self._wait(self._set("_refusing", True))

    def admit(self) -> None:
        """Ends `refuse`."""
        self._wait(self._set("_refusing", False))

    def swap(self, seconds: float) -> None:
        """Lets the next two connections reach the broker in the other order.

        The daemon's side of the first is reset once it sent something, and the broker
        gets that so long after it got the second connection.
        """
        self._wait(self._set("_swap", seconds))

    def close(self) -> None:
        """Resets all connections and ends the thread."""
        self._wait(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        assert not self._thread.is_alive(), "the proxy does not end"
        self._loop.close()
        assert not self._faults, f"faults of the proxy itself: {self._faults}"

    def _wait(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(10)

    async def _set(self, name: str, value) -> None:
        setattr(self, name, value)

    async def _set_limit(self, direction: str, limit: int | str) -> None:
        self._limit[direction] = limit

    async def _cut(self) -> None:
        for link in list(self._links):
            link.reset()
            self.counts["cut"] += 1
        # The sockets are closed by callbacks that run before this ends.
        await asyncio.sleep(0.01)

    async def _end(self) -> None:
        self._server.close()
        await self._cut()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def spawn(self, coroutine) -> None:
        """Runs something in the background, until `close` at the latest."""
        task = self._loop.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            self._faults.append(task.exception())

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.spawn(self._connection(reader, writer))

    async def _connection(self, reader, writer) -> None:
        if self._refusing:
            self.counts["refused"] += 1
            _reset(writer)
            return
        if self._swap is not None:
            seconds, self._swap = self._swap, None
            self._ghost = (await _read(reader), seconds)
            _reset(writer)
            return
        ghost, self._ghost = self._ghost, None
        try:
            link = _Link(self, (reader, writer), await asyncio.open_connection(*self._broker))
        except OSError:
            self.counts["refused"] += 1
            _reset(writer)
            return
        if ghost is not None:
            self.spawn(self._haunt(*ghost))
        self.counts["served"] += 1
        self._links.add(link)
        await link.run()
        self._links.discard(link)
        self.counts["ended"] += 1

    async def _haunt(self, first: bytes, seconds: float) -> None:
        """A connection nobody is at the other end of any more."""
        await asyncio.sleep(seconds)
        with contextlib.suppress(OSError):
            reader, writer = await asyncio.open_connection(*self._broker)
            self.counts["swapped"] += 1
            writer.write(first)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    while await _read(reader):
                        pass
            writer.close()

    async def pass_gate(self, direction: str) -> None:
        """Holds a chunk for as long as it is to be held."""
        await asyncio.sleep(self._delay)
        await self._open[direction].wait()

    def limit(self, direction: str, size: int) -> int | None:
        """How much of a chunk passes before a cut; `None`: all of it, and no cut."""
        limit = self._limit[direction]
        if limit is None:
            return None
        if limit == HALF:
            # One byte has no halves.
            if size < 2:
                return None
            limit = size // 2
        if size < limit:
            self._limit[direction] = limit - size
            return None
        self._limit[direction] = None
        return limit

    async def cut_behind(self, writer: asyncio.StreamWriter) -> None:
        """Cuts once what was written is out."""
        await writer.drain()
        await asyncio.sleep(0.05)
        await self._cut()


class _Link:
    """One connection of the daemon and the one to the broker that belongs to it."""

    def __init__(self, proxy: Proxy, client, broker):
        self.proxy = proxy
        self.client_reader, self.client_writer = client
        self.broker_reader, self.broker_writer = broker
        self.late = asyncio.Event()
        self.late.set()
        self.held = asyncio.Event()
        self.gone = False
        self.pumps: list[asyncio.Task] = []

    async def run(self) -> None:
        """Passes bytes on until one side ends, then ends the other."""
        self.pumps = [
            asyncio.ensure_future(self.pump(UP, self.client_reader, self.broker_writer)),
            asyncio.ensure_future(self.pump(DOWN, self.broker_reader, self.client_writer)),
        ]
        await asyncio.wait(self.pumps, return_when=asyncio.FIRST_COMPLETED)
        for pump in self.pumps:
            pump.cancel()
        await asyncio.gather(*self.pumps, return_exceptions=True)
        for writer in (self.client_writer, self.broker_writer):
            writer.close()

    async def pump(self, direction, reader, writer) -> None:
        while True:
            chunk = await _read(reader)
            await self.proxy.pass_gate(direction)
            if direction == UP and not self.late.is_set():
                self.held.set()
                await self.late.wait()
            if not chunk:
                return
            if direction == DOWN and self.gone:
                continue
            limit = self.proxy.limit(direction, len(chunk))
            writer.write(chunk[:limit])
            if limit is not None:
                # Not by this task, which is ended by it.
                self.proxy.spawn(self.proxy.cut_behind(writer))
                await asyncio.Event().wait()
            with contextlib.suppress(OSError):
                await writer.drain()

    async def part(self, seconds: float) -> None:
        self.late.clear()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.held.wait(), 1)
        self.gone = True
        _reset(self.client_writer)
        self.proxy.counts["parted"] += 1
        asyncio.get_running_loop().call_later(seconds, self.late.set)

    def reset(self) -> None:
        for pump in self.pumps:
            pump.cancel()
        for writer in (self.client_writer, self.broker_writer):
            _reset(writer)


async def _read(reader: asyncio.StreamReader) -> bytes:
    """The next bytes; none at the end, however it came."""
    try:
        return await reader.read(CHUNK)
    except OSError:
        return b""


def _reset(writer: asyncio.StreamWriter) -> None:
    """Ends a connection by RST instead of FIN."""
    end = writer.get_extra_info("socket")
    with contextlib.suppress(OSError):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
