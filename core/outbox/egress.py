"""One outgoing webhook request: to a permitted address only, without redirects, bounded in time and bytes."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import time
from collections import OrderedDict
from typing import TYPE_CHECKING, Final, NamedTuple
from urllib.parse import urlsplit

import aiohttp
import structlog
from aiohttp import hdrs

from core.errors import Refusal
from core.outbox.wire.posting import NotHttpError, Posting, Target
from core.outbox.wire.receiving import Connector
from core.outbox.wire.resolving import Resolver
from core.times import seconds_of_retry_after

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from aiohappyeyeballs import AddrInfoType
    from aiohttp.abc import AbstractResolver

    from core.outbox.destinations import Destinations
    from core.outbox.wire.posting import Answer

log = structlog.get_logger(__name__)

# The existing contract's limit for a whole delivery; receivers are told to answer first and work afterwards.
TOTAL_TIMEOUT_SECONDS: Final = 5.0
CONNECT_TIMEOUT_SECONDS: Final = 3.0
# The verdict stands once the status line is in; this time is for the excerpt that people read later.
EXCERPT_TIMEOUT_SECONDS: Final = 1.0
EXCERPT_BYTES: Final = 1024
# Answers up to this size are read to their end, so that the connection can be used again; longer ones are cut off.
READ_BYTES: Final = 16 * 1024
# Sockets kept open to all receivers, more than a sender has requests under way: none waits for another's socket. One
# receiver has at most as many as requests run to it at once.
CONNECTIONS: Final = 256
DNS_CACHE_SECONDS: Final = 10
KEEPALIVE_SECONDS: Final = 30
# URLs that a process remembers having checked and read, which costs more than all of a request that is left.
KNOWN_URLS: Final = 4_096
_CONNECT_TIMEOUT: Final = aiohttp.ClientTimeout(total=None, connect=CONNECT_TIMEOUT_SECONDS)

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


class _Known(NamedTuple):
    """A URL that has passed the check, and whether the operator named its host."""

    named: bool
    target: Target


class ForbiddenAddressError(OSError):
    """The socket would have gone to an address that is not permitted."""


class Egress:
    """The HTTP client of all deliveries of a process."""

    def __init__(self, destinations: Destinations, resolver: AbstractResolver | None = None) -> None:
        self._destinations = destinations
        self._resolver = resolver or Resolver()
        # The factory of a socket sees an address and not the host that it is for, hence a pool for each rule; and one
        # beside it whose connections are all fresh.
        self._pools = {
            (named, fresh): self._pool(host_allowed=named, fresh=fresh)
            for named in (False, True)
            for fresh in (False, True)
        }
        # The settings judge a URL by its text, so a verdict that it may be used stands as long as this process.
        self._known: OrderedDict[tuple[str, bool], _Known] = OrderedDict()

    async def close(self) -> None:
        """Close all connections."""
        for pool in self._pools.values():
            await pool.close()
        await self._resolver.close()

    async def post(
        self,
        url: str,
        *,
        body: bytes,
        headers: Mapping[str, str],
        trusted: bool = False,
        timeout_seconds: float | None = None,
    ) -> Reply:
        """Send `body` to `url` and return the reply, within TOTAL_TIMEOUT_SECONDS unless another time is given.

        Nothing that the receiver does raises an error. A `trusted` URL was set by the operator, and may lead anywhere
        but to metadata. No error tells the URL, because its path or query may be a secret of the receiver's.
        """
        started = time.perf_counter()
        limit = TOTAL_TIMEOUT_SECONDS if timeout_seconds is None else timeout_seconds
        try:
            if self._destinations.is_echo(url):
                self._destinations.check_url(url)
                return Reply(200, None, time.perf_counter() - started)
            known = self._look_up(url, trusted=trusted)
            return await self._exchange_or_again(known, body, headers, started, limit)
        except Refusal as refusal:
            # The settings allowed this URL when the endpoint was made, and forbid it now.
            error = refusal.detail
        except Exception as failure:  # noqa: BLE001 - it becomes the error of the reply
            # An answer that breaks our code is a failed attempt: else the delivery would be sent again without an end.
            error = _error(failure, limit)
        return Reply(None, error[:500], time.perf_counter() - started)

    def _look_up(self, url: str, *, trusted: bool) -> _Known:
        known = self._known.get((url, trusted))
        if known is None:
            if not trusted:
                self._destinations.check_url(url)
            named = trusted or self._destinations.allows_host(urlsplit(url).hostname or "")
            known = _Known(named, Target.of(url))
            self._known[url, trusted] = known
            if len(self._known) > KNOWN_URLS:
                self._known.popitem(last=False)
        return known

    async def _exchange_or_again(
        self,
        known: _Known,
        body: bytes,
        headers: Mapping[str, str],
        started: float,
        timeout_seconds: float,
    ) -> Reply:
        """Exchange once; and once more when a connection that was kept open has ended before any byte of an answer.

        The receiver has most likely closed it while it was idle, and so has not seen the request.
        """
        posting = Posting(known.target, headers, body)
        try:
            return await self._exchange(posting, self._pools[known.named, False], started, timeout_seconds)
        except (aiohttp.ClientConnectorError, TimeoutError):
            raise
        except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError, ConnectionError):
            if not posting.reused:
                raise
        return await self._exchange(posting, self._pools[known.named, True], started, timeout_seconds)

    async def _exchange(
        self, posting: Posting, pool: Connector, started: float, timeout_seconds: float
    ) -> Reply:
        left = timeout_seconds - (time.perf_counter() - started)
        async with asyncio.timeout(max(left, 0.001)):
            answer = await posting.send(pool, _CONNECT_TIMEOUT)
        try:
            excerpt = await _excerpt(answer)
            return Reply(answer.status, None, time.perf_counter() - started, excerpt, _retry_after(answer))
        finally:
            answer.close()

    def _pool(self, *, host_allowed: bool, fresh: bool) -> Connector:
        return Connector(
            limit=CONNECTIONS,
            resolver=self._resolver,
            ttl_dns_cache=DNS_CACHE_SECONDS,
            # The factory is called with the concrete address of every socket, for names and literals alike.
            socket_factory=self._guard(host_allowed=host_allowed),
            **({"force_close": True} if fresh else {"keepalive_timeout": KEEPALIVE_SECONDS}),
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


async def _excerpt(answer: Answer) -> str:
    """Return the beginning of the answer's body. A body that is long, slow or no HTTP costs its connection alone."""
    received = bytearray()
    content = answer.content
    try:
        if content.is_eof():  # the body has come with its head, as most do
            received += content.read_nowait(READ_BYTES + 1)
        else:
            async with asyncio.timeout(EXCERPT_TIMEOUT_SECONDS):
                while len(received) <= READ_BYTES and (chunk := await content.read(READ_BYTES)):
                    received += chunk
    except Exception:  # noqa: BLE001 - the head has decided, and nothing behind it may take that back
        answer.spoil()
    if len(received) > READ_BYTES:
        answer.spoil()
    # PostgreSQL's text holds no NUL.
    return bytes(received[:EXCERPT_BYTES]).decode("utf-8", "replace").replace("\x00", "\ufffd")


def _retry_after(response: Answer) -> float | None:
    """Return the seconds of `Retry-After`; None where it means nothing."""
    if response.status not in PASSING:
        return None
    return seconds_of_retry_after(response.headers.get(hdrs.RETRY_AFTER, ""))


def _error(failure: Exception, timeout_seconds: float = TOTAL_TIMEOUT_SECONDS) -> str:
    """Return what a failure is called. Some of aiohttp's texts have the URL, and so are left out."""
    if isinstance(failure, TimeoutError):
        return f"no answer within {timeout_seconds:g} s"
    if isinstance(failure, aiohttp.ClientConnectorCertificateError):
        return _named(failure, failure.certificate_error)
    if isinstance(failure, aiohttp.ClientConnectorError):
        return FORBIDDEN if FORBIDDEN in str(failure.os_error) else _named(failure, failure.os_error)
    if isinstance(failure, NotHttpError):
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
