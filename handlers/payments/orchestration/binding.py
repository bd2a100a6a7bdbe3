"""Bodies and queries as the contract's framework binds them.

Names are matched in any case, unknown ones are ignored, null is the same as nothing, and a value of another type is
refused: a number in quotes, `10.0` for a whole number, a number in metadata. A form binds to nothing.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeVar

import msgspec
from aiohttp import hdrs

from core.errors import Refusal
from core.payments.orchestration.asking import MOST_INT32, NewOrder, Wanted
from core.payments.orchestration.shown import PROVIDERS
from handlers.http import bounds

if TYPE_CHECKING:
    from collections.abc import Mapping

    from multidict import CIMultiDictProxy

Bound = TypeVar("Bound", bound=msgspec.Struct)

_JSON: Final = "application/json"
_FORMS: Final = frozenset({"application/x-www-form-urlencoded", "multipart/form-data"})
_WHOLE: Final = re.compile(r"[+-]?[0-9]{1,20}", re.ASCII)
_NUMBER: Final = re.compile(r"[0-9]{1,40}", re.ASCII)
MOST_UINT64: Final = 2**64 - 1

Int32 = Annotated[int, msgspec.Meta(ge=-MOST_INT32 - 1, le=MOST_INT32)]
Int64 = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]


class OrderBody(NewOrder, frozen=True, kw_only=True):
    """A payment that is asked for.

    `request_id` may be left out where the header X-Request-ID has it. `payment_method` is 1 (hosted card) or 2 (payment
    link), `payment_type` 1 (once) or 2 (repeated), `provider` 0 or 1 (Stripe). The `recurring_interval` is day, week,
    month or year, and `recurring_interval_count` how many of them. Events about the payment are posted to
    `status_callback_url`.
    """

    amount_cents: Int64 = 0
    payment_method: Int32 = 0
    payment_type: Int32 = 0
    provider: Int32 = 0
    recurring_interval_count: Int32 = 0

    def order(self, request_id: str) -> NewOrder:
        """Return the order; `request_id` is that of the header."""
        values = msgspec.structs.asdict(self)
        values["request_id"] = self.request_id.strip() or request_id
        values["recurring_interval"] = self.recurring_interval.lower()
        return NewOrder(**values)


class CancelBody(msgspec.Struct, frozen=True):
    """A cancellation. The `reason` is for people, and is not kept."""

    reason: str = ""


class ListQuery(msgspec.Struct, frozen=True):
    """A list that is asked for. Texts are compared whole; `status` is a number; `provider` is stripe or 1."""

    request_id: str = ""
    caller_service: str = ""
    resource_type: str = ""
    resource_id: str = ""
    status: Annotated[int | None, msgspec.Meta(description="Only payments of this status.")] = None
    provider: str = ""
    limit: int = 0
    offset: int = 0


def bound_body(
    raw: bytes, headers: CIMultiDictProxy[str], kind: type[Bound], fault: str = "invalid request body"
) -> Bound:
    """Return a body. Raises Refusal `invalid_request` with the words `fault`, which are the contract's."""
    media_type = headers.get(hdrs.CONTENT_TYPE, "").partition(";")[0].strip().lower()
    if not raw or media_type in _FORMS:
        return kind()
    if media_type != _JSON or bounds.too_many(raw) or bounds.too_deep(raw):
        raise Refusal("invalid_request", fault)
    try:
        members = msgspec.json.decode(raw, type=dict[str, Any] | None) or {}
        return msgspec.convert(_known(members, kind), kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        refusal = Refusal("invalid_request", fault)
    raise refusal


def bound_query(query: Mapping[str, str]) -> Wanted:
    """Return a list that is asked for. Raises Refusal `invalid_request`."""
    provider = query.get("provider", "").strip().lower()
    if provider and provider not in PROVIDERS:
        raise _invalid()
    return Wanted(
        **{name: query.get(name, "").strip() for name in ("request_id", "caller_service")},
        **{name: query.get(name, "").strip() for name in ("resource_type", "resource_id")},
        status=_int32(query.get("status", "")),
        provider=PROVIDERS.get(provider, 0),
        limit=_int32(query.get("limit", "")) or 0,
        offset=_int32(query.get("offset", "")) or 0,
    )


def bound_id(text: str) -> int:
    """Return the number of a payment from a path. Raises Refusal `invalid_request`."""
    number = int(text) if _NUMBER.fullmatch(text) else MOST_UINT64 + 1
    if number > MOST_UINT64:
        raise _invalid()
    return number


def _known(members: dict[str, Any], kind: type[msgspec.Struct]) -> dict[str, Any]:
    """Return the members that a type has, by its names; what is null stays unset."""
    found = {}
    for name, value in members.items():
        own = name.lower()
        if value is None or own not in kind.__struct_fields__:
            continue
        if isinstance(value, dict):
            value = {key: "" if text is None else text for key, text in value.items()}  # noqa: PLW2901
        found[own] = value
    return found


def _int32(text: str) -> int | None:
    if not text:
        return None
    number = int(text) if _WHOLE.fullmatch(text) else MOST_INT32 + 1
    if not -MOST_INT32 - 1 <= number <= MOST_INT32:
        raise _invalid()
    return number


def _invalid() -> Refusal:
    return Refusal("invalid_request", "invalid request")
