"""Strict decoding: bytes and query strings become the types of a route, or a Refusal that says where and what.

Most parsers accept four things that must not reach a ledger: a key that comes twice in an object, control characters,
nesting without a bound, and numbers that lose digits. Each is refused here, by work that stays in C: the document is
parsed and written again, and what was wrong shows in the bytes. Only a body of a few values is looked at value by
value, to say where the fault is.
"""

from __future__ import annotations

import asyncio
import functools
import json
import re
from typing import TYPE_CHECKING, Any, Generic, NoReturn, TypeVar

import msgspec
import orjson
from aiohttp import hdrs, web

from core.errors import Refusal
from handlers.http import bounds
from handlers.http.bounds import MAX_DEPTH, MAX_VALUES
from handlers.http.times import read_custom

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from multidict import CIMultiDictProxy

T = TypeVar("T")

# The scheme of API keys and tokens, as `authorization_of` returns it.
BEARER = "bearer"

# The fault in a body of no more values is told with its place. A search among more would hold everybody else up.
MAX_SEARCHED_VALUES = 10_000
# A body that takes longer than this to arrive holds a connection for nothing: 1 MiB at 300 kbit/s.
BODY_TIMEOUT_SECONDS = 30.0

# Characters of a message about a body, since a message may quote the body.
MAX_SHOWN = 300
# A number with more digits than a bigint has stays a text, and is refused as one.
_INTEGER = re.compile(r"-?(?:0|[1-9][0-9]{0,18})")
_BOOLEANS = {"true": True, "false": False}
# A time whose offset had a plus, which a query turns into a blank.
_LOST_PLUS = re.compile(r"[0-9]T[0-9:.]+ [0-9]{2}:?[0-9]{2}$")
_C1_CONTROL = re.compile(rb"\xc2[\x80-\x9f]")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_MSGSPEC_ERROR = re.compile(r"(?P<what>.*?)(?: - at (?P<key>`key` in )?`(?P<path>.+)`)?", re.DOTALL)
_WRONG_TYPE = re.compile(r"Expected `(?P<expected>[^`]+)`, got `(?P<got>[^`]+)`")
_BOUND = re.compile(r"Expected `(?P<type>[^`]+)` (?P<bound>.+)", re.DOTALL)
_NAMES = {
    "int": "an integer",
    "str": "a text",
    "bool": "true or false",
    "float": "a number",
    "array": "a list",
    "object": "an object",
    "null": "null",
    "datetime": "a date-time (RFC 3339, with an offset)",
    "uuid": "a UUID",
}


class BodyDecoder(Generic[T]):
    """A decoder of JSON bodies of one type.

    Refusals: `malformed_json` (not UTF-8 JSON, or too deep), `duplicate_json_key`, `invalid_request` (well-formed JSON
    that is not of the type).
    """

    __slots__ = ("_decode", "_empty")

    def __init__(self, kind: type[T]) -> None:
        self._decode = msgspec.json.Decoder(kind, dec_hook=read_custom).decode
        # No body stands for an empty object where the type asks for nothing.
        self._empty = _default(kind)

    def decode(self, raw: bytes) -> T:
        """Return the value of `raw`."""
        if not raw:
            if self._empty is not None:
                return self._empty
            raise Refusal("malformed_json", "The request has no body; a JSON object is expected.")
        check_json(raw)
        try:
            return self._decode(raw)
        except msgspec.ValidationError as error:
            raise explained(error) from None
        except (msgspec.DecodeError, RecursionError) as error:
            raise Refusal("malformed_json", f"The body is not valid JSON: {error}.") from None


class QueryDecoder(Generic[T]):
    """A decoder of query strings into a Struct. Unknown, repeated and badly typed names are an `invalid_request`."""

    __slots__ = ("_empty", "_kind", "_readers")

    def __init__(self, kind: type[T]) -> None:
        self._kind = kind
        fields = msgspec.structs.fields(kind)  # type: ignore[arg-type]
        self._readers = {field.encode_name: text_reader(field.type) for field in fields}
        self._empty = _default(kind)

    def decode(self, items: Sequence[tuple[str, str]]) -> T:
        """Return the value of the decoded pairs of a query string."""
        if not items and self._empty is not None:
            return self._empty
        found: dict[str, Any] = {}
        for name, value in items:
            if name not in self._readers:
                known = ", ".join(sorted(self._readers)) or "none"
                raise Refusal(
                    "invalid_request", f"The query parameter {_shown(name)} is not known. Known: {known}."
                )
            if name in found:
                raise Refusal("invalid_request", f"The query parameter {name} is given more than once.")
            check_text(value, f"The query parameter {name}")
            found[name] = self._readers[name](value)
        try:
            return msgspec.convert(found, self._kind, dec_hook=read_custom)
        except msgspec.ValidationError as error:
            refusal = explained(error, root="query parameter")
            if any(isinstance(value, str) and _LOST_PLUS.search(value) for value in found.values()):
                hint = "A plus sign in a query is a blank: write it as %2B, or end the time with Z."
                refusal = Refusal(refusal.code, f"{refusal.detail} {hint}", **refusal.extra)
            raise refusal from None


