"""PayPal's webhooks: the check of the signature, and the parts of the body that are needed to store the event.

(https://developer.paypal.com/api/rest/webhooks/rest/)

The signature is RSA over `transmission id|transmission time|our webhook id|CRC-32 of the body`. A CRC-32 is no hash:
somebody who has recorded one transmission can write another body with the same CRC. Hence the inbox takes one event of
each transmission (`inbox_events_transmission`), and the time of the transmission is bounded.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import re
import zlib
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.hashes import SHA256
from msgspec import UNSET

from core.inbox.intake import NewEvent
from core.inbox.verifying import (
    NotGenuine,
    identified,
    kept,
    moment_in,
    object_named,
    read_json,
    read_moment,
    strict_json,
    tokens_of,
    unreadable,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from core.inbox.paypal.api import VerificationApi
    from core.inbox.paypal.certificates import Certificates

PROVIDER: Final = "paypal"

_ID: Final = "paypal-transmission-id"
_TIME: Final = "paypal-transmission-time"
_SIGNATURE: Final = "paypal-transmission-sig"
_CERT_URL: Final = "paypal-cert-url"
_ALGORITHM: Final = "paypal-auth-algo"
HEADERS: Final = (_ID, _TIME, _SIGNATURE, _CERT_URL, _ALGORITHM)
DEMO_HEADER: Final = "x-demo-signature"

# This algorithm is the only one of PayPal's that is not broken; the SDKs still know SHA1withRSA.
ALGORITHM: Final = "SHA256withRSA"
# PayPal tries for three days, and no document says that a later try carries a new time.
MAX_AGE_SECONDS: Final = 3 * 86_400 + 300
MAX_AHEAD_SECONDS: Final = 300

_TRANSMISSION_ID = re.compile(r"[A-Za-z0-9-]{1,64}")
_TRANSMISSION_TIME = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{1,6})?(?:Z|[+-][0-9]{2}:[0-9]{2})"
)
# RSA keys of 2048 to 4096 bits make signatures of 256 to 512 bytes.
_BASE64 = re.compile(r"[A-Za-z0-9+/]{100,700}={0,2}")
_DEMO_SIGNATURE = re.compile(r"[0-9a-f]{64}")


class Transmission(NamedTuple):
    """The headers of one try of PayPal's, with the signature also as bytes."""

    transmission_id: str
    transmission_time: str
    cert_url: str
    auth_algo: str
    transmission_sig: str
    signature: bytes

    def signed(self, webhook_id: str, body: bytes) -> bytes:
        """Return the bytes that were signed."""
        crc = zlib.crc32(body) & 0xFFFF_FFFF
        return f"{self.transmission_id}|{self.transmission_time}|{webhook_id}|{crc}".encode()


class OfflineVerifier:
    """The `core.inbox.verifying.Verifier` that checks the signature in this process, by PayPal's certificate."""

    provider = PROVIDER

    def __init__(self, webhook_id: str, certificates: Certificates) -> None:
        self._webhook_id = webhook_id
        self._certificates = certificates

    async def verify(self, body: bytes, headers: Mapping[str, str], now: float) -> NewEvent:
        """Read the bytes first, as the contract has it, and then check the signature, its cheap parts first."""
        return await _read_and_check(body, headers, lambda: self._check(body, headers, now))

    async def _check(self, body: bytes, headers: Mapping[str, str], now: float) -> None:
        transmission = read_transmission(headers, now)
        self._certificates.check_url(transmission.cert_url)
        if not self._webhook_id:
            raise NotGenuine("webhook_id_missing")
        key = await self._certificates.key_at(transmission.cert_url, now)
        try:
            key.verify(
                transmission.signature, transmission.signed(self._webhook_id, body), PKCS1v15(), SHA256()
            )
        except InvalidSignature:
            raise NotGenuine("signature_mismatch") from None


class ApiVerifier:
    """The `core.inbox.verifying.Verifier` that asks PayPal's verification API."""

    provider = PROVIDER

    def __init__(self, webhook_id: str, certificates: Certificates, api: VerificationApi) -> None:
        self._webhook_id = webhook_id
        self._certificates = certificates
        self._api = api

    async def verify(self, body: bytes, headers: Mapping[str, str], now: float) -> NewEvent:
        """Ask PayPal only about an event that could be genuine, since each question is a call.

        The body becomes a part of the question and has to be JSON to the letter, or it could end that part early.
        """
        tree = strict_json(body)
        if tree is UNSET:
            raise unreadable()
        event = read_event(body, headers, tree)
        transmission = read_transmission(headers, now)
        self._certificates.check_url(transmission.cert_url)
        if not self._webhook_id:
            raise NotGenuine("webhook_id_missing")
        await self._api.check(
            {
                "auth_algo": transmission.auth_algo,
                "cert_url": transmission.cert_url,
                "transmission_id": transmission.transmission_id,
                "transmission_sig": transmission.transmission_sig,
                "transmission_time": transmission.transmission_time,
                "webhook_id": self._webhook_id,
            },
            body,
        )
        return event


