"""The routes of sibling services, which sign the payload. A body that is no object is refused before the signature."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

import msgspec
from aiohttp import web
from multidict import istr

from core import phones
from core.access import internal_hmac
from core.access.internal_hmac import Credentials
from core.errors import Refusal
from core.money import MAX_AMOUNT_MINOR
from core.payables import internal
from core.payables.internal import MAX_REQUEST_MINUTES, Instruction
from handlers.http.decoding import refuse_duplicates
from handlers.http.route import Call, Route, answer, table
from handlers.wallets.contract import (
    INTERNAL_KEY,
    Body,
    TransferOut,
    optional_key,
    platform_of,
    timestamp,
    transfer_out,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

SIGN, TS, SECRET = istr("X-Internal-Sign"), istr("X-Internal-Ts"), istr("X-Internal-Secret")

STATUSES: Final = {"open": "pending", "paid": "accepted"}
MAX_DUE_DAYS: Final = 3_650
MAX_REFERENCE: Final = 128
MAX_DESCRIPTION: Final = 512


class WalletQuery(Body):
    """The owner of the wallet."""

    phone: str


class Made(msgspec.Struct, frozen=True):
    """The id of a new object."""

    id: str


class InternalWallet(msgspec.Struct, frozen=True):
    """The balance of a user's wallet, in minor units."""

    phone: str
    wallet_id: str
    balance_cents: int
    currency_code: str


class InternalRequest(msgspec.Struct, frozen=True):
    """A payment request, as services read it."""

    id: str
    status: str
    amount_cents: int
    requester_phone: str
    target_phone: str
    created_at: str


async def create_request(call: Call) -> web.Response:
    """Make a payment request, from one phone to another."""
    asked = await _asked(call)
    minutes = _whole(call.body.get("expires_in_minutes"), "expires_in_minutes", least=0)
    metadata = call.body.get("metadata")
    if metadata is not None and not isinstance(metadata, dict):
        raise _invalid("metadata must be an object.")
    made = await internal.request(platform_of(call), asked, minutes=minutes, metadata=metadata)
    return answer(200, Made(str(made)))


async def create_transfer(call: Call) -> web.Response:
    """Pay from one phone's wallet to another's."""
    return answer(200, transfer_out(await internal.transfer(platform_of(call), await _asked(call))))


async def create_invoice(call: Call) -> web.Response:
    """Send an invoice from one phone to another."""
    asked = await _asked(call)
    due = _whole(call.body.get("due_in_days"), "due_in_days", least=0, most=MAX_DUE_DAYS)
    made = await internal.invoice(
        platform_of(call),
        asked,
        due_in_days=due or 0,
        reference=_text(call, "reference", MAX_REFERENCE),
        description=_text(call, "description", MAX_DESCRIPTION),
    )
    return answer(200, Made(str(made)))


async def get_wallet(call: Call) -> web.Response:
    """Show the wallet of a phone. A missing one is made."""
    query: WalletQuery = call.query
    # An unencoded plus arrives as a blank, and the caller may have signed either.
    phone = f"+{query.phone[1:]}" if query.phone.startswith(" ") else query.phone
    await _signed(call, [{"phone": query.phone}, {"phone": phone}])
    phone = phones.cleaned(phone)
    if not phones.is_international(phone):
        raise Refusal("invalid_phone_format", "A phone is a plus and 6 to 31 digits.")
    user, found = await internal.wallet(platform_of(call), phone)
    return answer(200, InternalWallet(user.phone, str(user.wallet_id), found.balance, found.currency))


async def get_request(call: Call) -> web.Response:
    """Show a payment request."""
    text = call.path("request_id")
    await _signed(call, [{"id": text}])
    try:
        request_id = UUID(text)
    except ValueError:
        raise internal.unknown_request() from None
    found = await internal.find_request(platform_of(call), request_id)
    payable = found.payable
    shown = InternalRequest(
        str(payable.id),
        STATUSES.get(payable.state, payable.state),
        payable.amount or 0,
        found.payee_phone,
        found.payer_phone,
        timestamp(payable.created_at),
    )
    return answer(200, shown)


