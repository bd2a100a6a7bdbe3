"""Settling: payouts and fees of a provider's report settle its clearing account, each once by the id of its row.

A clearing account's negative balance is the provider's debt. A payout brings the money to our bank, and a fee that
belongs to no payment is kept by the provider: both make the debt less. Our bank's account and the fees are negative for
the same reason, as everything is that others hold or that was spent.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Final, NamedTuple

from core.ledger.accounts import Limits, Opening, open_accounts
from core.ledger.items import SYSTEM_PRINCIPAL, Leg, Posting, operation_id
from core.ledger.posting import post
from core.payments.accounts import clearing_account
from core.payments.reports.mapping import Part
from core.work.retries import in_transaction

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from core.database import Connection, Database
    from core.ledger.items import Outcome
    from core.payments.reports.reading import Line

# One transaction has so many postings; a killed run has done whole ones and goes on by the same ids.
BATCH: Final = 200


class Settled(NamedTuple):
    """A payout or a fee, and its fate: `posted`, `known` from a run before, `planned`, or the code of a refusal."""

    line: int
    part: str
    row: str
    amount: int
    currency: str
    fate: str


def bank_account(currency: str) -> str:
    """Return the code of the account of our bank, whose negative balance is the money there."""
    return f"system:bank:{currency}"


def fees_account(currency: str) -> str:
    """Return the code of the account of fees that belong to no payment; its negative balance is what they cost."""
    return f"system:provider_fees:{currency}"


async def settle(database: Database, provider: str, lines: Iterable[Line], *, dry_run: bool) -> list[Settled]:
    """Post the payouts and fees of a report, and return the fate of each."""
    wanted = (line for line in lines if line.part in {Part.PAYOUT, Part.FEE} and line.amount)
    found: list[Settled] = []
    while batch := list(itertools.islice(wanted, BATCH)):
        if dry_run:
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
    return found


def _settled(line: Line, fate: str) -> Settled:
    return Settled(line.line, line.part, line.row, line.amount, line.currency, fate)


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