# A decoder is made of its type alone, and takes longer to make than to use.
body_decoder = functools.cache(BodyDecoder)
query_decoder = functools.cache(QueryDecoder)


@functools.cache
def text_reader(kind: Any) -> Callable[[str], Any]:
    """Return a function that makes a text from a path or query ready for a strict conversion to `kind`.

    The converter's own lax mode would read `null` as nothing, `5.0` as 5 and `0.5` as a date in 1970.
    """
    info = msgspec.inspect.type_info(kind)
    plain = info.type if isinstance(info, msgspec.inspect.Metadata) else info
    kinds = plain.types if isinstance(plain, msgspec.inspect.UnionType) else (plain,)
    for one in kinds:
        bare = one.type if isinstance(one, msgspec.inspect.Metadata) else one
        if isinstance(bare, msgspec.inspect.IntType):
            return lambda text: int(text) if _INTEGER.fullmatch(text) else text
        if isinstance(bare, msgspec.inspect.BoolType):
            return lambda text: _BOOLEANS.get(text, text)
    return str


def check_json(raw: bytes) -> None:
    """Refuse a body that is not JSON in the strict sense of the head of this file."""
    if bounds.too_many(raw):
        raise Refusal("invalid_request", f"The body holds more than {MAX_VALUES:,} values.")
    if bounds.too_deep(raw):
        _too_deep()
    try:
        tree = orjson.loads(raw)
        plain = orjson.dumps(tree)
    except orjson.JSONDecodeError as error:
        _malformed(error)
    # A key that came twice was parsed once, so its colon is missing in the new document. Colons in texts count the same
    # on both sides, unless the body has one as an escape.
    if raw.count(b":") != plain.count(b":") or b"\\u003" in raw:
        refuse_duplicates(raw, plain)
    if _has_control_characters(plain):
        if bounds.too_many(raw, MAX_SEARCHED_VALUES):
            raise Refusal("invalid_request", "A text in the body holds a control character.")
        _refuse_control_characters(tree, "$")


def check_text(text: str, subject: str) -> None:
    """Refuse control characters (C0, DEL, C1): PostgreSQL cannot store U+0000, and no reader wants the rest."""
    found = _CONTROL.search(text)
    if found is not None:
        raise Refusal("invalid_request", f"{subject} holds the control character U+{ord(found.group()):04X}.")


def check_json_headers(headers: CIMultiDictProxy[str]) -> None:
    """Refuse a body whose Content-Type is other than JSON in UTF-8. A body without one is accepted."""
    media_type = headers.get(hdrs.CONTENT_TYPE)
    if media_type is None or media_type == "application/json":
        return
    essence, _, parameters = media_type.partition(";")
    if essence.strip().lower() != "application/json":
        raise Refusal(
            "unsupported_media_type", f"The body must be application/json; it came as {_shown(media_type)}."
        )
    for parameter in parameters.split(";"):
        name, _, value = parameter.partition("=")
        if name.strip().lower() == "charset" and value.strip(' "').lower() not in ("utf-8", "utf8"):
            raise Refusal("unsupported_media_type", "The body must be encoded in UTF-8.")


def body_at_hand(request: web.Request, limit: int) -> bytes | None:
    """Return the body if all of it has arrived, without a wait and a timer; None if it has not.

    Refusals: `payload_too_large`, `unsupported_media_type` (a compressed body).
    """
    if not request.body_exists:
        return b""
    if hdrs.CONTENT_ENCODING in request.headers:
        raise Refusal("unsupported_media_type", "Compressed bodies are not accepted; send the body as it is.")
    content = request.content
    if not content.is_eof() or content.exception() is not None:
        return None
    # A body in one piece, as most are, is taken as it lies there. The public call would look at the connection's flow,
    # four calls deep; here nothing follows that could be held back.
    pieces = content._buffer  # noqa: SLF001 - the tests of bodies hold that it exists
    if len(pieces) == 1 and not content._buffer_offset:  # noqa: SLF001
        raw = pieces[0]
        if len(raw) > limit:
            raise _too_large(limit)
        return bytes(raw)
    raw = content.read_nowait()
    while not content.at_eof():
        raw += content.read_nowait()
    if len(raw) > limit:
        raise _too_large(limit)
    return raw


async def read_body(request: web.Request, limit: int) -> bytes:
    """Return at most `limit` bytes, read as they arrive; the bound holds for chunked bodies, too.

    Refusals: `payload_too_large`, `request_timeout`, `invalid_request` (a body whose framing broke).
    """
    length = request.content_length
    if length is not None and length > limit:
        raise _too_large(limit)
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_TIMEOUT_SECONDS):
            while chunk := await request.content.readany():
                body += chunk
                if len(body) > limit:
                    raise _too_large(limit)
    except TimeoutError:
        raise Refusal(
            "request_timeout", f"The body did not arrive within {BODY_TIMEOUT_SECONDS:g} seconds."
        ) from None
    except web.RequestPayloadError:
        raise Refusal("invalid_request", "The body ended early or its framing is broken.") from None
    return bytes(body)


