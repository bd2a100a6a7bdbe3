"""Lookups of rows by key, with the keys of many callers in one statement: cheap like a cache, and never stale."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, TypeVar

from core.lane import Lane

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from core.database import Database, Query, Row

Found = TypeVar("Found")

# So many keys take about a millisecond of the database.
MAX_BATCH = 256
MAX_WAITING = 20_000


class Lookup(Generic[Found]):
    """A lane of lookups. `statement` takes an array for each part of a key; its rows have the key's `place` from 1."""

    def __init__(self, database: Database, statement: Query, read: Callable[[Row], Found]) -> None:
        self._database = database
        self._statement = statement
        self._read = read
        self._lane: Lane[tuple[Any, ...], Found | None] = Lane(
            self._send, max_batch=MAX_BATCH, max_waiting=MAX_WAITING, patience=0, name=statement.name
        )

    async def find(self, *key: Any) -> Found | None:
        """Return the row of `key`, or None. Raises Unavailable, and Refusal `overloaded`."""
        return await self._lane.submit(key)

    async def close(self) -> None:
        """Refuse new keys, and answer those that were accepted."""
        await self._lane.close()

    async def _send(self, keys: Sequence[tuple[Any, ...]]) -> list[Found | None]:
        columns = [list(column) for column in zip(*keys, strict=True)]
        found: list[Found | None] = [None] * len(keys)
        for row in await self._database.fetch(self._statement, *columns):
            found[row["place"] - 1] = self._read(row)
        return found
