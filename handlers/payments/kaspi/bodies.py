"""Bodies and queries of the Kaspi contract. Its amounts are JSON numbers of tenge; they become exact hundredths."""

from __future__ import annotations

import json
import re
from decimal import ROUND_HALF_EVEN, Decimal, InvalidOperation
from typing import Annotated, Any, Final

import pydantic
from pydantic_core import PydanticCustomError, PydanticKnownError

from handlers.http.validation import parse_json

# Fifteen digits: a client that counts in binary floats writes each hundredth up to it as the hundredth that it means.
MOST_TENGE: Final = Decimal("9999999999999.99")
_HUNDREDTH: Final = Decimal("0.01")
# A binary float of 53 bits is off by less than this part of its value after a few additions.
_FLOAT_TRACE: Final = Decimal("1e-12")
# A message stands in an address of the proxy, whose server takes some 8 KB.
MAX_MESSAGE: Final = 1_000
_SEPARATORS: Final = re.compile(r"[\s()./-]")
_PHONE: Final = re.compile(r"\+?[0-9]{10,15}", re.ASCII)
_BIN: Final = re.compile(r"[0-9]{12}", re.ASCII)
_MAX_SHOP: Final = 2**31 - 1


def read_json(raw: bytes, content_type: str | None) -> Any:
    """Return the JSON of a body, its fractions as exact decimals. Raises Refusal `validation_failed`."""
    value = parse_json(raw, content_type)
    if not isinstance(value, dict):
        return value
    try:
        return json.loads(raw, parse_float=Decimal)
    except ValueError:  # a whole number of thousands of digits, which is none that any field takes
        return value


def _hundredths(value: Any) -> int:
    """Return tenge as whole hundredths. The faults have the names and the words of the contract's framework."""
    if isinstance(value, bool) or not isinstance(value, int | Decimal | float | str):
        raise PydanticKnownError("float_type")
    try:
        tenge = Decimal(value if isinstance(value, int | Decimal) else str(value).strip())
    except InvalidOperation:
        raise PydanticKnownError("float_parsing") from None
    if not tenge.is_finite():
        raise PydanticKnownError("finite_number")
    if tenge <= 0:
        raise PydanticKnownError("greater_than", {"gt": 0.0})
    if tenge > MOST_TENGE:
        raise PydanticCustomError(
            "less_than_equal", "Input should be less than or equal to {le}", {"le": str(MOST_TENGE)}
        )
    exact = tenge.quantize(_HUNDREDTH, ROUND_HALF_EVEN)
    # Clients that add up binary floats send 0.30000000000000004 for 0.3; 19.999 is no such trace, and is refused.
    if abs(exact - tenge) > exact * _FLOAT_TRACE:
        raise PydanticKnownError("decimal_max_places", {"decimal_places": 2})
    return int(exact.scaleb(2))


def _phone(text: str) -> str:
    """Return a phone as it was written: the bank knows how to read it, if it is one."""
    if not _PHONE.fullmatch(_SEPARATORS.sub("", text)):
        raise PydanticCustomError("phone", "Input should be a phone number of 10 to 15 digits")
    return text.strip()


def _organization(text: str) -> str:
    if not _BIN.fullmatch(text):
        raise PydanticCustomError("organization_bin", "Input should be a BIN of 12 digits")
    return text


Shop = Annotated[int, pydantic.Field(gt=-_MAX_SHOP, le=_MAX_SHOP, description="The shop's number.")]
Tenge = Annotated[
    int,
    pydantic.PlainValidator(_hundredths, json_schema_input_type=float),
    pydantic.WithJsonSchema(
        {
            "type": "number",
            "exclusiveMinimum": 0,
            "maximum": 9999999999999.99,
            "description": "Tenge, with two decimals at most.",
        }
    ),
]
Phone = Annotated[str, pydantic.AfterValidator(_phone)]
Organization = Annotated[
    str,
    pydantic.AfterValidator(_organization),
    pydantic.Field(max_length=12, description="The organization's BIN: 12 digits."),
]
Message = Annotated[str, pydantic.Field(max_length=MAX_MESSAGE)]
DeviceToken = Annotated[str, pydantic.Field(max_length=50)]
Label = Annotated[str, pydantic.Field(max_length=20)]
ExternalId = Annotated[str, pydantic.Field(max_length=255)]
Count = Annotated[int, pydantic.Field(ge=0)]


class Body(pydantic.BaseModel):
    """A body or query of the contract: unknown fields are ignored, numbers may come as texts."""

    model_config = pydantic.ConfigDict(frozen=True, extra="ignore")


class KaspiLinkIn(Body):
    """A payment by link. `message` tells the payer what is paid."""

    shop_id: Shop
    amount: Tenge
    message: Message


class KaspiPaymentIn(KaspiLinkIn):
    """A payment by a message to a phone. `phone` is the payer's."""

    phone: Phone


class KaspiRefundIn(Body):
    """A refund. `external_id` is the id that the payment's order was answered with."""

    shop_id: Shop
    external_id: ExternalId
    amount: Tenge


class KaspiStatusQuery(Body):
    """The payment that is asked for. `external_id` is the id that its order was answered with."""

    external_id: ExternalId


class KaspiConfigIn(Body):
    """A new config of a shop.

    `device_token` is that of the shop's device at the bank, `is_active` says whether the shop may be paid, `provider`
    is a label.
    """

    shop_id: Shop
    organization_bin: Organization
    device_token: DeviceToken | None = None
    is_active: bool = True
    provider: Label = "kaspi"


class KaspiConfigChanges(Body):
    """Changes of a config; a field that is left out stays, and a `device_token` of null is taken away."""

    organization_bin: Organization = ""
    device_token: DeviceToken | None = None
    is_active: bool = True
    """Whether the shop may be paid."""
    provider: Label = ""
    """A label."""


class KaspiShopQuery(Body):
    """The shop whose config is wanted."""

    shop_id: Shop


class KaspiLogQuery(Body):
    """The rows that are wanted. `skip` rows are left out, `operation_type` and `shop_id` narrow the list."""

    shop_id: Shop | None = None
    operation_type: Label | None = None
    limit: Count = 100
    skip: Count = 0


class KaspiLogIn(Body):
    """A row of a caller's own. `status`, `error_message` and the others are kept as they are told."""

    shop_id: Shop
    operation_type: Label = "log"
    organization_bin: Annotated[str, pydantic.Field(max_length=12)] | None = None
    external_id: Annotated[str, pydantic.Field(max_length=255)] | None = None
    amount: Annotated[int, pydantic.Field(ge=0, lt=2**63)] | None = None
    status: Annotated[str, pydantic.Field(max_length=50)] | None = None
    error_message: Annotated[str, pydantic.Field(max_length=500)] | None = None
    provider: Label = "kaspi"