def authorization_of(headers: CIMultiDictProxy[str]) -> tuple[str, str] | None:
    """Return the scheme, in lower case, and the token of the Authorization header; None where there is none."""
    value = headers.get(hdrs.AUTHORIZATION)
    if value is None:
        return None
    scheme, _, token = value.partition(" ")
    return scheme.lower(), token.strip()


def path_text(request: web.Request, name: str) -> str:
    """Return the text that stands in the path for `name`. Raises Refusal `invalid_request` for control characters."""
    text = request.match_info[name]
    check_text(text, f"{name} in the path")
    return text


def _default(kind: type[T]) -> T | None:
    try:
        return msgspec.convert({}, kind)
    except msgspec.ValidationError:
        return None


def _too_large(limit: int) -> Refusal:
    return Refusal("payload_too_large", f"The body is larger than {limit} bytes.", limit_bytes=limit)


def _too_deep() -> NoReturn:
    raise Refusal("malformed_json", f"The body is nested deeper than {MAX_DEPTH} levels.")


def _malformed(error: orjson.JSONDecodeError) -> NoReturn:
    reason = "it is not encoded in UTF-8" if "UTF-8" in error.msg and "BOM" not in error.msg else str(error)
    if "depth limit" in error.msg:
        _too_deep()
    raise Refusal("malformed_json", f"The body is not valid JSON: {reason}.") from None


def refuse_duplicates(raw: bytes, plain: bytes) -> None:
    """Raise Refusal `duplicate_json_key` if an object of `raw` has a key twice; `plain` is `raw`, written again."""
    if bounds.pairs(raw) == bounds.pairs(plain):
        return
    if bounds.too_many(raw, MAX_SEARCHED_VALUES):
        raise Refusal("duplicate_json_key", "A key occurs twice in one object.")

    def check(found: list[tuple[str, Any]]) -> None:
        seen: set[str] = set()
        for name, _ in found:
            if name in seen:
                raise Refusal("duplicate_json_key", f"The key {_shown(name)} occurs twice in one object.")
            seen.add(name)

    # The first parser has read the numbers already, so this one spends no time on them.
    json.loads(raw, object_pairs_hook=check, parse_int=len, parse_float=len)


def _has_control_characters(plain: bytes) -> bool:
    r"""Whether orjson's output holds one. orjson escapes the C0 controls, and else only `"` and the backslash."""
    return (
        b"\x7f" in plain
        or (b"\\" in plain and b"\\" in plain.replace(b"\\\\", b"").replace(b'\\"', b""))
        or (b"\xc2" in plain and _C1_CONTROL.search(plain) is not None)
    )


def _refuse_control_characters(tree: Any, path: str) -> None:
    """Refuse by the name of the text that holds a control character. The depth of `tree` is bounded before."""
    if isinstance(tree, str):
        check_text(tree, path)
    elif isinstance(tree, list):
        for index, value in enumerate(tree):
            _refuse_control_characters(value, f"{path}[{index}]")
    elif isinstance(tree, dict):
        for name, value in tree.items():
            check_text(name, f"A key of {path}")
            _refuse_control_characters(value, f"{path}.{name}")


def explained(error: msgspec.ValidationError, root: str = "") -> Refusal:
    """Return msgspec's finding as a sentence that begins with the place: a path into the body, or `root` and a name."""
    text = str(error)
    if (
        len(text) > 3 * MAX_SHOWN
    ):  # a message quotes a stranger's name of any length; its place stands at the end
        text = text[: 2 * MAX_SHOWN] + text[-MAX_SHOWN:]
    found = _MSGSPEC_ERROR.fullmatch(text)
    what, path = (found["what"], found["path"] or "$") if found else (text, "$")
    if len(what) > MAX_SHOWN:
        what = f"{what[:MAX_SHOWN]}..."
    if wrong := _WRONG_TYPE.fullmatch(what):
        kinds = [_NAMES.get(kind, kind) for kind in wrong["expected"].split(" | ")]
        what = f"expected {' or '.join(kinds)}, got {_NAMES.get(wrong['got'], wrong['got'])}"
        if wrong["got"] == "float" and path.endswith("amount"):
            what = (
                "the amount must be an integer in the minor unit, got a number with a fraction or an exponent"
            )
    elif bound := _BOUND.fullmatch(what):
        what = f"expected {_NAMES.get(bound['type'], bound['type'])} {bound['bound']}"
    else:
        what = what[:1].lower() + what[1:]
    where = f"{root} {path.removeprefix('$.')}".removesuffix(" $") if root else path
    if found and found["key"]:
        where = f"a name in {where}"
    return Refusal("invalid_request", f"{where}: {what}.", path=path)


def _shown(text: str) -> str:
    """Return a stranger's text for a sentence: quoted, escaped, at most 80 characters."""
    return json.dumps(text if len(text) <= 80 else text[:77] + "...")
