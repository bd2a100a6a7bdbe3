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
    """The two ways to post: through the lane, or within the caller's own transaction.

    Reads and account management are functions of `core.ledger.accounts`, `transfers`, `holds` and `feed`.
    """

    __slots__ = ("database", "poster")

    def __init__(self, database: Database, poster: Poster) -> None:
        self.database = database
        self.poster = poster

    async def post_within(self, connection: Connection, postings: Sequence[Posting]) -> list[Outcome]:
        """Post within the transaction of `connection`, after its own locks and before its commit."""
        return await post(connection, postings)