async def _asked(call: Call) -> Instruction:
    """Return the instruction of a write, after the caller's right to write was checked."""
    key = await _signed(call, [_parsed_anew(call.raw)], writes=True)
    body: dict[str, Any] = call.body
    amount = body.get("amount_cents")
    named = [body.get(name) for name in ("from_phone", "to_phone")]
    sides = [phones.cleaned(phone) for phone in named if isinstance(phone, str)]
    if len(sides) < len(named) or not all(map(phones.is_international, sides)):
        raise _invalid("from_phone and to_phone must be a plus and 6 to 31 digits each.")
    if type(amount) is not int or not 0 < amount <= MAX_AMOUNT_MINOR:  # true would be 1
        raise _invalid("amount_cents must be a whole number above zero.")
    return Instruction(sides[0], sides[1], amount, key)


async def _signed(call: Call, payloads: Sequence[Any], *, writes: bool = False) -> str | None:
    """Check the caller's signature, and return the idempotency key. Raises Refusal `forbidden`, and those of a key."""
    headers = call.request.headers
    credentials = Credentials(headers.get(SIGN), headers.get(TS), headers.get(SECRET))
    settings, database = call.service.settings, call.service.database
    signature = internal_hmac.check(settings, credentials, payloads, now=datetime.now(UTC))
    if writes:
        _refuse_doubled_keys(call.raw)
    key = optional_key(headers.get(INTERNAL_KEY), call.kept_keys)
    if signature is not None:
        operation = f"{call.request.method} {call.request.path}"[: internal_hmac.MAX_OPERATION]
        await internal_hmac.use(database, settings, signature, operation, key, writes=writes)
    return key


def _parsed_anew(raw: bytes) -> Any:
    """Return a body parsed as its signer does it: numbers of any size stay whole, which the faster parser rounds."""
    try:
        return json.loads(raw)
    except (
        ValueError,
        RecursionError,
    ):  # numbers of thousands of digits, objects within objects within objects
        raise _invalid("The body cannot be read.") from None


def _refuse_doubled_keys(raw: bytes) -> None:
    """Refuse a body in which a key stands twice: the signature covers the last value, and a proxy may read the first.

    Raises Refusal `invalid_payload`.
    """
    try:
        refuse_duplicates(raw, json.dumps(json.loads(raw)).encode())
    except Refusal as refusal:
        raise _invalid(refusal.detail) from None


def _whole(value: Any, name: str, *, least: int, most: int = MAX_REQUEST_MINUTES * 1_000) -> int | None:
    """Return a whole number, which may come as a text, or None for an absent one."""
    if value is None:
        return None
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,9}", value, re.ASCII):
        value = int(value)
    if type(value) is not int or not least <= value <= most:
        raise _invalid(f"{name} must be a whole number from {least} to {most}.")
    return value


def _text(call: Call, name: str, most: int) -> str | None:
    value = call.body.get(name)
    if value is not None and (not isinstance(value, str) or len(value) > most):
        raise _invalid(f"{name} must be a text of at most {most} characters.")
    return value


def _invalid(detail: str) -> Refusal:
    return Refusal("invalid_payload", detail)


_WRITES = ("forbidden", "invalid_payload", "idempotency_conflict", "idempotency_key_too_long")

ROUTES = table(
    Route(
        "POST", "/internal/requests", create_request, "internal_create_request", "Request a payment",
        body=dict[str, Any], key_header="X-Idempotency-Key",
        answers={200: Made}, problems=_WRITES,
    ),
    Route(
        "POST", "/internal/transfer", create_transfer, "internal_create_transfer", "Pay",
        body=dict[str, Any], key_header="X-Idempotency-Key", answers={200: TransferOut},
        problems=("insufficient_funds", "currency_mismatch", *_WRITES),
    ),
    Route(
        "GET", "/internal/wallet", get_wallet, "internal_get_wallet", "Show a wallet",
        query=WalletQuery, answers={200: InternalWallet}, problems=("forbidden", "invalid_phone_format"),
    ),
    Route(
        "GET", "/internal/requests/{request_id}", get_request, "internal_get_request", "Show a payment request",
        answers={200: InternalRequest}, problems=("forbidden", "internal_request_not_found"),
    ),
    Route(
        "POST", "/internal/invoices", create_invoice, "internal_create_invoice", "Send an invoice",
        body=dict[str, Any], key_header="X-Idempotency-Key",
        answers={200: Made}, problems=_WRITES,
    ),
    tag="internal", caller="internal",
)  # fmt: skip
