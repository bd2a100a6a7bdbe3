"""One outgoing webhook request: to a permitted address only, without redirects, bounded in time and bytes."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Final, NamedTuple
from urllib.parse import urlsplit

import aiohttp
import structlog
from aiohttp import hdrs

from core.errors import Refusal
from core.outbox.receiving import Connector
from core.outbox.resolving import Resolver

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import SimpleNamespace

    from aiohappyeyeballs import AddrInfoType
    from aiohttp.abc import AbstractResolver

    from core.outbox.destinations import Destinations

log = structlog.get_logger(__name__)

# The existing contract's limit for a whole delivery; receivers are told to answer first and work afterwards.
TOTAL_TIMEOUT_SECONDS: Final = 5.0
CONNECT_TIMEOUT_SECONDS: Final = 3.0
# The verdict stands once the status line is in; this time is for the excerpt that people read later.
EXCERPT_TIMEOUT_SECONDS: Final = 1.0
EXCERPT_BYTES: Final = 1024
# Answers up to this size are read to their end, so that the connection can be used again; longer ones are cut off.
READ_BYTES: Final = 16 * 1024
# Sockets kept open to all receivers; one receiver has at most as many as requests run to it at once.
CONNECTIONS: Final = 200
DNS_CACHE_SECONDS: Final = 10
KEEPALIVE_SECONDS: Final = 30

# The status of a receiver that wants nothing any more, and that of one that is overloaded.
GONE_STATUS: Final = 410
TOO_MANY_STATUS: Final = 429
# The failures that may pass by themselves. Elsewhere `Retry-After` means nothing that concerns a delivery.
PASSING: Final = frozenset({408, 413, 425, TOO_MANY_STATUS, 500, 502, 503, 504})

FORBIDDEN: Final = "the address is not a permitted one"
NOT_HTTP: Final = "the answer was not valid HTTP"
UNUSABLE_URL: Final = "the URL cannot be used"
UNREAD: Final = "the answer could not be read"


class Reply(NamedTuple):
    """The reply to one request: the status if there was an answer, else the error. `seconds` is the time it took.

    `excerpt` is the beginning of the answer's body, `retry_after` the seconds that the answer asks us to wait.
    """

    status: int | None
    error: str | None
    seconds: float
    excerpt: str = ""
    retry_after: float | None = None

    @property
    def succeeded(self) -> bool:
        """Whether the status is 2xx. A redirect is a failure: it would hand the body to the author of the header."""
        return self.status is not None and 200 <= self.status < 300

    @property
    def well(self) -> bool:
        """Whether the receiver is up: it has answered, perhaps with a no, but with neither 5xx nor 429."""
        return self.status is not None and self.status < 500 and self.status != TOO_MANY_STATUS

    @property
    def gone(self) -> bool:
        """Whether the receiver has said that it wants nothing any more."""
        return self.status == GONE_STATUS


@dataclass(slots=True)
class _Connection:
    """The connection of one request, as far as aiohttp has told of it."""

    reused: bool = False


class ForbiddenAddressError(OSError):
    """The socket would have gone to an address that is not permitted."""


class Egress:
    """The HTTP client of all deliveries of a process."""

    def __init__(self, destinations: Destinations, resolver: AbstractResolver | None = None) -> None:
        self._destinations = destinations
        self._resolver = resolver or Resolver()
        # The factory of a socket sees an address and not the host that it is for, hence a session for each rule; and
        # one beside it whose connections are all fresh.
        self._sessions = {
            (named, fresh): self._session(host_allowed=named, fresh=fresh)
            for named in (False, True)
            for fresh in (False, True)
        }

    async def close(self) -> None:
        """Close all connections."""
        for session in self._sessions.values():
            await session.close()
        await self._resolver.close()

    async def post(self, url: str, *, body: bytes, headers: Mapping[str, str]) -> Reply:
        """Send `body` to `url` and return the reply. Nothing that the receiver does raises an error.

        No error tells the URL, because its path or query may be a secret of the receiver's.
        """
        started = time.perf_counter()
        try:
            self._destinations.check_url(url)
            if self._destinations.is_echo(url):
                return Reply(200, None, time.perf_counter() - started)
            return await self._exchange_or_again(url, body, headers, started)
        except Refusal as refusal:
            # The settings allowed this URL when the endpoint was made, and forbid it now.
            error = refusal.detail
        except Exception as failure:  # noqa: BLE001 - it becomes the error of the reply
            # An answer that breaks our code is a failed attempt: else the delivery would be sent again without an end.
            error = _error(failure)
        return Reply(None, error[:500], time.perf_counter() - started)

    async def _exchange_or_again(
        self, url: str, body: bytes, headers: Mapping[str, str], started: float
    ) -> Reply:
        """Exchange once; and once more when a connection that was kept open has ended before any byte of an answer.

        The receiver has most likely closed it while it was idle, and so has not seen the request.
        """
        connection = _Connection()
        try:
            return await self._exchange(url, body, headers, started, connection)
        except (aiohttp.ClientConnectorError, aiohttp.ServerTimeoutError):
            raise
        except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError, ConnectionError):
            if not connection.reused:
                raise
        return await self._exchange(url, body, headers, started, _Connection(), fresh=True)

    async def _exchange(
        self,
        url: str,
        body: bytes,
        headers: Mapping[str, str],
        started: float,
        connection: _Connection,
        *,
        fresh: bool = False,
    ) -> Reply:
        named = self._destinations.allows_host(urlsplit(url).hostname or "")
        left = TOTAL_TIMEOUT_SECONDS - (time.perf_counter() - started)
        response = await self._sessions[named, fresh].post(
            url,
            data=body,
            headers=headers,
            allow_redirects=False,
            timeout=aiohttp.ClientTimeout(total=max(left, 0.001), connect=CONNECT_TIMEOUT_SECONDS),
            trace_request_ctx=connection,
        )
        try:
            excerpt = await _excerpt(response)
            seconds = time.perf_counter() - started
            return Reply(response.status, None, seconds, excerpt, _retry_after(response))
        finally:
            # Leaving a context would wait until the request is written, which a receiver can put off.
            response.release()

    def _session(self, *, host_allowed: bool, fresh: bool) -> aiohttp.ClientSession:
        connector = Connector(
            limit=CONNECTIONS,
            resolver=self._resolver,
            ttl_dns_cache=DNS_CACHE_SECONDS,
            # The factory is called with the concrete address of every socket, for names and literals alike.
            socket_factory=self._guard(host_allowed=host_allowed),
            **({"force_close": True} if fresh else {"keepalive_timeout": KEEPALIVE_SECONDS}),
        )
        return aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            # A compressed answer of a few bytes may unpack to gigabytes.
            auto_decompress=False,
            # The environment gives neither a proxy nor credentials.
            trust_env=False,
            skip_auto_headers={hdrs.ACCEPT_ENCODING},
            trace_configs=[_noting_reuse()],
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


def _noting_reuse() -> aiohttp.TraceConfig:
    """Return what notes in a request's `_Connection` that it goes over a connection that was kept open."""
    trace = aiohttp.TraceConfig()

    async def reused(_session: aiohttp.ClientSession, context: SimpleNamespace, _params: object) -> None:
        context.trace_request_ctx.reused = True

    trace.on_connection_reuseconn.append(reused)
    return trace


