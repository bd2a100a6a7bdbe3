"""The bodies, keys and times that the routes of the wallet surface share."""

from __future__ import annotations

import unicodedata
from collections.abc import Collection, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Final, TypeVar
from uuid import UUID

import msgspec
import pydantic
from aiohttp import hdrs, web
from multidict import istr
from pydantic_core import PydanticCustomError

from core import ids, phones
from core.access.keys import kept_spellings, plain_key
from core.errors import Refusal
from core.ledger.items import operation_id
from core.money import MAX_AMOUNT_MINOR
from core.payables.payments import Paid
from core.platform import Platform
from core.wallets import names
from core.wallets.balances import Entry
from handlers.http.dispatch import IDEMPOTENCY_KEY
from handlers.http.route import Call

T = TypeVar("T")

# The most items of one part of a list.
MAX_PAGE: Final = 200
# The header in which sibling services send their keys.
INTERNAL_KEY: Final = istr("X-Idempotency-Key")
# The contract's limit on an idempotency key, without the blanks around it.
MAX_KEY_CHARACTERS: Final = 64


def _phone(value: Any) -> Any:
    """Return a phone without blanks and dashes, its digits as 0 to 9; any other value as it is, to be refused."""
    found = phones.cleaned(value) if isinstance(value, str) else ""
    return found if found.startswith("+") else value


# A phone as the contract reads it: a plus, then digits, seven characters in all or more; 32 is the width of its column.
# `core.wallets.users` decides which spellings are one person.
Phone = Annotated[
    str,
    pydantic.Field(pattern=r"^\+[0-9]{6,31}$", max_length=32),
    pydantic.BeforeValidator(_phone),
]


def _name(value: Any) -> Any:
    """Return a name without characters that nobody sees; any other value as it is, to be refused."""
    if not isinstance(value, str):
        return value
    try:
        return names.read(value)
    except Refusal as refusal:
        raise PydanticCustomError("name_invalid", refusal.detail) from None


# An empty name is none, since clients send the field of a form that was left empty.
Name = Annotated[
    Annotated[str, pydantic.Field(max_length=128)] | None,
    pydantic.BeforeValidator(_name),
]
Cents = Annotated[int, pydantic.Field(gt=0, le=MAX_AMOUNT_MINOR)]
CurrencyCode = Annotated[str, pydantic.Field(min_length=3, max_length=12, pattern=r"^[A-Z][A-Z0-9]*$")]
Text = Annotated[str, pydantic.Field(max_length=512)]
# The purpose of what is to be paid, as invoices, links and codes tell it.
Reference = Annotated[str, pydantic.Field(max_length=128)]


def _listed_phone(text: str) -> str:
    phone = whole_phone(text) or ""
    if not phones.is_international(phone):
        raise PydanticCustomError("phone_invalid", "Write a phone, such as +963944123456")
    return phone


# The phone by which a list is narrowed, in any spelling.
PhoneFilter = Annotated[str, pydantic.Field(max_length=64), pydantic.AfterValidator(_listed_phone)]


class Body(pydantic.BaseModel):
    """A body or query of the contract: unknown fields are ignored, numbers may come as texts."""

    model_config = pydantic.ConfigDict(frozen=True, extra="ignore")


class PageQuery(Body):
    """A part of a list; `before` continues it behind the id of its last item.

    Without these fields a list is as the contract has it. With them its answer says how it goes on.
    """

    limit: Annotated[int, pydantic.Field(ge=1, le=MAX_PAGE)] | None = None
    before: UUID | None = None
    # Each list narrows it to the words that its items have.
    status: str | None = None

    @property
    def given(self) -> bool:
        """Whether a part of the list was asked for."""
        return bool(self.model_fields_set)

    def most(self, contract: int) -> int:
        """Return how many items to read: one more than asked for, which tells that there are more."""
        return (self.limit or contract) + 1


class TransferOut(msgspec.Struct, frozen=True, kw_only=True):
    """A payment as the contract shows it; `from_wallet_id` is null where the money comes from a system account."""

    transfer_id: str
    from_wallet_id: str | None
    to_wallet_id: str
    amount_cents: int
    currency_code: str
    status: str = "completed"


class Counterparty(msgspec.Struct, frozen=True):
    """The other side of an entry: a name that can be read, the masked phone, and whether it is an approved merchant."""

    name: str | None
    phone: str
    approved_merchant: bool


def counterparty_of(entry: Entry) -> Counterparty | None:
    """Return the other side of an entry, None for the platform's own accounts."""
    other = entry.other
    return None if other is None else Counterparty(other.shown_name, other.masked_phone, other.approved)


