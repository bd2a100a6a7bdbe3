"""Settling: payouts and fees of a provider's report settle its clearing account, each once by the id of its row.

A clearing account's negative balance is the provider's debt. A payout brings the money to our bank, and a fee that
belongs to no payment is kept by the provider: both make the debt less. Our bank's account and the fees are negative for
the same reason, as everything is that others hold or that was spent.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Final, NamedTuple

from core.errors import Refusal
from core.ledger.accounts import Limits, Opening, list_accounts, open_accounts
from core.ledger.items import SYSTEM_PRINCIPAL, Leg, Posting, operation_id
from core.ledger.posting import post
from core.payments.accounts import clearing_account
from core.payments.reports.mapping import Part
from core.providers.known import NAMES
from core.work.retries import in_transaction

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from core.database import Connection, Database
    from core.ledger.items import Outcome
    from core.payments.reports.reading import Line

# One transaction has so many postings; a killed run has done whole ones and goes on by the same ids.
BATCH: Final = 200
SETTLED: Final = frozenset({Part.PAYOUT, Part.FEE})
UNREADABLE: Final = "unreadable"


class Settled(NamedTuple):
    """A payout or a fee, and its fate: `posted`, `known` from a run before, `planned`, or the code of a refusal.

    A row that cannot be read may be one: its fate is `unreadable`, for the reason `problem`.
    """

    line: int
    part: str
    row: str
    amount: int
    currency: str
    fate: str
    problem: str | None = None


def bank_account(currency: str) -> str:
    """Return the code of the account of our bank, whose negative balance is the money there."""
    return f"system:bank:{currency}"


def fees_account(currency: str) -> str:
    """Return the code of the account of fees that belong to no payment; its negative balance is what they cost."""
    return f"system:provider_fees:{currency}"


async def settle(database: Database, provider: str, lines: Iterable[Line], *, dry_run: bool) -> list[Settled]:
    """Post the payouts and fees of a report, and return the fate of each, of unreadable rows too, in their order.

    Raises Refusal `invalid_request` for a provider that nobody knows and that has no clearing account.
    """
    if provider not in NAMES and not await list_accounts(
        database, prefix=clearing_account(provider, ""), limit=1
    ):
        raise Refusal("invalid_request", f"No provider {provider!r} is known, and none has had money here.")
    wanted = (line for line in lines if line.problem or (line.part in SETTLED and line.amount))
    found: list[Settled] = []
    while read := list(itertools.islice(wanted, BATCH)):
        found += [_settled(line, UNREADABLE) for line in read if line.problem]
        batch = [line for line in read if not line.problem]
        if dry_run or not batch:
            found += [_settled(line, "planned") for line in batch]
            continue
        codes = {code: line.currency for line in batch for code in _accounts(provider, line)}
        openings = [Opening(code, currency, Limits(floor=None)) for code, currency in sorted(codes.items())]
        await open_accounts(database, openings, SYSTEM_PRINCIPAL)
        postings = [_posting(provider, line) for line in batch]

        async def post_all(connection: Connection, postings: Sequence[Posting] = postings) -> list[Outcome]:
            return await post(connection, postings)

        outcomes = await in_transaction(database, post_all)
        found += [_settled(line, _fate(one)) for line, one in zip(batch, outcomes, strict=True)]
    return sorted(found, key=lambda one: one.line)


def _settled(line: Line, fate: str) -> Settled:
    return Settled(line.line, line.part, line.row, line.amount, line.currency, fate, line.problem)


def _fate(outcome: Outcome) -> str:
    if not outcome.posted:
        return outcome.kind.code
    return "known" if outcome.replayed else "posted"


def _accounts(provider: str, line: Line) -> tuple[str, str]:
    other = bank_account if line.part == Part.PAYOUT else fees_account
    return clearing_account(provider, line.currency), other(line.currency)


def _posting(provider: str, line: Line) -> Posting:
    clearing, other = _accounts(provider, line)
    kind = f"provider.{line.part}"
    return Posting(
        operation_id(SYSTEM_PRINCIPAL, f"{kind}:{provider}:{line.row}"),
        SYSTEM_PRINCIPAL,
        (Leg(other, -line.amount), Leg(clearing, line.amount)),
        kind=kind,
        currency=line.currency,
        reference=line.row,
        metadata={"provider": provider},
        unfrozen=True,
        identity=(kind, line.row, line.amount, line.currency),
    )
