"""The shape of a JSON body, found in its bytes before Python makes a value of any of them.

A small body can hold many values: 1 MiB of `[[],[],…]` is 350,000 lists, and a look at each takes seconds in which the
process answers nobody. So the counts are made by work that stays in C, and never walks.
"""

from __future__ import annotations

import re
from typing import Final

# Objects and lists that may stand around a value: more than any document of ours needs. Few other tools can read a
# document that is nested as deep as the parser's own bound of 1,024.
MAX_DEPTH: Final = 32
# Values in a body: as many as a batch of 5,000 transfers with all their parts and metadata needs.
MAX_VALUES: Final = 300_000

_MARKS: Final = b'"[]{},:'
_ALL_BUT_MARKS: Final = bytes(byte for byte in range(256) if byte not in _MARKS)
_ONE_KIND: Final = bytes.maketrans(b"{}", b"[]")
_TEXT: Final = re.compile(rb'"[^"]*"?')


def too_many(raw: bytes, most: int = MAX_VALUES) -> bool:
    """Whether `raw` holds more than `most` values. Each list, object and comma stands for one.

    Commas and brackets in texts are no values, but as many again as `most` would take too long to tell apart.
    """
    if len(raw) <= most:
        return False
    marks = _count(raw)
    return marks > 2 * most or (marks > most and _count(skeleton(raw)) > most)


def too_deep(raw: bytes) -> bool:
    """Whether more than MAX_DEPTH lists and objects stand around each other. A cut body is left to the parser."""
    if raw.count(b"[") + raw.count(b"{") <= MAX_DEPTH:
        return False
    brackets = skeleton(raw).translate(None, b",:")
    for _ in range(MAX_DEPTH):
        # Each turn takes the innermost pairs away.
        fewer = brackets.replace(b"[]", b"")
        if len(fewer) == len(brackets):
            break
        brackets = fewer
    openings = brackets.count(b"[")
    return openings > (0 if 2 * openings == len(brackets) else MAX_DEPTH)


def pairs(raw: bytes) -> int:
    """Return the number of keys in all objects of valid JSON."""
    return skeleton(raw).count(b":")


def skeleton(raw: bytes) -> bytes:
    """Return the brackets, commas and colons of a body, without those in texts; braces have become brackets."""
    if b"\\" in raw:
        raw = raw.replace(b"\\\\", b"").replace(b'\\"', b"")
    # Most texts hold no such mark: two quotes are left of them.
    found = raw.translate(_ONE_KIND, _ALL_BUT_MARKS).replace(b'""', b"")
    return _TEXT.sub(b"", found) if b'"' in found else found


def _count(marks: bytes) -> int:
    return marks.count(b",") + marks.count(b"[") + marks.count(b"{")
