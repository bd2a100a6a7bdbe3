"""The certificates that PayPal signs its webhooks with, fetched from PayPal's hosts and believed by their chain.

The address of the certificate comes with the request, and so from anybody. It is called only when its host, port and
path are PayPal's. The certificate counts only when a root that we trust vouches for it and for its name.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections import OrderedDict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.x509.oid import NameOID
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError

from core.errors import Refusal
from core.inbox.paypal.client import UnreachableError
from core.inbox.verifying import NotGenuine

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from core.inbox.paypal.client import Client

Value = TypeVar("Value")

MAX_URL_LENGTH: Final = 512

# PayPal has one certificate at a time, and a second one around a renewal.
CACHED: Final = 32
CACHED_BAD: Final = 1_000
# An address that gave no good certificate is not asked again for BAD_SECONDS; UNREACHABLE_SECONDS after no answer.
BAD_SECONDS: Final = 60.0
UNREACHABLE_SECONDS: Final = 5.0
# The addresses that are called at once are bounded, because forged requests can name new ones without end.
MAX_FETCHES: Final = 8
# The longest chains in use have four.
MAX_CERTIFICATES: Final = 8

_URL = re.compile(
    r"https://([a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?(?::[0-9]{1,5})?)/v1/notifications/certs/[A-Za-z0-9][A-Za-z0-9_.-]{0,199}"
)
_NAME = re.compile(r"messageverificationcerts(?P<sandbox>\.sandbox)?\.paypal\.com")


class Certificate(NamedTuple):
    """The key of a good certificate, and the time (Unix seconds) until which the whole chain is good."""

    key: RSAPublicKey
    good_until: float


class Certificates:
    """The certificates that one process knows, by address. Requests that need the same address share one call."""

    def __init__(
        self,
        client: Client,
        *,
        hosts: Collection[str],
        sandbox: bool,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Take the hosts that may be called; each has its port where that is not 443."""
        self._client = client
        self._hosts = frozenset(hosts)
        self._sandbox = sandbox
        self._clock = clock
        self._good: OrderedDict[str, Certificate] = OrderedDict()
        self._bad: OrderedDict[str, tuple[str, float]] = OrderedDict()
        self._asking: dict[str, asyncio.Task[Certificate]] = {}

    def check_url(self, url: str) -> None:
        """Raise NotGenuine for an address that is not one of PayPal's certificates."""
        match = _URL.fullmatch(url) if len(url) <= MAX_URL_LENGTH else None
        if match is None or match[1].removesuffix(":443") not in self._hosts:
            raise NotGenuine("certificate_url")

    async def key_at(self, url: str, now: float) -> RSAPublicKey:
        """Return the key of the certificate at `url`, which `check_url` has allowed.

        Raises NotGenuine for a bad certificate or none, and Refusal `overloaded` when too many are being fetched.
        """
        known = self._good.get(url)
        if known is not None and known.good_until > now:
            self._good.move_to_end(url)
            return known.key
        bad = self._bad.get(url)
        if bad is not None and bad[1] > self._clock():
            raise NotGenuine(bad[0])
        task = self._asking.get(url)
        if task is None:
            if len(self._asking) >= MAX_FETCHES:
                raise Refusal("overloaded", "Too many certificates are being fetched.", retry_after=1.0)
            task = self._asking[url] = asyncio.create_task(self._fetch(url, now))
            task.add_done_callback(_retrieve)
        # The call is shielded: a sender that hangs up must not take the answer from others who wait for it.
        return (await asyncio.shield(task)).key

    async def _fetch(self, url: str, now: float) -> Certificate:
        reason, seconds = "certificate_unreachable", UNREACHABLE_SECONDS
        try:
            status, pem = await self._client.call("GET", url)
            reason, seconds = "certificate_missing", BAD_SECONDS
            if status != 200:
                raise NotGenuine(reason)
            certificate = read_chain(pem, self._client.store, now=now, sandbox=self._sandbox)
        except (UnreachableError, NotGenuine) as error:
            reason = error.reason if isinstance(error, NotGenuine) else reason
            _remember(self._bad, url, (reason, self._clock() + seconds), CACHED_BAD)
            raise NotGenuine(reason) from None
        finally:
            del self._asking[url]
        _remember(self._good, url, certificate, CACHED)
        return certificate


def read_chain(pem: bytes, store: Store, *, now: float, sandbox: bool) -> Certificate:
    """Return the key of the first certificate of a bundle whose other certificates lead to a root of `store`.

    Raises NotGenuine for an unreadable bundle, a name that is not that of PayPal's signer in this environment, and a
    chain whose dates, signatures, constraints or use (RFC 5280) do not hold at `now` (Unix seconds).
    """
    try:
        leaf, *intermediates = x509.load_pem_x509_certificates(pem)
        name = _signers_name(leaf, sandbox=sandbox)
        key = leaf.public_key()
    except (ValueError, UnsupportedAlgorithm, x509.DuplicateExtension):
        raise NotGenuine("certificate_malformed") from None
    if name is None:
        raise NotGenuine("certificate_name")
    if not isinstance(key, RSAPublicKey) or len(intermediates) >= MAX_CERTIFICATES:
        raise NotGenuine("certificate_malformed")
    at = datetime.fromtimestamp(now, UTC)
    verifier = PolicyBuilder().store(store).time(at).build_server_verifier(x509.DNSName(name))
    try:
        chain = verifier.verify(leaf, intermediates)
    except VerificationError:
        raise NotGenuine("certificate_untrusted") from None
    return Certificate(key, min(link.not_valid_after_utc.timestamp() for link in chain))


def _signers_name(leaf: x509.Certificate, *, sandbox: bool) -> str | None:
    """Return the leaf's alternative name; None unless that, and its subject's name if any, are PayPal's signer's."""
    try:
        names = leaf.extensions.get_extension_for_class(
            x509.SubjectAlternativeName
        ).value.get_values_for_type(x509.DNSName)
    except x509.ExtensionNotFound:
        return None
    common = [attribute.value for attribute in leaf.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    if not all(isinstance(name, str) and _is_signer(name, sandbox=sandbox) for name in common):
        return None
    return next((name for name in names if _is_signer(name, sandbox=sandbox)), None)


def _is_signer(name: str, *, sandbox: bool) -> bool:
    match = _NAME.fullmatch(name.lower())
    return match is not None and (match["sandbox"] is not None) == sandbox


def _remember(cache: OrderedDict[str, Value], url: str, value: Value, bound: int) -> None:
    cache[url] = value
    cache.move_to_end(url)
    if len(cache) > bound:
        cache.popitem(last=False)


def _retrieve(task: asyncio.Task[Certificate]) -> None:
    # Every waiter may have gone, and then the error must not become a "never retrieved" warning.
    if not task.cancelled():
        task.exception()