class DemoVerifier:
    """The `core.inbox.verifying.Verifier` for development: an HMAC of the body under a secret of our own."""

    provider = PROVIDER

    def __init__(self, secret: str) -> None:
        self._secret = secret

    async def verify(self, body: bytes, headers: Mapping[str, str], now: float) -> NewEvent:  # noqa: ARG002 - no time is signed
        """Read the bytes first, as the contract has it, and then check the signature."""
        return await _read_and_check(body, headers, lambda: self._check(body, headers))

    async def _check(self, body: bytes, headers: Mapping[str, str]) -> None:
        header = headers.get(DEMO_HEADER, "")
        if not header:
            raise NotGenuine("header_missing")
        if not self._secret:
            raise NotGenuine("secret_missing")
        signatures = [token for token in tokens_of(header) if _DEMO_SIGNATURE.fullmatch(token)]
        if not signatures:
            raise NotGenuine("header_malformed")
        expected = hmac.digest(self._secret.encode(), body, "sha256")
        if not any(hmac.compare_digest(expected, bytes.fromhex(signature)) for signature in signatures):
            raise NotGenuine("signature_mismatch")


async def _read_and_check(
    body: bytes, headers: Mapping[str, str], check: Callable[[], Awaitable[None]]
) -> NewEvent:
    """Return the event of a genuine body. A body that is nearly JSON is read only when its signature holds.

    The contract answers a forged body that is no JSON as unreadable, and reading leniently costs more than a check.
    """
    tree = strict_json(body)
    if tree is not UNSET:
        event = read_event(body, headers, tree)
        await check()
        return event
    try:
        await check()
    except NotGenuine:
        raise unreadable() from None
    return read_event(body, headers)


def read_transmission(headers: Mapping[str, str], now: float) -> Transmission:
    """Return the transmission of the headers. Raises NotGenuine when it cannot be genuine at `now` (Unix seconds)."""
    found = [headers.get(name, "") for name in HEADERS]
    if not all(found):
        raise NotGenuine("header_missing")
    transmission_id, transmission_time, signature, cert_url, algorithm = found
    if algorithm != ALGORITHM:
        raise NotGenuine("algorithm")
    if _TRANSMISSION_ID.fullmatch(transmission_id) is None or _BASE64.fullmatch(signature) is None:
        raise NotGenuine("header_malformed")
    moment = read_moment(transmission_time) if _TRANSMISSION_TIME.fullmatch(transmission_time) else None
    if moment is None:
        raise NotGenuine("header_malformed")
    if not -MAX_AHEAD_SECONDS <= now - moment.timestamp() <= MAX_AGE_SECONDS:
        raise NotGenuine("timestamp_outside_tolerance")
    try:
        raw = base64.b64decode(signature, validate=True)
    except binascii.Error:
        raise NotGenuine("header_malformed") from None
    return Transmission(transmission_id, transmission_time, cert_url, algorithm, signature, raw)


def read_event(body: bytes, headers: Mapping[str, str], event: Any = UNSET) -> NewEvent:
    """Return an event as the inbox stores it; `event` is the value of its body, if the caller has read that.

    Raises Refusal `malformed_json` with the contract's sentence for a body that names no event, and `invalid_request`
    when the id or the type is empty.
    """
    event = read_json(body) if event is UNSET else event
    if not isinstance(event, dict):
        raise unreadable()
    event_id, event_type = identified(event.get("id"), event.get("event_type"))
    return NewEvent(
        provider=PROVIDER,
        event_id=event_id,
        event_type=event_type,
        object_id=_object_id(event.get("resource")),
        occurred_at=moment_in(event.get("create_time")),
        headers=kept(headers, (*HEADERS, DEMO_HEADER)),
        body=body,
    )


def _object_id(resource: object) -> str | None:
    """Return the id of the order that the event belongs to, or else that of the resource itself."""
    found: Any = resource
    for name in ("supplementary_data", "related_ids", "order_id"):
        found = found.get(name) if isinstance(found, dict) else None
    return object_named(found or (resource.get("id") if isinstance(resource, dict) else None))
