"""Account codes to ids. A code, its id and its currency never change, so what was seen once may be kept."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from core.database import statements

if TYPE_CHECKING:
    from collections.abc import Iterable

    from core.database import Connection, Database

SQL = statements("ledger")
# About 35 MB. When it is full the oldest makes room.
MAX_KNOWN = 150_000


class Known(NamedTuple):
    """What never changes of an account."""

    id: int
    currency: str


class Directory:
    """A bounded memory of accounts; unknown codes are asked for again each time, since they may be opened meanwhile."""

    def __init__(self) -> None:
        self._known: dict[str, Known] = {}

    async def resolve(self, source: Connection | Database, codes: Iterable[str]) -> dict[str, Known]:
        """Return the accounts of these codes; codes that do not exist are missing in the answer."""
        known = self._known
        missing = []
        found = {}
        for code in codes:
            account = known.get(code)
            if account is None:
                missing.append(code)
            else:
                found[code] = account
        if missing:
            for row in await source.fetch(SQL.find_accounts, missing):
                found[row["code"]] = self._learn(row["code"], row["id"], row["currency"])
        return found

    async def codes(self, source: Connection | Database, ids: Iterable[int]) -> dict[int, str]:
        """Return the codes of these ids."""
        return {row["id"]: row["code"] for row in await source.fetch(SQL.account_codes, list(ids))}

    def _learn(self, code: str, id_: int, currency: str) -> Known:
        if len(self._known) >= MAX_KNOWN:
            del self._known[next(iter(self._known))]
        account = self._known[code] = Known(id_, currency)
        return account
