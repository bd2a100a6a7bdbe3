"""Times in bodies and queries: RFC 3339 with an offset, floored to the microsecond, whatever the number of digits."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import msgspec

from core.times import floored

_AWARE = Annotated[datetime, msgspec.Meta(tz=True)]

if TYPE_CHECKING:
    Time = datetime
else:

    class _AnyTime(type):
        def __instancecheck__(cls, value: object) -> bool:
            return isinstance(value, datetime)

    class Time(metaclass=_AnyTime):
        """The type of a field that holds a time.

        msgspec rounds a plain `datetime` up, into the next year if need be, so this type has a reader of its own.
        """


def read_custom(kind: type[Any], value: object) -> datetime:
    """Return the time that a field of the type `Time` says; msgspec calls this for the types that are not its own."""
    if kind is not Time:
        raise NotImplementedError(f"no reader for {kind}")
    try:
        return msgspec.convert(floored(value) if isinstance(value, str) else value, _AWARE)
    except msgspec.ValidationError as error:
        raise ValueError(str(error)) from None  # msgspec adds the place


def custom_schema(kind: type[Any]) -> dict[str, Any]:
    """Return the JSON Schema of `Time`; msgspec calls this for the types that are not its own."""
    if kind is not Time:
        raise NotImplementedError(f"no schema for {kind}")
    return {"type": "string", "format": "date-time"}
