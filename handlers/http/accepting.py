"""The form of an answer that a caller asks for in `Accept`: the media type, and numbers as texts (RFC 9110, 12.5.1)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import orjson
from aiohttp import hdrs, web

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

JSON_TYPE = "application/json"
# The media type of JSON whose whole numbers are texts.
TEXT_NUMBERS_TYPE = f"{JSON_TYPE}; numbers=string"
# Ranges of a header that are read. No client names as many types as that.
MAX_RANGES = 32

_QUALITY = re.compile(r"0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?")


class Range(NamedTuple):
    """One media range of an `Accept` header, its parameters in lower case, and its quality from 0 to 1."""

    media_type: str
    parameters: dict[str, str]
    quality: float

    def fits(self, media_type: str) -> int:
        """Return how precisely the range names a type: 2 by its name, 1 by `text/*`, 0 by `*/*`, -1 not at all."""
        if self.media_type == media_type:
            return 2
        if self.media_type == f"{media_type.partition('/')[0]}/*":
            return 1
        return 0 if self.media_type == "*/*" else -1


def preferred(accept: str | None, offered: Sequence[str]) -> str:
    """Return the media type of `offered` that `accept` likes best; the first one where it likes none or several."""
    ranges = list(_ranges(accept or ""))
    best, best_quality = offered[0], 0.0
    for media_type in offered:
        fitting = max(ranges, key=lambda one: one.fits(media_type), default=None)
        quality = fitting.quality if fitting is not None and fitting.fits(media_type) >= 0 else 0.0
        if quality > best_quality:
            best, best_quality = media_type, quality
    return best


def wants_text_numbers(accept: str) -> bool:
    """Whether `accept` asks for JSON whose whole numbers are texts: `application/json; numbers=string`."""
    return any(
        one.media_type == JSON_TYPE and one.parameters.get("numbers") == "string" and one.quality > 0
        for one in _ranges(accept)
    )


def with_text_numbers(response: web.StreamResponse) -> web.StreamResponse:
    """Return a JSON answer again with each whole number as a text of digits; another answer as it is.

    The stored answer under a key stays as it was, so that each repetition is given in the form that it asks for.
    """
    if not isinstance(response, web.Response) or response.headers.get(hdrs.CONTENT_TYPE) != JSON_TYPE:
        return response
    if not isinstance(response.body, bytes) or not response.body:
        return response
    headers = response.headers.copy()
    headers[hdrs.CONTENT_TYPE] = TEXT_NUMBERS_TYPE
    headers[hdrs.VARY] = hdrs.ACCEPT
    headers.popall(hdrs.CONTENT_LENGTH, None)
    body = msgspec.json.encode(_texts(orjson.loads(response.body)))
    return web.Response(status=response.status, body=body, headers=headers)


def _texts(value: Any) -> Any:
    """Return a JSON value with its whole numbers as texts. Our own answers are nested a few levels deep."""
    if isinstance(value, dict):
        return {name: _texts(part) for name, part in value.items()}
    if isinstance(value, list):
        return [_texts(part) for part in value]
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _ranges(accept: str) -> Iterator[Range]:
    for text in accept.split(",")[:MAX_RANGES]:
        media_type, *rest = (part.strip() for part in text.lower().split(";"))
        parameters = {}
        for parameter in rest:
            name, _, value = parameter.partition("=")
            parameters[name.strip()] = value.strip().strip('"')
        quality = parameters.pop("q", "1")
        yield Range(media_type, parameters, float(quality) if _QUALITY.fullmatch(quality) else 0.0)
