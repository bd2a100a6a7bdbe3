"""The question of one request to the guard's script (`guard.lua`), and the script's reply."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from core.access.rates import Limit

ADMITTED, MARKED, REFUSED, FOUND = range(4)  # as in guard.lua

# The objects of one request are Structs, because one is made in a third of the time of a named tuple or a class.


class Question(msgspec.Struct, gc=False):
    """One request's question to the script: its buckets and the name and mark of its key, empty where it has none."""

    key_bucket: str = ""
    address_bucket: str = ""
    cost: int = 0
    name: str = ""
    mark: str = ""
    # The key's bucket has this limit where it is not that of all API keys.
    own_limit: Limit | None = None


class Reply(msgspec.Struct, gc=False):
    """The script's reply: the microseconds that the buckets lack, and with FOUND the value under the key."""

    verdict: int
    key_fill_us: int
    address_fill_us: int
    found: bytes = b""


def replies_of(reply: list[Any], count: int) -> list[Reply]:
    """Return the replies to `count` questions that the script's one reply holds."""
    found = iter(reply[3 * count :])
    return [
        Reply(reply[at], reply[at + 1], reply[at + 2], next(found) or b"" if reply[at] == FOUND else b"")
        for at in range(0, 3 * count, 3)
    ]