class Detail(msgspec.Struct, frozen=True):
    """The result, in a word."""

    detail: str


def cut(found: Sequence[T], limit: int) -> tuple[list[T], T | None]:
    """Return the first `limit` items, and the last of them where more were found."""
    items = list(found[:limit])
    return items, items[-1] if len(found) > limit else None


def linked(call: Call, response: web.Response, before: str | None) -> web.Response:
    """Return the answer of a bare array with a Link header (RFC 8288) to the next part, if there is one."""
    if before is not None:
        url = call.request.rel_url.update_query(before=before)
        response.headers[hdrs.LINK] = f'<{url}>; rel="next"'
    return response


def whole_phone(text: str | None) -> str | None:
    """Return a phone of a query as it is stored. An unencoded plus arrives as a blank."""
    if text is None:
        return None
    text = f"+{text[1:]}" if text.startswith(" ") else text
    return phones.normalized(text) or text


def transfer_out(paid: Paid) -> TransferOut:
    """Return a payment as the contract shows it."""
    return TransferOut(
        transfer_id=str(paid.transfer_id),
        from_wallet_id=paid.from_wallet_id,
        to_wallet_id=paid.to_wallet_id,
        amount_cents=paid.amount,
        currency_code=paid.currency,
    )


def platform_of(call: Call) -> Platform:
    """Return the platform of the process that answers."""
    return call.parts.platform


def timestamp(moment: datetime) -> str:
    """Return a moment as the contract writes it: naive UTC and a Z, microseconds unless there are none.

    >>> timestamp(datetime(2026, 1, 2, 3, 4, 5, 600, tzinfo=UTC))
    '2026-01-02T03:04:05.000600Z'
    """
    return moment.astimezone(UTC).replace(tzinfo=None).isoformat() + "Z"


def maybe_timestamp(moment: datetime | None) -> str | None:
    """Return a moment as the contract writes it, if there is one."""
    return None if moment is None else timestamp(moment)


def required_key(call: Call, in_body: str | None) -> str:
    """Return the idempotency key of a call that needs one: the header's, or else the body's.

    Raises Refusal `missing_idempotency_key`, `idempotency_key_too_long`, `idempotency_key_invalid`.
    """
    key = optional_key(call.request.headers.get(IDEMPOTENCY_KEY) or in_body, call.kept_keys)
    if key is None:
        raise Refusal("missing_idempotency_key", "Send an idempotency key, new for each new payment.")
    return key


def header_key(call: Call) -> str | None:
    """Return the idempotency key in the header, if there is one."""
    return optional_key(call.request.headers.get(IDEMPOTENCY_KEY), call.kept_keys)


def ignorable_key(call: Call) -> str | None:
    """Return the key in the header of a call for which the contract has no key. A key of a bad form is ignored."""
    try:
        return header_key(call)
    except Refusal:
        return None


def optional_key(text: str | None, kept: Collection[str] = ()) -> str | None:
    """Return the idempotency key that a text means, None for a blank one. Raises Refusal for a bad one.

    A spelling in `kept` is a key as it stands, without the blanks around it.
    """
    key = "" if text is None else text.strip()
    if key not in kept:
        key = plain_key(key)
    if not key:
        return None
    if len(key) > MAX_KEY_CHARACTERS:
        raise Refusal(
            "idempotency_key_too_long", f"An idempotency key has at most {MAX_KEY_CHARACTERS} characters."
        )
    if any(unicodedata.category(character) in {"Cc", "Cs"} for character in key):
        raise Refusal("idempotency_key_invalid", "An idempotency key holds no control characters.")
    return key


async def find_kept_keys(call: Call, principal_id: int) -> None:
    """Note the quoted keys of a call, in header or body, that were stored as they stand before quotes had a meaning."""
    headers = call.request.headers
    texts = [
        headers.get(IDEMPOTENCY_KEY),
        headers.get(INTERNAL_KEY),
        getattr(call.body, "idempotency_key", None),
    ]
    quoted = [text.strip() for text in texts if isinstance(text, str) and text.strip()[:1] == '"']
    if quoted:
        call.kept_keys = await kept_spellings(
            platform_of(call).database, principal_id, quoted, prefixes=("", "admin-refund:")
        )


def key_id(principal_id: int, key: str | None) -> UUID:
    """Return the id of the object that a key makes, or a new id for a call without a key."""
    return ids.new_uuid() if key is None else operation_id(principal_id, key)
