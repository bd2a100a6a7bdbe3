"""Reconciliation: balances against entries, transfers against their legs, and the correction of a wrong balance.

Entries are the truth: they are append-only and chained. A balance that differs from them was changed outside of the
ledger. A posting alone cannot correct the drift, since a posting moves balance and entries by the same amount. So a
correction first takes the drift out of the balance, then posts one transfer against the system account `corrections`
that puts the drift in and takes it out again. Statement, audit and sealed history then show the drift and its end.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import structlog

from core import ids, metrics
from core.audit import audited, record
from core.database import queries
from core.errors import Refusal
from core.ledger.accounts import Limits, Opening, open_accounts
from core.ledger.items import SYSTEM_PRINCIPAL, Effects, Leg, Posting
from core.ledger.posting import post
from core.ledger.verify import end_of_range
from core.wallets.books import system_account, wallet_of
from core.work.progress import Progress

if TYPE_CHECKING:
    from collections.abc import Callable
    from uuid import UUID

    from core.database import Database, Row
    from core.platform import Platform

_sql = queries(__name__)
_log = structlog.get_logger(__name__)

CORRECTIONS: Final = "corrections"
KIND: Final = "reconcile.correction"
ACTOR: Final = "system:reconcile"
# The type of the audit record that the end of each look leaves.
RECONCILED: Final = "ledger.reconciled"

# A range of this size is read in a fraction of a second, whatever the size of the ledger.
RANGE_ACCOUNTS: Final = 1_000
RANGE_BATCHES: Final = 500
RANGE_EVENTS: Final = 10_000
# The findings keep so many accounts and transfers; the rest is only counted.
MAX_KEPT: Final = 10_000
_LEAST_ENTRIES: Final = 2


class Mismatch(NamedTuple):
    """An account whose balance is not the sum of its entries, in minor units."""

    account: str
    balance: int
    ledger_sum: int

    @property
    def wallet(self) -> str:
        """The id of the wallet; for an account without a wallet its code."""
        return wallet_of(self.account) or self.account


class Issue(NamedTuple):
    """A transfer whose entries are wrong: the contract's word for the problem, and its figures."""

    transfer_id: UUID
    problem: str
    details: str


class Findings(NamedTuple):
    """The numbers of wrong accounts and transfers, and the first MAX_KEPT of each."""

    mismatch_count: int
    mismatches: list[Mismatch]
    issue_count: int
    issues: list[Issue]


class Correction(NamedTuple):
    """A correction: its account, its transfer, and the drift, the minor units that the balance was too high."""

    account: str
    transfer_id: UUID
    drift: int


async def reconcile(database: Database, on_progress: Callable[[str, int], None]) -> Findings:
    """Compare all balances with their entries, and all transfers with their legs, in short transactions.

    `on_progress` is called with a stage and the number of accounts or batches done. Raises Unavailable.
    """
    mismatches: list[Mismatch] = []
    issues: list[Issue] = []
    mismatch_count = issue_count = 0
    last: int = await database.fetchval(_sql.last_account)
    for low in range(0, last, RANGE_ACCOUNTS):
        rows = await database.fetch(_sql.wallet_mismatches, low, min(low + RANGE_ACCOUNTS, last))
        mismatch_count += len(rows)
        mismatches += [Mismatch(*row) for row in rows[: MAX_KEPT - len(mismatches)]]
        on_progress("accounts", min(low + RANGE_ACCOUNTS, last))
    batch = 0
    while (end := await end_of_range(database, batch, RANGE_BATCHES, RANGE_EVENTS)) is not None:
        rows = await database.fetch(_sql.transfer_issues, batch, end)
        issue_count += len(rows)
        issues += [_issue(row) for row in rows[: MAX_KEPT - len(issues)]]
        on_progress("batches", end)
        batch = end
    return Findings(mismatch_count, mismatches, issue_count, issues)


async def watch(platform: Platform) -> Progress:
    """Reconcile once; tell the findings to the log and the metrics. No money is changed: a person decides."""
    findings = await reconcile(platform.database, lambda _stage, _done: None)
    await remember(platform.database, findings.mismatch_count, findings.issue_count, ACTOR)
    if findings.mismatch_count or findings.issue_count:
        _log.error(
            "reconcile.found",
            balances=findings.mismatch_count,
            transfers=findings.issue_count,
            first=[mismatch.account for mismatch in findings.mismatches[:5]],
        )
    return Progress()


async def remember(database: Database, balances: int, transfers: int, actor: str) -> None:
    """Write down how many balances and transfers are wrong now, for the metrics of all processes."""
    await record(database, audited(RECONCILED, actor, {"balances": balances, "transfers": transfers}))
    metrics.RECONCILE_FINDINGS.labels("balances").set(balances)
    metrics.RECONCILE_FINDINGS.labels("transfers").set(transfers)


async def correct(database: Database, account: str) -> Correction | None:
    """Correct an account's balance; return None for a right one. `database` needs the role of the schema's owner.

    Raises Refusal `entries_disagree` where the entries do not agree with each other, since then they may be wrong and
    not the balance, and the ledger's code where the correction cannot be posted. A refusal changes nothing.
    """
    row = await database.fetchrow(_sql.drift, account)
    if row is None or row["drift"] == 0:
        return None
    currency = row["currency"]
    corrections = system_account(CORRECTIONS, currency)
    await open_accounts(database, [Opening(corrections, currency, Limits(floor=None))], SYSTEM_PRINCIPAL)
    async with database.transaction() as connection:
        await connection.execute(_sql.lock_accounts, [account, corrections])
        row = await connection.fetchrow(_sql.drift, account)
        drift = 0 if row is None else row["drift"]
        if row is None or drift == 0:
            return None
        if not row["sound"]:
            raise Refusal(
                "entries_disagree", "The entries do not agree with each other: run `tallystick verify`."
            )
        await connection.execute(_sql.take_drift_out, account, drift)
        posting = _posting(account, corrections, drift, currency)
        (outcome,) = await post(connection, [posting])
        if not outcome.posted:
            raise outcome.refusal()
    return Correction(account, posting.id, drift)


def _posting(account: str, corrections: str, drift: int, currency: str) -> Posting:
    transfer_id = ids.new_uuid()
    data = {"account": account, "drift": drift, "transfer_id": str(transfer_id)}
    return Posting(
        id=transfer_id,
        principal_id=SYSTEM_PRINCIPAL,
        legs=(
            Leg(corrections, -drift),
            Leg(account, drift),
            Leg(account, -drift),
            Leg(corrections, drift),
        ),
        kind=KIND,
        currency=currency,
        effects=Effects(audited=(audited(KIND, ACTOR, data, object_id=account),)),
        unfrozen=True,
    )


def _issue(row: Row) -> Issue:
    """Return the issue of a transfer, named in the contract's words."""
    topup = "_topup" if row["system"] else ""
    if row["orphans"]:
        problem, details = "unsupported_pattern", f"{row['orphans']} entries of no account"
    elif row["entries"] < _LEAST_ENTRIES:
        problem, details = f"entries_count{topup}", f"{row['entries']} entries"
    else:
        problem = "topup_mismatch" if topup else "amount_mismatch"
        details = f"{row['entries']} entries sum to {row['off']}"
    return Issue(row["id"], problem, details)
