"""Links that fail: a proxy before a server, which delays, loses, cuts and half-closes what passes through it."""

import asyncio
import contextlib
import socket
import struct
from collections.abc import Awaitable, Callable, Mapping

CHUNK_BYTES = 2**16
HOST = "127.0.0.1"
#: A delayed link holds each chunk back for so long.
DELAY_SECONDS = 0.1
#: A torn link lets so many bytes of an answer pass, mostly the half of one.
TORN_BYTES = 40
CLOSE_SECONDS = 5.0


class Pair:
    """One connection through the link: the caller's end and the server's."""

    def __init__(self, near: asyncio.StreamWriter, far: asyncio.StreamWriter) -> None:
        self.near, self.far = near, far
        self.passed: int | None = None
        """The bytes of the server that may still pass before the link is cut; None: all."""

    def cut(self) -> None:
        """End both connections with a reset, as a failing router does; what was on its way is lost."""
        for writer in (self.near, self.far):
            end = writer.get_extra_info("socket")
            if end is not None:
                # A connection that has ended meanwhile has no socket.
                with contextlib.suppress(OSError, ValueError):
                    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()


class Link:
    """A port of its own in front of the port `target`. An async context manager's work is done by start and close."""

    def __init__(self, target: int = 0) -> None:
        self.target = target
        self.port = 0
        self.connections = 0
        self._pairs: set[Pair] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._open = asyncio.Event()
        self._open.set()
        self._delay = 0.0
        self._mute = False
        self._server: asyncio.Server | None = None
        self.ways: Mapping[str, Callable[[float], Awaitable[None]]] = {
            "cut": self.cut,
            "tear": self.tear,
            "slow": self.slow,
            "mute": self.mute,
            "hole": self.hole,
            "stall": self.stall,
            "half": self.half,
        }

    async def start(self) -> None:
        """Listen on a free port."""
        self._server = await asyncio.start_server(self._connected, HOST, 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """Stop listening, and end every connection."""
        if self._server is not None:
            self._server.close()
        self._open.set()
        self._cut_all()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=CLOSE_SECONDS)

    async def cut(self, _: float) -> None:
        """Reset all connections at once."""
        self._cut_all()

    async def tear(self, seconds: float) -> None:
        """Reset each connection in the middle of its next answer."""
        for pair in self._pairs:
            pair.passed = TORN_BYTES
        await asyncio.sleep(seconds)
        for pair in [pair for pair in self._pairs if pair.passed is not None]:
            pair.cut()

    async def slow(self, seconds: float) -> None:
        """Hold every chunk back."""
        self._delay = DELAY_SECONDS
        try:
            await asyncio.sleep(seconds)
        finally:
            self._delay = 0.0

    async def mute(self, seconds: float) -> None:
        """Let the server hear everything and lose all that it answers; then reset: the outcome stays unknown."""
        self._mute = True
        try:
            await asyncio.sleep(seconds)
        finally:
            self._mute = False
            self._cut_all()

    async def hole(self, seconds: float) -> None:
        """Let nothing pass in either way, then reset: what was on its way is lost."""
        await self._stop(seconds, cut=True)

    async def stall(self, seconds: float) -> None:
        """Let nothing pass in either way, then all of it: a partition that heals."""
        await self._stop(seconds, cut=False)

    async def half(self, seconds: float) -> None:
        """End the way to the server alone; the other way stays open until the reset."""
        pairs = list(self._pairs)
        for pair in pairs:
            if pair.far.can_write_eof() and not pair.far.is_closing():
                with contextlib.suppress(OSError, RuntimeError):
                    pair.far.write_eof()
        await asyncio.sleep(seconds)
        for pair in pairs:
            pair.cut()

    async def _stop(self, seconds: float, *, cut: bool) -> None:
        self._open.clear()
        try:
            await asyncio.sleep(seconds)
        finally:
            if cut:
                self._cut_all()
            self._open.set()

    def _cut_all(self) -> None:
        for pair in list(self._pairs):
            pair.cut()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is not None:
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        self.connections += 1
        try:
            await self._open.wait()
            back, forth = await asyncio.open_connection(HOST, self.target)
        except OSError:
            writer.transport.abort()
            return
        pair = Pair(writer, forth)
        self._pairs.add(pair)
        try:
            await asyncio.gather(
                self._pump(pair, reader, forth, answers=False), self._pump(pair, back, writer, answers=True)
            )
        finally:
            self._pairs.discard(pair)
            for end in (writer, forth):
                end.close()

    async def _pump(
        self, pair: Pair, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, answers: bool
    ) -> None:
        with contextlib.suppress(OSError, RuntimeError):
            while chunk := await reader.read(CHUNK_BYTES):
                await self._open.wait()
                if self._delay:
                    await asyncio.sleep(self._delay)
                if answers and self._mute:
                    continue
                if answers and pair.passed is not None:
                    writer.write(chunk[: pair.passed])
                    pair.passed -= min(pair.passed, len(chunk))
                    if not pair.passed:
                        await writer.drain()
                        break
                    continue
                writer.write(chunk)
                await writer.drain()
            else:
                if writer.can_write_eof() and not writer.is_closing():
                    writer.write_eof()
                return
        pair.cut()
