"""What may come to the routes of webhooks: bodies and headers, honest, bent, and from nowhere.

Everything is drawn from a `random.Random`: hypothesis gives one that it can shrink, and a seed one that is fast.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from random import Random
from typing import Any

Headers = dict[str, str]

# A header arrives as text in which bytes that are no UTF-8 are lone surrogates.
WORDS = (
    "", "0", "-1", "v1", "v1,", "v1=", "t=1,v1=", "=", ",", " ", "\t", "é", "１", "\udcff", "\x7f", "A" * 44, "f" * 64,
    "9" * 400, "2026-11-21T16:00:00Z", "0001-01-01T00:00:00+14:00", "%00", "|", ".", "..", "//", "\ud800", "a, b",
)  # fmt: skip
VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 5, 2**31, 2**63, 2**64, 10**30, 1.5, -0.0, 1e308, "", "x", "x" * 255, "x" * 256,
    "é" * 128, "\x00", "\ud800", "\u2028", "2026-11-21", "2026-11-21 16:00:00", "9999-12-31T23:59:59-14:00", "1" * 30,
    [], {}, [[]], {"id": "x"}, {"object": 5}, {"object": {"id": []}}, {"": ""}, [{"n": None}],
    {"supplementary_data": {"related_ids": 1}},
)  # fmt: skip


def body(random: Random, event: Mapping[str, Any]) -> bytes:
    """Bytes, or an event of which some fields are something else or missing, cut or bent here and there."""
    if random.randrange(6) == 0:
        return random.randbytes(random.randrange(100))
    fields = dict(event)
    for name in random.sample(sorted(fields), random.randrange(min(4, len(fields)))):
        if random.randrange(3):
            fields[name] = random.choice(VALUES)
        else:
            del fields[name]
    text = json.dumps(fields, ensure_ascii=random.randrange(2) == 0)
    return bent(random, text.encode("utf-8", "surrogatepass"))


def bent(random: Random, raw: bytes) -> bytes:
    """`raw`, mostly as it is, else with one piece cut out and another one put in."""
    if random.randrange(4):
        return raw
    at = random.randrange(len(raw) + 1)
    return raw[:at] + random.randbytes(random.randrange(6)) + raw[at + random.randrange(8) :]


def headers(random: Random, honest: Headers) -> Headers:
    """The honest headers, mostly; else some of them missing, doubled, bent, or something else."""
    found = dict(honest)
    if random.randrange(3):
        return found
    for name in random.sample(sorted(found), 1 + random.randrange(min(2, len(found)))):
        value = found[name]
        at = random.randrange(len(value) + 1)
        match random.randrange(5):
            case 0:
                del found[name]
            case 1:
                found[name] = f"{value},{value}"
            case 2:
                found[name] = value[:at] + random.choice(WORDS) + value[at + 1 :]
            case 3:
                found[name] = value[:at] + chr(random.randrange(1, 0x250)) + value[at + 1 :]
            case _:
                found[name] = random.choice(WORDS)
    return found
