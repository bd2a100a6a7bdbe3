"""The leniency of the contracts that were written in pydantic, and its lists of errors.

Whole numbers may come as texts or as 1000.0, unknown fields are ignored, and all faults are listed, each with its
place. A list of errors shows the input, but never a code or a password.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from typing import Any, Final, Generic, TypeVar

import orjson
import pydantic
from aiohttp import web

from core.errors import Refusal
from handlers.http import bounds
from handlers.http.bounds import MAX_DEPTH

T = TypeVar("T")

SECRETS: Final = frozenset({"otp", "password", "secret", "refresh_token", "device_token"})
# Values of a body; the metadata of a request are the most that any route keeps, and hold fewer.
MAX_VALUES: Final = 4_096
# Values among which the place of a NUL is searched.
MAX_SEARCHED_VALUES: Final = 256
NO_NUL: Final = "Input should be a valid string without U+0000"
# Bounds of a value that is shown, and of a list of errors.
MAX_SHOWN_CHARACTERS: Final = 200
MAX_ERRORS: Final = 50
# Bytes of a body that is no JSON. A larger one is not read a second time for the sake of its error.
MAX_EXPLAINED_BYTES: Final = 16_384


class Validator(Generic[T]):
    """A reader of values of one type at one place: the body, the query, or one name in the path."""

    def __init__(self, kind: type[T], *where: str) -> None:
        self._adapter: pydantic.TypeAdapter[T] = pydantic.TypeAdapter(kind)
        self._where = where
        self._whole = where == ("body",)
        # A body may be absent if all of its fields may.
        fields: Mapping[str, Any] = getattr(kind, "model_fields", {})
        self._absent: Any = None
        if fields and not any(field.is_required() for field in fields.values()):
            self._absent = {}

    def read(self, value: Any, errors: list[Mapping[str, Any]]) -> T | None:
        """Return `value` as the type. Where it does not fit, add its faults to `errors` and return None."""
        if value is None:
            value = self._absent
        try:
            return self._adapter.validate_python(value, from_attributes=self._whole)
        except pydantic.ValidationError as error:
            found = error.errors(include_url=False)[:MAX_ERRORS]
            errors.extend(
                [self._told(one) for one in found] if value is not None else [missing(*self._where)]
            )
            return None

    def _told(self, error: Any) -> dict[str, Any]:
        place = [*self._where, *error["loc"]]
        if error["type"] == "missing" and not self._whole:
            return missing(*place)
        told = {
            "type": error["type"],
            "loc": place,
            "msg": error["msg"],
            "input": _shown(error["input"], place),
        }
        if "ctx" in error:
            told["ctx"] = {name: _plain(value) for name, value in error["ctx"].items()}
        return told


# A validator is made of its type and place alone.
validator_of = functools.cache(Validator)


def invalid(errors: Sequence[Mapping[str, Any]]) -> Refusal:
    """Return the refusal of a request, with the contract's list in the place of a sentence."""
    first = errors[0]
    place = ".".join(str(part) for part in first["loc"])
    return Refusal("validation_failed", f"{place}: {first['msg']}", errors=list(errors))


def missing(*place: str | int) -> dict[str, Any]:
    """Return the fault of a field that is not there."""
    return {"type": "missing", "loc": [*place], "msg": "Field required", "input": None}


def parse_json(raw: bytes, content_type: str | None) -> Any:
    """Return the JSON value of a body, None for no body. A body of another media type is a text, which fits no type.

    Raises Refusal `validation_failed` for a body that is no JSON in UTF-8, is nested deeper than 32 levels, or holds
    more than 4,096 values. A NUL, which no column can store, is left to `refuse_nul`.
    """
    if not raw:
        return None
    essence = "" if content_type is None else content_type.partition(";")[0].strip().lower()
    if essence and essence != "application/json" and not essence.endswith("+json"):
        return raw.decode("utf-8", "replace")
    if bounds.too_many(raw, MAX_VALUES):
        raise _unreadable(f"The body holds more than {MAX_VALUES:,} values")
    if bounds.too_deep(raw):
        raise _unreadable(f"Nested deeper than {MAX_DEPTH} levels")
    try:
        return orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        place, said = _as_the_contract_says(raw, error)
        told = {"type": "json_invalid", "loc": ["body", place], "msg": "JSON decode error", "input": {}}
        raise invalid([{**told, "ctx": {"error": said}}]) from None


def pairs(request: web.Request) -> dict[str, str]:
    """Return the query. The last value of a name counts, as with the contracts' framework."""
    if "?" not in request.raw_path:
        return {}
    found = dict(request.query.items())
    refuse_nul(found, "query")
    return found


def refuse_nul_in(raw: bytes, value: Any) -> None:
    """Raise Refusal `validation_failed` if a text of a body that was parsed holds a NUL, with its place among few."""
    # Each backslash of valid JSON begins an escape, so that pairs of them are texts' own.
    if b"\\u0000" not in raw.replace(b"\\\\", b""):
        return
    if bounds.too_many(raw, MAX_SEARCHED_VALUES):
        raise invalid([{"type": "string_type", "loc": ["body"], "msg": NO_NUL, "input": None}])
    refuse_nul(value, "body")


def refuse_nul(value: Any, *place: str | int) -> None:
    """Raise Refusal `validation_failed` for a text that no column stores: with a NUL, or half a surrogate pair."""
    waiting: list[tuple[Any, tuple[str | int, ...]]] = [(value, place)]
    while waiting:
        part, where = waiting.pop()
        if isinstance(part, str):
            if "\0" in part or not _encodable(part):
                raise invalid([{"type": "string_type", "loc": [*where], "msg": NO_NUL, "input": None}])
        elif isinstance(part, dict):
            for name, inner in part.items():
                waiting += [(name, where), (inner, (*where, name))]
        elif isinstance(part, list):
            waiting.extend((inner, (*where, index)) for index, inner in enumerate(part))


def _unreadable(said: str) -> Refusal:
    return invalid([{"type": "json_invalid", "loc": ["body"], "msg": said, "input": {}}])


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _as_the_contract_says(raw: bytes, error: orjson.JSONDecodeError) -> tuple[int, str]:
    """Return the place and the words of Python's own decoder, which the contract passes on."""
    if len(raw) <= MAX_EXPLAINED_BYTES:
        try:
            json.loads(raw)
        except json.JSONDecodeError as found:
            return found.pos, found.msg
        except (ValueError, RecursionError):  # not UTF-8, or deeper than it goes
            pass
    return error.pos, error.msg


def _shown(value: Any, place: Sequence[Any]) -> Any:
    if not SECRETS.isdisjoint(place):
        return "***"
    if isinstance(value, dict) and not SECRETS.isdisjoint(value):
        value = {name: "***" if name in SECRETS else part for name, part in value.items()}
    if isinstance(value, str):
        return value[:MAX_SHOWN_CHARACTERS]
    plain = _plain(value)
    if isinstance(value, (dict, list)) and len(orjson.dumps(plain)) > MAX_SHOWN_CHARACTERS:
        return None
    return plain


def _plain(value: Any) -> Any:
    """Return a value that JSON can hold: numbers beyond 64 bits and pydantic's objects become texts."""
    try:
        orjson.dumps(value)
    except TypeError:
        return str(value)[:MAX_SHOWN_CHARACTERS]
    return value
