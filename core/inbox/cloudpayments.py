"""CloudPayments' notifications (and those of its sister brands, such as TipTop Pay): one URL for each kind.

(https://developers.cloudpayments.ru/en/#notifications)

`Content-HMAC` and `X-Content-HMAC` each hold base64(HMAC-SHA256) under the API secret: one of the body as it came, the
other of the body with its URL encoding undone. Descriptions differ in which is which, so either may match either. The
signature covers no time and no event id. The event's key is therefore the kind and the transaction.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias, get_args
from urllib.parse import unquote_to_bytes

import msgspec

from core.inbox.intake import NewEvent
from core.inbox.verifying import (
    NotGenuine,
    begins_as_object,
    form_pieces,
    identified,
    kept,
    object_named,
    read_moment,
    read_object,
    tokens_of,
    unreadable,
)
from core.rotation import uses

if TYPE_CHECKING:
    from collections.abc import Sequence

PROVIDER: Final = "cloudpayments"
Kind: TypeAlias = Literal["check", "pay", "fail", "confirm", "refund", "cancel", "recurrent", "receipt"]
KINDS: Final[tuple[str, ...]] = get_args(Kind)
# This answer says that the notification is stored, now or before. After any other answer CloudPayments sends it again.
ACCEPTED: Final = 0

_HEADERS: Final = ("content-hmac", "x-content-hmac")
# 32 bytes in base64.
_HMAC = re.compile(r"[A-Za-z0-9+/]{43}=")
_MOST_NUMBER: Final = 10**20
# No column of the inbox takes this text, and no account, amount or currency is written so.
AMBIGUOUS: Final = "\0"

Fields: TypeAlias = Mapping[str, str]


class CloudPaymentsVerifier:
    """The `core.inbox.verifying.Verifier` of one kind of CloudPayments' notifications."""

    provider = PROVIDER

    def __init__(self, secrets: Sequence[str], kind: str) -> None:
        self._secrets = secrets
        self._kind = kind

    async def verify(self, body: bytes, headers: Mapping[str, str], now: float) -> NewEvent:  # noqa: ARG002 - no time is signed
        """Check the signature first, and only then read the fields."""
        check_signature(body, headers, self._secrets)
        return read_event(self._kind, body, headers)


def check_signature(body: bytes, headers: Mapping[str, str], secrets: Sequence[str]) -> None:
    """Raise NotGenuine unless one of the two headers is right under one of the secrets."""
    given = [token for name in _HEADERS for token in tokens_of(headers.get(name, ""))]
    if not given:
        raise NotGenuine("header_missing")
    signatures = [base64.b64decode(token) for token in given if _HMAC.fullmatch(token)]
    if not signatures:
        raise NotGenuine("header_malformed")
    messages = [body]
    decoded = unquote_to_bytes(body.replace(b"+", b" "))
    # Undoing the encoding must leave the fields as they are. Else a forger could, under the same signature, hide one
    # field in the one before it by an encoded `&`, hide its name by an encoded `=`, or pass JSON off as a form by an
    # encoded brace.
    named = all(b"=" in piece for piece in body.split(b"&"))
    is_form = named and not _is_json(body) and not _is_json(decoded)
    if is_form and decoded != body and decoded.count(b"&") == body.count(b"&"):
        messages.append(decoded)

    def signs(secret: bytes) -> bool:
        expected = [hmac.digest(secret, message, "sha256") for message in messages]
        # A list, and not a generator: all are compared.
        return True in [hmac.compare_digest(one, signature) for one in expected for signature in signatures]

    if uses.matching(uses.CLOUDPAYMENTS, secrets, signs) is None:
        raise NotGenuine("signature_mismatch")


def read_fields(body: bytes) -> Fields:
    """Return the fields of a form or of a JSON object as texts; null and nested ones are left out.

    A field that comes twice is AMBIGUOUS: it names no event, account, amount or currency. Raises Refusal
    `malformed_json` for a body that is neither form nor object.
    """
    fields: dict[str, str] = {}
    for name, text in _json_pairs(body) if _is_json(body) else _form_pairs(body):
        fields[name] = AMBIGUOUS if name in fields else text
    return fields


def read_event(kind: str, body: bytes, headers: Mapping[str, str]) -> NewEvent:
    """Return a verified notification as the inbox stores it.

    Raises Refusal `malformed_json` for an unreadable body, and `invalid_request` without the fields that name it.
    """
    fields = read_fields(body)
    name, object_id = _names(kind, fields, body)
    event_id, _ = identified(name and f"{kind}:{name}", kind)
    return NewEvent(
        provider=PROVIDER,
        event_id=event_id,
        event_type=kind,
        object_id=object_named(object_id),
        # The field is in UTC: `2026-11-21 16:00:00`.
        occurred_at=read_moment(fields.get("DateTime", "")),
        headers=kept(headers, _HEADERS),
        body=body,
    )


def _names(kind: str, fields: Fields, body: bytes) -> tuple[str, str]:
    """Return the name of this notification among those of its kind, and the object that it is about."""
    transaction = fields.get("TransactionId", "")
    if kind == "recurrent":
        # A subscription changes many times, and no field tells two of its notifications apart; the body's hash does.
        subscription = fields.get("Id", "")
        return subscription and f"{subscription}:{hashlib.sha256(body).hexdigest()[:32]}", subscription
    if kind == "receipt":
        receipt = fields.get("Id", "") or transaction
        return receipt, transaction or receipt
    # A refund is a transaction of its own; its object is the payment.
    return transaction, fields.get("PaymentTransactionId", "") or transaction


def _is_json(body: bytes) -> bool:
    # No field of CloudPayments begins with a brace, so the first byte is a better sign than the Content-Type.
    return begins_as_object(body)


def _json_pairs(body: bytes) -> list[tuple[str, str]]:
    return [(name, text) for name, value in read_object(body).items() if (text := _text(value)) is not None]


def _text(value: Any) -> str | None:
    if isinstance(value, str):
        return value
    if isinstance(value, bool | float):
        return msgspec.json.encode(value).decode()
    # Python refuses to write a number of thousands of digits, and none of theirs has twenty.
    return str(value) if isinstance(value, int) and abs(value) < _MOST_NUMBER else None


def _form_pairs(body: bytes) -> list[tuple[str, str]]:
    pieces = (piece.partition(b"=") for piece in form_pieces(body))
    pairs = [(_form_text(name), _form_text(value)) for name, _, value in pieces]
    if body and not pairs:
        raise unreadable()
    return pairs


def _form_text(raw: bytes) -> str:
    plain = unquote_to_bytes(raw.replace(b"+", b" "))
    try:
        return plain.decode()
    except UnicodeDecodeError:
        # Cash registers and old shops write Windows-1251, in which one byte has no character.
        return plain.decode("cp1251", "replace")
