"""Calls to PayPal's hosts, bounded in time and bytes, without redirects, over TLS that trusts the given roots only."""

from __future__ import annotations

import asyncio
import re
import ssl
import warnings
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

import aiohttp
import certifi
from aiohttp import hdrs
from cryptography import x509
from cryptography.utils import CryptographyDeprecationWarning
from cryptography.x509.verification import Store

from core.settings.files import MAX_CERTIFICATES_BYTES, bytes_in
from core.tracing.outgoing import Outgoing

if TYPE_CHECKING:
    from collections.abc import Mapping

TIMEOUT_SECONDS: Final = 10.0
# A certificate with its chain has about 6 KB, an answer of the API less than one.
MAX_BYTES: Final = 64 * 1024
CONNECTIONS: Final = 16

_BLOCK = re.compile(rb"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)


class UnreachableError(Exception):
    """PayPal gave no whole answer."""


class Client:
    """The HTTP client of one process. It trusts the roots of `roots_file`, or without one Mozilla's (certifi).

    Raises OSError when the file cannot be read. Session and store are made at first use, as most processes need none.
    """

    def __init__(self, roots_file: str = "") -> None:
        self._roots = bytes_in(roots_file or certifi.where(), MAX_CERTIFICATES_BYTES)
        self._session: aiohttp.ClientSession | None = None
        self._store: Store | None = None

    @property
    def store(self) -> Store:
        """The trusted roots, to which `read_chain` builds a chain."""
        if self._store is None:
            self._store = Store(_certificates(self._roots))
        return self._store

    async def call(
        self, method: str, url: str, *, headers: Mapping[str, str] | None = None, body: bytes | None = None
    ) -> tuple[int, bytes]:
        """Return the status and the body. Raises UnreachableError."""
        try:
            with Outgoing("paypal", method, url) as told:
                async with (
                    asyncio.timeout(TIMEOUT_SECONDS),
                    self._opened().request(
                        method, url, data=body, headers=headers, allow_redirects=False
                    ) as response,
                ):
                    told.status = response.status
                    return response.status, await _body_of(response)
        except (TimeoutError, aiohttp.ClientError, OSError, ValueError) as error:
            raise UnreachableError(f"{type(error).__name__}: {error}") from None

    async def close(self) -> None:
        """Close all connections."""
        if self._session is not None:
            await self._session.close()

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            context = ssl.create_default_context(cadata=self._roots.decode("ascii", "ignore"))
            options: dict[str, Any] = {
                # The environment's proxy and credentials are not ours to use.
                "trust_env": False,
                # A compressed answer of a few bytes may unpack to gigabytes.
                "auto_decompress": False,
                "skip_auto_headers": {hdrs.ACCEPT_ENCODING},
                "cookie_jar": aiohttp.DummyCookieJar(),
            }
            connector = aiohttp.TCPConnector(limit=CONNECTIONS, ssl=context)
            self._session = aiohttp.ClientSession(connector=connector, **options)
        return self._session


async def _body_of(response: aiohttp.ClientResponse) -> bytes:
    received = bytearray()
    while chunk := await response.content.read(MAX_BYTES):
        received += chunk
        if len(received) > MAX_BYTES:
            response.close()
            raise UnreachableError(f"the answer is longer than {MAX_BYTES} bytes")
    return bytes(received)


def _certificates(roots: bytes) -> list[x509.Certificate]:
    """Return the certificates of a bundle; one that breaks today's rules, as some old roots do, is left out."""
    found = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CryptographyDeprecationWarning)
        for block in _BLOCK.findall(roots):
            with suppress(ValueError):
                found.append(x509.load_pem_x509_certificate(block))
    return found
