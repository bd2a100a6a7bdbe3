"""One outgoing webhook request: to a permitted address only, without redirects, bounded in time and bytes."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import time
from typing import TYPE_CHECKING, Final, NamedTuple
from urllib.parse import urlsplit

import aiohttp
from aiohttp import hdrs

from core.errors import Refusal

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from aiohappyeyeballs import AddrInfoType

    from core.outbox.destinations import Destinations

# The existing contract's limit for a whole delivery; receivers are told to answer first and work afterwards.
TOTAL_TIMEOUT_SECONDS: Final = 5.0
CONNECT_TIMEOUT_SECONDS: Final = 3.0
# Once the status line is in, the verdict stands; this is for the excerpt that people read later.
EXCERPT_TIMEOUT_SECONDS: Final = 1.0
EXCERPT_BYTES: Final = 1024
# Answers up to this size are read to their end, so that the connection can be used again; longer ones are cut off.
READ_BYTES: Final = 16 * 1024
# Sockets kept open to receivers in all; one of them gets at most as many as deliveries run to it at once.
CONNECTIONS: Final = 200
DNS_CACHE_SECONDS: Final = 10
KEEPALIVE_SECONDS: Final = 30

FORBIDDEN: Final = "the address is not a permitted one"


class Attempt(NamedTuple):
    """What came of one request: the status if there was an answer, else the error.

    `excerpt` is the beginning of the answer's body.
    """

    status: int | None
    error: str | None
    seconds: float
    excerpt: str = ""

    @property
    def succeeded(self) -> bool:
        """Only 2xx counts. A redirect is a failure: following it would hand the body to whoever wrote the header."""
        return self.status is not None and 200 <= self.status < 300


class ForbiddenAddressError(OSError):
    """The socket would have gone to an address that is not permitted."""


class Egress:
    """The client side of all deliveries of a process."""

    def __init__(self, destinations: Destinations) -> None:
        self._destinations = destinations
        self._public = self._session(host_allowed=False)
        # The factory of a socket sees its address and not the host it is for, hence a session for each rule.
        self._named = self._session(host_allowed=True)

    async def close(self) -> None:
        """Close all connections."""
        await self._public.close()
        await self._named.close()

    async def post(self, url: str, *, body: bytes, headers: Mapping[str, str]) -> Attempt:
        """Send `body` to `url` and say what came of it. Never raises for what the receiver does."""
        started = time.perf_counter()
        try:
            self._destinations.check_url(url)
            return await self._exchange(url, body, headers, started)
        except TimeoutError:
            error = f"no answer within {TOTAL_TIMEOUT_SECONDS:g} s"
        except aiohttp.ClientConnectorError as failure:
            error = FORBIDDEN if FORBIDDEN in str(failure.os_error) else _named(failure, failure.os_error)
        except (aiohttp.ClientError, OSError, ValueError) as failure:
            error = _named(failure, failure)
        except Refusal as refusal:  # the settings forbid now what they allowed when the endpoint was made
            error = refusal.detail
        return Attempt(None, error[:500], time.perf_counter() - started)

    async def _exchange(self, url: str, body: bytes, headers: Mapping[str, str], started: float) -> Attempt:
        named = self._destinations.allows_host(urlsplit(url).hostname or "")
        session = self._named if named else self._public
        async with session.post(url, data=body, headers=headers, allow_redirects=False) as response:
            excerpt = await _excerpt(response)
            return Attempt(response.status, None, time.perf_counter() - started, excerpt)

    def _session(self, *, host_allowed: bool) -> aiohttp.ClientSession:
        connector = aiohttp.TCPConnector(
            limit=CONNECTIONS,
            ttl_dns_cache=DNS_CACHE_SECONDS,
            keepalive_timeout=KEEPALIVE_SECONDS,
            # Called with the concrete address of every socket, for names and literals alike.
            socket_factory=self._guard(host_allowed=host_allowed),
        )
        return aiohttp.ClientSession(
            connector=connector,
            timeout=aiohttp.ClientTimeout(total=TOTAL_TIMEOUT_SECONDS, connect=CONNECT_TIMEOUT_SECONDS),
            cookie_jar=aiohttp.DummyCookieJar(),
            # A compressed answer of a few bytes may unpack to gigabytes.
            auto_decompress=False,
            # Neither a proxy nor credentials from the environment.
            trust_env=False,
            skip_auto_headers={hdrs.ACCEPT_ENCODING},
        )

    def _guard(self, *, host_allowed: bool) -> Callable[[AddrInfoType], socket.socket]:
        def open_socket(info: AddrInfoType) -> socket.socket:
            family, kind, protocol, _, address = info
            # A scoped address comes as `fe80::1%eth0`.
            target = ipaddress.ip_address(str(address[0]).partition("%")[0])
            if not self._destinations.permits(target, host_allowed=host_allowed):
                raise ForbiddenAddressError(FORBIDDEN)
            return socket.socket(family, kind, protocol)

        return open_socket


async def _excerpt(response: aiohttp.ClientResponse) -> str:
    """Return the beginning of the answer's body; an answer that is too long or too slow costs its connection."""
    received = bytearray()
    try:
        async with asyncio.timeout(EXCERPT_TIMEOUT_SECONDS):
            while len(received) <= READ_BYTES and (chunk := await response.content.read(READ_BYTES)):
                received += chunk
    except (TimeoutError, aiohttp.ClientError):
        response.close()
    if len(received) > READ_BYTES:
        response.close()
    # PostgreSQL's text holds no NUL.
    return bytes(received[:EXCERPT_BYTES]).decode("utf-8", "replace").replace("\x00", "\ufffd")


def _named(failure: BaseException, cause: BaseException) -> str:
    text = str(cause).replace("\x00", "\ufffd")
    return f"{type(failure).__name__}: {text}" if text else type(failure).__name__
