"""A ledger as a test drives it: postings by short keys, and the owner's hand in the database."""

from __future__ import annotations

import asyncpg

from core.database import Row
from core.ledger import accounts, holds, transfers
from core.ledger.accounts import Account, Limits, Opening
from core.ledger.holds import StoredHold
from core.ledger.items import Condition, Leg, Operation, Outcome, Posting, operation_id
from core.ledger.posting import EffectiveSpan, post
from core.ledger.sealing import seal_once
from core.ledger.verify import Finding, verify
from core.service import Service

PRINCIPAL = 1
Pair = tuple[str, int]


def posting(key: str, *legs: Pair, **more: object) -> Posting:
    """A posting under `key`: pairs of account and amount."""
    fields = {"principal_id": PRINCIPAL, "legs": tuple(Leg(*leg) for leg in legs), **more}
    return Posting(id=operation_id(PRINCIPAL, key), **fields)  # type: ignore[arg-type] # a test's own fields


def pay(key: str, source: str, destination: str, amount: int, **more: object) -> Posting:
    """A transfer of `amount` from one account to another."""
    return posting(key, (source, -amount), (destination, amount), **more)


def condition(
    account: str,
    version: int | None = None,
    at_least: int | None = None,
    at_most: int | None = None,
    **more: int,
) -> Condition:
    return Condition(account, version, at_least, at_most, **more)


def codes(outcomes: list[Outcome]) -> list[str]:
    """What became of each; a repeated key's outcome is marked."""
    return [f"{'again ' if outcome.replayed else ''}{outcome.kind.code}" for outcome in outcomes]


class Book:
    """One service on a database of its own. `owner` is a connection that may do anything to it."""

    def __init__(self, service: Service, owner: asyncpg.Connection[Row]) -> None:
        self.service = service
        self.database = service.database
        self.poster = service.ledger.poster
        self.owner = owner

    async def open(self, *codes: str, currency: str = "USD", **limits: int | None) -> None:
        """Open accounts; without limits they have the default floor of zero."""
        openings = [Opening(code, currency, Limits(**limits)) for code in codes]
        opened = await accounts.open_accounts(self.database, openings, PRINCIPAL)
        assert all(opened.values()), opened

    async def fund(self, amount: int, *codes: str) -> None:
        """Give each account `amount` from the account `cash`, which is opened if it is not there."""
        await accounts.open_accounts(self.database, [Opening("cash", "USD", Limits(floor=None))], PRINCIPAL)
        outcomes = await self.post(*(pay(f"fund:{code}", "cash", code, amount) for code in codes))
        assert all(outcome.posted for outcome in outcomes), outcomes

    async def post(self, *postings: Posting) -> list[Outcome]:
        """Post as one client's batch through the lane."""
        return await self.poster.submit_many(postings)

    async def one(self, item: Posting) -> Outcome:
        return (await self.post(item))[0]

    async def call(
        self, *postings: Posting, dry_run: bool = False, effective_span: EffectiveSpan | None = None
    ) -> list[Outcome]:
        """Post as one call of the posting function, beside the lane."""
        return await post(self.database, postings, dry_run=dry_run, effective_span=effective_span)

    async def account(self, code: str) -> Account:
        return await accounts.get_account(self.database, code)

    async def balances(self, *codes: str) -> list[int]:
        return [(await self.account(code)).balance for code in codes]

    async def hold(self, key: str, *legs: Pair, **more: object) -> StoredHold:
        """Make a hold that must succeed."""
        outcome = await self.one(posting(key, *legs, operation=Operation.HOLD, **more))
        assert outcome.posted, outcome
        return await self.stored(key)

    async def stored(self, key: str) -> StoredHold:
        return await holds.get_hold(self.database, operation_id(PRINCIPAL, key))

    async def capture(self, key: str, hold: StoredHold, amount: int | None = None) -> Outcome:
        return await self.one(
            holds.capture(hold, id_=operation_id(PRINCIPAL, key), principal_id=PRINCIPAL, amount=amount)
        )

    async def void(self, key: str, hold: StoredHold) -> Outcome:
        return await self.one(holds.void(hold, id_=operation_id(PRINCIPAL, key), principal_id=PRINCIPAL))

    async def reversal(self, key: str, original: str, amount: int | None = None) -> Posting:
        return await transfers.prepare_reversal(
            self.database,
            operation_id(PRINCIPAL, original),
            id_=operation_id(PRINCIPAL, key),
            principal_id=PRINCIPAL,
            amount=amount,
        )

    async def reverse(self, key: str, original: str, amount: int | None = None) -> Outcome:
        return await self.one(await self.reversal(key, original, amount))

    async def seal(self) -> int:
        """Seal all that has committed; return how many batches that were."""
        sealed = 0
        while found := await seal_once(self.database):
            sealed += found
        return sealed

    async def faults(self) -> list[Finding]:
        """What `verify` finds."""
        return await verify(self.database)
