"""The ledger as the rest of the service sees it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from core.ledger.posting import post

if TYPE_CHECKING:
    from collections.abc import Sequence

    from core.database import Connection, Database
    from core.ledger.items import Outcome, Posting
    from core.ledger.poster import Poster


class Ledger:
    """The lane for those who post alone, and the same function for those who post within their own transaction.

    Reads and account management are functions of `core.ledger.accounts`, `transfers`, `holds` and `feed`.
    """

    __slots__ = ("database", "poster")

    def __init__(self, database: Database, poster: Poster) -> None:
        self.database = database
        self.poster = poster

    async def post_within(self, connection: Connection, postings: Sequence[Posting]) -> list[Outcome]:
        """Post as part of the transaction of `connection`: after its own locks, before its commit."""
        return await post(connection, postings)
