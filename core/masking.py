"""Masking takes personal data and secrets out of log lines, by the shape of a value and by the name of its key."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

MASKED = "***MASKED***"
TOO_DEEP = "***DEEP***"
CUT = "…"
# No line of ours is deeper or longer, and a hostile body that is logged by mistake costs no more than this.
MOST_DEPTH = 8
MOST_CHARACTERS = 16_384
MOST_ITEMS = 200

_SECRET_NAME = re.compile(r"password|secret|token|key|auth|signature|credential|private", re.IGNORECASE)
# Each pattern begins behind a lookbehind, so that a long run of one kind is scanned once and not from every position.
_SHAPES = (
    # URLs come first, since the rest of a password could look like an address. A URL's next slash ends a run.
    (re.compile(r"(://[^\s/:@]*:)[^\s/\"]+@"), rf"\1{MASKED}@"),
    (re.compile(r"(?<![\w.%+-])[\w.%+-]+@[\w-]+(?:\.[\w-]+)+"), "***EMAIL***"),
    (re.compile(r"(?i)(?<!\w)(bearer)\s+[\w.~+/=-]+"), r"\1 ***TOKEN***"),
    # A user's token, wherever it stands.
    (re.compile(r"(?<![\w-])eyJ[\w-]{6,}\.[\w-]{6,}(?:\.[\w-]*)?"), "***TOKEN***"),
    # A pair of a query, of a form or of a server's words about a login.
    (re.compile(r"(?i)(?<!\w)(\w*(?:password|secret|token|signature|key)=)[^\s&\"',;]+"), rf"\1{MASKED}"),
    # The secret of an API key of ours may hold a hyphen.
    (re.compile(r"(?<![A-Za-z0-9])tsk_[\w-]{8,}"), "***TOKEN***"),
    (re.compile(r"(?<![A-Za-z0-9])(?:sk|pk|tk|rk|whsec)_[A-Za-z0-9_]{8,}[A-Za-z0-9_+/=]*"), "***TOKEN***"),
    (re.compile(r"(?<![A-Za-z0-9])[A-Za-z0-9]{40,}"), "***TOKEN***"),
    (re.compile(r"(?<![\w-])\d{4}[ -]?\d{4}[ -]?\d{4}[ -]?\d{4}(?![\w-])"), "***CARD***"),
    (re.compile(r"(?<![\w-])\d{4}[ -]?\d{6}[ -]?\d{5}(?![\w-])"), "***CARD***"),
    (re.compile(r"(?<!\w)(?:\+|00)\d(?:[ -]?\d){6,14}(?!\d)"), "***PHONE***"),
)
# Every text that a shape may match has one of these signs: one look tells of most texts that nothing is to be masked.
_SIGNS = re.compile(r"[@_=]|(?i:bearer)|eyJ|\d{4}|(?:\+|00)\d|(?<![A-Za-z0-9])[A-Za-z0-9]{40}")


def mask_text(text: str) -> str:
    """Return `text` without e-mails, phones, card numbers and tokens, cut in its middle to MOST_CHARACTERS."""
    if len(text) > MOST_CHARACTERS:
        # The end stays, because the last lines of a traceback say most.
        text = f"{text[: MOST_CHARACTERS // 2]}{CUT}{text[-MOST_CHARACTERS // 2 :]}"
    if _SIGNS.search(text) is None:
        return text
    for shape, mask in _SHAPES:
        text = shape.sub(mask, text)
    return text


def mask(value: Any, depth: int = 0) -> Any:
    """Return `value` with every text masked, through dicts, lists and tuples down to MOST_DEPTH."""
    if isinstance(value, str):
        return mask_text(value)
    if isinstance(value, bytes):
        return mask_text(value[:MOST_CHARACTERS].decode("utf-8", "backslashreplace"))
    if not isinstance(value, dict | list | tuple | set | frozenset):
        return value
    if depth >= MOST_DEPTH:
        return TOO_DEEP
    if isinstance(value, dict):
        return mask_fields(value, depth)
    return [mask(item, depth + 1) for _, item in zip(range(MOST_ITEMS), value, strict=False)]


def mask_fields(fields: Mapping[Any, Any], depth: int = 0) -> dict[str, Any]:
    """Return `fields` with the values of telling names hidden whole, and the others masked by their shape."""
    return {
        str(name): MASKED if value and _SECRET_NAME.search(str(name)) else mask(value, depth + 1)
        for _, (name, value) in zip(range(MOST_ITEMS), fields.items(), strict=False)
    }
