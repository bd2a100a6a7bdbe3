"""Calls to providers: bounded in time and bytes, sent once, and told apart by what may have happened at the other end.

The addresses are the operator's own, from the settings, and so exempt from the rule for addresses that callers name.
"""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final, NamedTuple, NoReturn, TypeVar

import aiohttp
from aiohttp import hdrs

from core.providers.protocol import DeclinedError, UnknownError, UnsentError
from core.providers.reading import decoded
from core.times import seconds_of_retry_after
from core.tracing.outgoing import Outgoing

if TYPE_CHECKING:
    import ssl
    from collections.abc import Mapping

    from core.errors import Refusal

_Kind = TypeVar("_Kind")

# A call that takes longer keeps a payer waiting at the till; an answer that is late is asked for again.
TOTAL_SECONDS: Final = 10.0
# A host that is up answers a connection within a round trip; three seconds also cover one lost packet.
CONNECT_SECONDS: Final = 3.0
# The largest answer we ask for is a page of ten checkout sessions with their charges, of about 10 KB each.
MOST_BYTES: Final = 512 * 1024
CONNECTIONS: Final = 64
# Providers close idle connections after a minute or more. A shorter life here avoids sending into a closed one.
KEEPALIVE_SECONDS: Final = 15.0

_TOO_MANY: Final = 429
_REFUSES_US: Final = frozenset({401, 403})
UNREADABLE: Final = "provider_unreadable"
"""The code of an answer that cannot be understood."""
CANNOT_TELL: Final = "provider_cannot_tell"
"""The code of a question that the provider has no answer to, or has refused."""


class Reply(NamedTuple):
    """An answer that is neither 5xx nor 429. `provider` names its author in errors."""

    provider: str
    status: int
    body: bytes
    headers: Mapping[str, str]

    @property
    def good(self) -> bool:
        """Whether the status is 2xx."""
        return 200 <= self.status < 300

    def read(self, kind: type[_Kind]) -> _Kind:
        """Return the JSON of the body. Raises UnknownError for anything else, such as a proxy's page of HTML."""
        try:
            return decoded(self.body, kind)
        except ValueError:
            problem = unreadable(self.provider)
        raise problem

    def refuse(self, refusal: type[_Kind]) -> _Kind:
        """Return the JSON of a refusal, whose status is 4xx in the provider's documents.

        Raises UnsentError for 401 and 403, by which the provider, or a guard in front of it, refuses us and not the
        payment; and UnknownError for a body that is no refusal, and for other statuses, such as a redirect.
        """
        if self.status in _REFUSES_US:
            raise UnsentError(f"{self.provider} refuses our credentials.", code="provider_credentials")
        if not 400 <= self.status < 500:
            raise UnknownError(f"{self.provider} has answered with status {self.status}.")
        return self.read(refusal)


def unreadable(provider: str) -> UnknownError:
    """Return the error for an answer that cannot be understood."""
    return UnknownError(f"{provider}'s answer cannot be read.", code=UNREADABLE)


def unsupported(provider: str, what: str) -> DeclinedError:
    """Return the error for an order that a provider cannot take; it was not sent."""
    return DeclinedError(f"{provider} {what}.", code="provider_unsupported")


class _LostError(Exception):
    """The connection ended under a request. It is no error of aiohttp's, which would send a GET again by itself."""


async def _send_once(
    request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
) -> aiohttp.ClientResponse:
    try:
        return await handler(request)
    except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError):
        raise
    except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError) as error:
        lost = type(error).__name__
    raise _LostError(lost)