async def _excerpt(response: aiohttp.ClientResponse) -> str:
    """Return the beginning of the answer's body. A body that is long, slow or no HTTP costs its connection alone."""
    received = bytearray()
    try:
        async with asyncio.timeout(EXCERPT_TIMEOUT_SECONDS):
            while len(received) <= READ_BYTES and (chunk := await response.content.read(READ_BYTES)):
                received += chunk
    except Exception:  # noqa: BLE001 - the head has decided, and nothing behind it may take that back
        response.close()
    if len(received) > READ_BYTES:
        response.close()
    # PostgreSQL's text holds no NUL.
    return bytes(received[:EXCERPT_BYTES]).decode("utf-8", "replace").replace("\x00", "\ufffd")


def _retry_after(response: aiohttp.ClientResponse) -> float | None:
    """Return the seconds of `Retry-After`, given as such or as a date (RFC 9110, section 10.2.3).

    None where it means nothing, and for a text that is neither.
    """
    if response.status not in PASSING:
        return None
    text = response.headers.get(hdrs.RETRY_AFTER, "").strip()
    if text.isascii() and text.isdigit():
        return float(text[:9])
    # The standard library's reader has an error of its own for each way of writing a date wrongly.
    with contextlib.suppress(Exception):
        moment = parsedate_to_datetime(text)
        if moment.tzinfo is None:  # `-0000`, which says that the zone is not known
            moment = moment.replace(tzinfo=UTC)
        return max(0.0, (moment - datetime.now(UTC)).total_seconds())
    return None


def _error(failure: Exception) -> str:
    """Return what a failure is called. Some of aiohttp's texts have the URL, and so are left out."""
    if isinstance(failure, TimeoutError):
        return f"no answer within {TOTAL_TIMEOUT_SECONDS:g} s"
    if isinstance(failure, aiohttp.ClientConnectorCertificateError):
        return _named(failure, failure.certificate_error)
    if isinstance(failure, aiohttp.ClientConnectorError):
        return FORBIDDEN if FORBIDDEN in str(failure.os_error) else _named(failure, failure.os_error)
    if isinstance(failure, aiohttp.ClientResponseError):
        return NOT_HTTP
    if isinstance(failure, aiohttp.ServerDisconnectedError | OSError):
        return _named(failure, failure)
    if isinstance(failure, ValueError):
        return UNUSABLE_URL
    if not isinstance(failure, aiohttp.ClientError):
        log.error("delivery.answer_unread", exc_info=failure)
    return type(failure).__name__


def _named(failure: BaseException, cause: BaseException) -> str:
    text = str(cause).replace("\x00", "\ufffd")
    return f"{type(failure).__name__}: {text}" if text else type(failure).__name__
