"""The leniency of the wallet contract, and its way to say what does not fit: pydantic's, in which it was written.

Whole numbers may come as texts or as 1000.0, unknown fields are ignored, and all that is wrong is listed, each with the
place where it stands. What a list of errors shows of the input never includes a code or a password.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any, Final, Generic, TypeVar

import orjson
import pydantic

from core.errors import Refusal
from handlers.decoding import MAX_DEPTH

T = TypeVar("T")

SECRETS: Final = frozenset({"otp", "password", "secret", "refresh_token"})
# Of a value that is shown, and of a list of what is wrong.
MAX_SHOWN_CHARACTERS: Final = 200
MAX_ERRORS: Final = 50


class Validator(Generic[T]):
    """Reads values of one type at one place: body, query or path."""

    def __init__(self, kind: type[T], where: str) -> None:
        self._adapter: pydantic.TypeAdapter[T] = pydantic.TypeAdapter(kind)
        self._where = where

    def read(self, value: Any) -> T:
        """Return `value` as the type. Raises Refusal `validation_failed` with the list of what is wrong in it."""
        try:
            return self._adapter.validate_python(value)
        except pydantic.ValidationError as error:
            found = error.errors(include_url=False)[:MAX_ERRORS]
            raise invalid([self._told(one) for one in found]) from None

    def _told(self, error: Any) -> dict[str, Any]:
        place = [self._where, *error["loc"]]
        told = {
            "type": error["type"],
            "loc": place,
            "msg": error["msg"],
            "input": _shown(error["input"], place),
        }
        if "ctx" in error:
            told["ctx"] = {name: _plain(value) for name, value in error["ctx"].items()}
        return told


# Made of its type and place alone.
validator_of = functools.cache(Validator)


def invalid(errors: Sequence[Mapping[str, Any]]) -> Refusal:
    """Return the refusal of a request, with the contract's list in the place of a sentence."""
    first = errors[0]
    place = ".".join(str(part) for part in first["loc"])
    return Refusal("validation_failed", f"{place}: {first['msg']}", errors=list(errors))


def parse_json(raw: bytes, content_type: str | None) -> Any:
    """Return the JSON value of a body, None for no body; of another media type the text as it is, which fits nothing.

    Raises Refusal `validation_failed` for what is no JSON in UTF-8, is nested deeper than 32 levels, or holds a NUL,
    which no column can store.
    """
    if not raw:
        return None
    essence = "" if content_type is None else content_type.partition(";")[0].strip().lower()
    if essence and essence != "application/json" and not essence.endswith("+json"):
        return raw.decode("utf-8", "replace")
    try:
        value = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        told = {"type": "json_invalid", "loc": ["body", error.pos], "msg": "JSON decode error", "input": {}}
        raise invalid([{**told, "ctx": {"error": error.msg}}]) from None
    if b"\\u0000" in raw or raw.count(b"[") + raw.count(b"{") > MAX_DEPTH:
        _check_parts(value)
    return value


def _check_parts(value: Any) -> None:
    """Refuse a NUL in a text, and what is nested deeper than can be shown and stored."""
    level = [value]
    for _ in range(MAX_DEPTH + 1):
        if any(isinstance(part, str) and "\0" in part for part in level):
            told = {
                "type": "string_type",
                "loc": ["body"],
                "msg": "A text holds the control character U+0000",
            }
            raise invalid([{**told, "input": None}])
        level = [inner for part in level for inner in _inner(part)]
        if not level:
            return
    told = {"type": "json_invalid", "loc": ["body"], "msg": f"Nested deeper than {MAX_DEPTH} levels"}
    raise invalid([{**told, "input": {}}])


def _inner(value: Any) -> Sequence[Any]:
    if isinstance(value, dict):
        return [*value, *value.values()]
    return value if isinstance(value, list) else ()


def _shown(value: Any, place: Sequence[Any]) -> Any:
    if not SECRETS.isdisjoint(place):
        return "***"
    if isinstance(value, dict) and not SECRETS.isdisjoint(value):
        value = {name: "***" if name in SECRETS else part for name, part in value.items()}
    if isinstance(value, str):
        return value[:MAX_SHOWN_CHARACTERS]
    if isinstance(value, (dict, list)) and len(str(value)) > MAX_SHOWN_CHARACTERS:
        return None
    return _plain(value)


def _plain(value: Any) -> Any:
    """Return what can be written as JSON: numbers beyond 64 bits and objects of pydantic's as texts."""
    try:
        orjson.dumps(value)
    except TypeError:
        return str(value)[:MAX_SHOWN_CHARACTERS]
    return value