class Caller:
    """The HTTP client of one provider in one process. The session is made at the first call.

    `fresh` opens a connection for each call: a provider whose calls may not be repeated must not get one over a
    connection that it has just closed.
    """

    def __init__(
        self,
        provider: str,
        base_url: str,
        *,
        total_seconds: float = TOTAL_SECONDS,
        connect_seconds: float = CONNECT_SECONDS,
        fresh: bool = False,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.provider = provider
        self.base_url = base_url
        self._total_seconds = total_seconds
        self._bounds = aiohttp.ClientTimeout(total=None, connect=connect_seconds)
        self._fresh = fresh
        self._tls = tls
        self._session: aiohttp.ClientSession | None = None

    async def call(
        self,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str] | None = None,
        query: Mapping[str, str] | None = None,
        body: bytes | None = None,
    ) -> Reply:
        """Send one request and return its answer.

        Raises UnsentError if no connection was made or the answer is 429; UnknownError for no answer, one that is cut
        off or too long, and 5xx. No error tells the address, the query or a header, nor has one in its chain.
        """
        progress = SimpleNamespace(connected=False)
        problem: Refusal
        try:
            with Outgoing(self.provider, method, self.base_url) as told:
                async with asyncio.timeout(self._total_seconds):
                    reply = await self._exchange(progress, method, path, headers, query, body)
                told.status = reply.status
            return self._judged(reply)
        except (UnknownError, UnsentError):
            raise
        except (TimeoutError, aiohttp.ClientError, OSError, ValueError, _LostError) as error:
            problem = self._problem(error, connected=progress.connected)
        # The error is raised out here so that it has no context: that of aiohttp may tell the address.
        raise problem

    async def close(self) -> None:
        """Close all connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def _exchange(
        self,
        progress: SimpleNamespace,
        method: str,
        path: str,
        headers: Mapping[str, str] | None,
        query: Mapping[str, str] | None,
        body: bytes | None,
    ) -> Reply:
        async with self._opened().request(
            method,
            self.base_url + path,
            headers=headers,
            params=query,
            data=body,
            allow_redirects=False,
            trace_request_ctx=progress,
        ) as response:
            received = bytearray()
            while chunk := await response.content.read(MOST_BYTES):
                received += chunk
                if len(received) > MOST_BYTES:
                    response.close()
                    raise UnknownError(f"{self.provider}'s answer is longer than {MOST_BYTES} bytes.")
            return Reply(self.provider, response.status, bytes(received), response.headers)

    def _judged(self, reply: Reply) -> Reply:
        if reply.status == _TOO_MANY:
            # The limit stands in front of the work, so nothing was done (RFC 6585, section 4).
            raise UnsentError(
                f"{self.provider} has had too many calls.",
                code="provider_busy",
                retry_after=seconds_of_retry_after(reply.headers.get(hdrs.RETRY_AFTER, "")),
            )
        if reply.status >= 500:
            raise UnknownError(f"{self.provider} has answered with status {reply.status}.")
        return reply

    def _problem(self, error: Exception, *, connected: bool) -> Refusal:
        name = str(error) if isinstance(error, _LostError) else type(error).__name__
        if isinstance(error, aiohttp.ClientConnectorError | aiohttp.ConnectionTimeoutError) or not connected:
            return UnsentError(f"{self.provider} could not be reached: {name}.")
        return UnknownError(f"{self.provider} gave no whole answer: {name}.")

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            pooling: dict[str, Any] = (
                {"force_close": True} if self._fresh else {"keepalive_timeout": KEEPALIVE_SECONDS}
            )
            connector = aiohttp.TCPConnector(
                limit=CONNECTIONS, ssl=True if self._tls is None else self._tls, **pooling
            )
            self._session = aiohttp.ClientSession(
                connector=connector,
                timeout=self._bounds,
                middlewares=(_send_once,),
                trace_configs=[_connected()],
                # The environment's proxy and credentials are not ours to use.
                trust_env=False,
                # A compressed answer of a few bytes may unpack to gigabytes.
                auto_decompress=False,
                skip_auto_headers={hdrs.ACCEPT_ENCODING},
                cookie_jar=aiohttp.DummyCookieJar(),
            )
        return self._session


def _connected() -> aiohttp.TraceConfig:
    """Return the hooks that note on a call's context that it has a connection, so that it may have been sent."""

    async def note(_session: aiohttp.ClientSession, context: SimpleNamespace, _params: object) -> None:
        context.trace_request_ctx.connected = True

    hooks = aiohttp.TraceConfig()
    hooks.on_connection_create_end.append(note)
    hooks.on_connection_reuseconn.append(note)
    return hooks


def never(provider: str, what: str) -> NoReturn:
    """Raise UnknownError for a question that a provider has no answer to."""
    raise UnknownError(f"{provider} {what}.", code=CANNOT_TELL)
