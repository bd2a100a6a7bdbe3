"""The strict reader agrees with slow, obvious readers on every document."""

import json
import tracemalloc
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from core.errors import Refusal
from handlers.http.bounds import MAX_DEPTH, MAX_VALUES
from handlers.http.decoding import BodyDecoder, QueryDecoder, check_json

# Few distinct keys, so that duplicates happen; and all that the quick checks look at.
KEYS = st.sampled_from(["a", "b", ":", '"', "\\", "a:", "é"])
TEXTS = st.text(st.sampled_from('ab:"\\/{}[], \u003a\n\t\x00\x1f\x7f\x80\x9f\xa0éж😀'), max_size=6)


class Object(list[tuple[str, Any]]):
    """An object as pairs, which may repeat a key."""


DOCUMENTS = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-(2**70), 2**70), TEXTS),
    lambda inner: (
        st.lists(inner, max_size=4) | st.lists(st.tuples(KEYS | TEXTS, inner), max_size=4).map(Object)
    ),
    max_leaves=12,
)


def written(value: Any, *, ascii_only: bool) -> str:
    if isinstance(value, Object):
        pairs = (f"{written(k, ascii_only=ascii_only)}:{written(v, ascii_only=ascii_only)}" for k, v in value)
        return "{" + ",".join(pairs) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(written(one, ascii_only=ascii_only) for one in value) + "]"
    text = json.dumps(value, ensure_ascii=ascii_only)
    return text.replace(":", "\\u003a") if ascii_only and isinstance(value, str) else text


def has_duplicates(value: Any) -> bool:
    if isinstance(value, Object):
        names = [name for name, _ in value]
        return len(set(names)) < len(names) or any(has_duplicates(inner) for _, inner in value)
    return isinstance(value, list) and any(map(has_duplicates, value))


def has_control_characters(value: Any) -> bool:
    if isinstance(value, str):
        return any(ord(c) < 32 or 127 <= ord(c) < 160 for c in value)
    if isinstance(value, Object):
        return any(has_control_characters(part) for pair in value for part in pair)
    return isinstance(value, list) and any(map(has_control_characters, value))


def code_of(raw: bytes) -> str:
    try:
        check_json(raw)
    except Refusal as refusal:
        return refusal.code
    return "accepted"


@given(DOCUMENTS, st.booleans())
@hypothesis_settings(max_examples=300, derandomize=True, database=None, deadline=None)
def test_duplicates_and_control_characters_are_found_wherever_they_are(
    document: Any,
    ascii_only: bool,  # noqa: FBT001
) -> None:
    raw = written(document, ascii_only=ascii_only).encode()
    if has_duplicates(document):
        assert code_of(raw) == "duplicate_json_key"
    elif has_control_characters(document):
        assert code_of(raw) == "invalid_request"
    else:
        assert code_of(raw) == "accepted"


@given(st.binary(max_size=40) | st.text(max_size=20).map(str.encode))
@hypothesis_settings(max_examples=300, derandomize=True, database=None, deadline=None)
def test_any_bytes_are_accepted_or_refused(raw: bytes) -> None:
    assert code_of(raw) in ("accepted", "malformed_json", "duplicate_json_key", "invalid_request")


def test_values_are_bounded_exactly() -> None:
    for values in (MAX_VALUES, MAX_VALUES + 1):
        raw = b"[" + b"1," * (values - 1) + b"1]"
        assert code_of(raw) == ("accepted" if values <= MAX_VALUES else "invalid_request")


def test_what_would_grow_out_of_proportion_is_not_written_again() -> None:
    bomb = b"[" * 250 + b"1," * 200_000 + b"1" + b"]" * 250
    tracemalloc.start()
    try:
        assert code_of(bomb) == "malformed_json"
        assert tracemalloc.get_traced_memory()[1] < 40 * len(bomb)
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(("opening", "closing"), [(b"[", b"]"), (b'{"a":', b"}")])
def test_depth_is_bounded_exactly(opening: bytes, closing: bytes) -> None:
    for depth in (1, MAX_DEPTH, MAX_DEPTH + 1, 253, 254, 255, 1024, 1025, 50_000):
        raw = opening * depth + b"1" + closing * depth
        assert code_of(raw) == ("accepted" if depth <= MAX_DEPTH else "malformed_json"), depth


class Query(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    after: int | None = None
    all: bool = False
    by: str = "time"


@given(st.dictionaries(st.sampled_from(["after", "all", "by", "other"]), st.text(max_size=25)))
@hypothesis_settings(max_examples=300, derandomize=True, database=None, deadline=None)
def test_what_a_query_says_is_what_is_read(pairs: dict[str, str]) -> None:
    try:
        found = QueryDecoder(Query).decode(tuple(pairs.items()))
    except Refusal:
        return
    assert found.after is None or str(found.after) in (pairs["after"], pairs["after"].removeprefix("-"))
    assert ("after" in pairs) == (found.after is not None)
    assert str(found.all).lower() == pairs.get("all", "false")
    assert found.by == pairs.get("by", "time")


def test_numbers_keep_every_digit() -> None:
    class Amount(msgspec.Struct, frozen=True):
        amount: int

    for number in (0, 1, -1, 2**53 + 1, 2**62 - 1, -(2**63), 2**64 + 1):
        assert BodyDecoder(Amount).decode(b'{"amount":%d}' % number).amount == number
