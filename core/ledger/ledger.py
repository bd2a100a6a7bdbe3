"""The ledger as the rest of the service sees it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from core.ledger.poster import locked_accounts
from core.ledger.posting import post, post_and_finish
from core.work.retries import repeated

if TYPE_CHECKING:
    from collections.abc import Sequence

    from core.database import Connection, Database, Row
    from core.ledger.items import Delivering, Finishing, Outcome, Posting
    from core.ledger.poster import Poster


class Ledger:
    """The ways to post: through the lane, within the caller's own transaction, or as a worker applies events.

    Reads and account management are functions of `core.ledger.accounts`, `transfers`, `holds` and `feed`.
    """

    __slots__ = ("database", "poster")

    def __init__(self, database: Database, poster: Poster) -> None:
        self.database = database
        self.poster = poster

    async def post_within(self, connection: Connection, postings: Sequence[Posting]) -> list[Outcome]:
        """Post within the transaction of `connection`, after its own locks and before its commit."""
        return await post(connection, postings)

    async def post_finishing(
        self, postings: Sequence[Posting], finishing: Finishing, delivering: Delivering | None = None
    ) -> tuple[list[Outcome], list[Row]]:
        """Post in one transaction that finishes the events of a claim, too.

        Where it may be `delivering`, the rows of `outbox_deliver` come behind the outcomes: none if nothing was.
        Raises ClaimGoneError when the claim is gone; and Unavailable, with the code `busy` where rows are locked.
        """
        return await repeated(lambda: post_and_finish(self.database, postings, finishing, delivering))

    async def locked(self, postings: Sequence[Posting]) -> set[str]:
        """Return the codes of the accounts of these items whose rows another transaction has locked at this moment."""
        return await locked_accounts(self.database, postings)
