"""Names of receivers, looked up in threads of their own: a name server that hangs holds up no other work."""

from __future__ import annotations

import asyncio
import socket
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final

from aiohttp.abc import AbstractResolver

if TYPE_CHECKING:
    from aiohttp.abc import ResolveResult

# Threads that may wait for a name server at once; such a thread cannot be interrupted.
THREADS: Final = 16
# Lookups that may wait for a thread; more would not be answered within a connection's time anyway.
MOST_WAITING: Final = 200
# Addresses that are taken of one name; a receiver has fewer.
MOST_ADDRESSES: Final = 16


class Resolver(AbstractResolver):
    """The system's resolver, within bounds. Raises OSError for a name that has no address."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="resolve")
        self._waiting = 0

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Look the name up."""
        if self._waiting >= THREADS + MOST_WAITING:
            raise OSError("too many names are being looked up")
        self._waiting += 1
        work = asyncio.get_running_loop().run_in_executor(self._threads, _look_up, host, port, family)
        work.add_done_callback(self._done)
        return await asyncio.shield(work)

    def _done(self, work: asyncio.Future[list[ResolveResult]]) -> None:
        self._waiting -= 1
        if not work.cancelled():
            work.exception()  # the caller may be gone by now

    async def close(self) -> None:
        """Give up the lookups that have not begun."""
        self._threads.shutdown(wait=False, cancel_futures=True)


def _look_up(host: str, port: int, family: socket.AddressFamily) -> list[ResolveResult]:
    found = socket.getaddrinfo(host, port, family=family, type=socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG)
    return [
        {
            "hostname": host,
            # A scoped address reads `fe80::1%2`; the scope means nothing outside this machine.
            "host": str(address[0]).partition("%")[0],
            "port": port,
            "family": kind,
            "proto": protocol,
            "flags": socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
        }
        for kind, _, protocol, _, address in found[:MOST_ADDRESSES]
    ]
