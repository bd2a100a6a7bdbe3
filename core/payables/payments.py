"""Payments: money that moves between wallets, in one posting with its fee, its limits, its events and its records."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from core.errors import Refusal
from core.ledger.items import (
    Condition,
    Effects,
    ItemLimits,
    Leg,
    Operation,
    Posting,
    next_group,
    operation_id,
)
from core.ledger.outcomes import PAYABLE_STATES
from core.payables.limits import FUNDS, FUNDS_FIRST, Taking, explained
from core.wallets.books import wallet_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime
    from uuid import UUID

    from core.database import Connection, Database
    from core.ledger.items import Audited, Outcome, Told
    from core.platform import Platform
    from core.wallets.users import User


class Paid(NamedTuple):
    """A payment as its caller sees it: the gross amount in minor units, from wallet to wallet.

    `wakes` is True when an event waits for the workers; `recorded_at` is the time of the posting.
    """

    transfer_id: UUID
    from_wallet_id: str | None
    to_wallet_id: str
    amount: int
    currency: str
    replayed: bool
    wakes: bool = False
    recorded_at: datetime | None = None


class Held(NamedTuple):
    """Money that was set aside for a payment: number, id and legs of its hold, and whether the wallet is frozen."""

    no: int
    id: UUID | None
    legs: tuple[Leg, ...]
    frozen: bool


class Payment(NamedTuple):
    """A payment to post.

    `id` is derived from the principal and the key (`core.ledger.items.operation_id`); a repeated key is compared by
    `identity`. `amount` in minor units leaves `source` and reaches `target`; `fee` then leaves `fee_payer` (an account
    code) for `fee_account`. The limits are those of `payer`, None without limits. `conditions` are further bounds on
    balances. The hold of `held` is captured, and `amount` goes on from the account that the capture reaches. `words`
    are the kind's own codes for causes of the source, `payee_words` those for causes of the target.
    """

    id: UUID
    principal_id: int
    kind: str
    source: str
    target: str
    amount: int
    currency: str
    identity: tuple[Any, ...]
    payer: User | None = None
    limits: ItemLimits | None = None
    order: Sequence[str] = FUNDS_FIRST
    fee: int = 0
    fee_payer: str | None = None
    fee_account: str | None = None
    payable: UUID | None = None
    settler: UUID | None = None
    told: tuple[Told, ...] = ()
    audited: tuple[Audited, ...] = ()
    reference: str | None = None
    metadata: dict[str, str] | None = None
    conditions: tuple[Condition, ...] = ()
    held: Held | None = None
    words: Mapping[str, str] = {}
    payee_words: Mapping[str, str] = {}

    def postings(self) -> list[Posting]:
        """Return the postings, all or nothing: the payment, or the capture of its hold and a payout."""
        if self.held is None:
            return [self.posting()]
        group, arrived = next_group(), self.held.legs[1].account
        capture = Posting(
            self.id,
            self.principal_id,
            self.held.legs,
            operation=Operation.CAPTURE,
            kind=self.kind,
            target_no=self.held.no,
            target_id=self.held.id,
            group=group,
            effects=Effects(self.payable, self.settler, self.told, self.audited),
            unfrozen=True,
            identity=(self.kind, *self.identity),
        )
        payout = Posting(
            operation_id(self.principal_id, f"payout:{self.id}"),
            self.principal_id,
            (Leg(arrived, -self.amount), Leg(self.target, self.amount)),
            kind=self.kind,
            currency=self.currency,
            group=group,
            conditions=self.conditions,
            unfrozen=True,
            identity=(self.kind, *self.identity),
        )
        return [capture, payout]

    def posting(self) -> Posting:
        """Return the posting: the two legs of the payment, then the two of its fee."""
        legs = [Leg(self.source, -self.amount), Leg(self.target, self.amount)]
        if self.fee > 0:
            if self.fee_payer is None or self.fee_account is None:
                raise ValueError("a fee needs a payer and an account")
            legs += [Leg(self.fee_payer, -self.fee), Leg(self.fee_account, self.fee)]
        conditions = self.conditions
        if self.source == self.target:
            # A payer who is the payee loses the fee at most, so the floor alone would pass more than the balance.
            kept = self.fee if self.fee_payer == self.source else 0
            conditions = (*conditions, Condition(self.source, balance_at_least=self.amount - kept))
        effects = None
        if self.payable is not None or self.told or self.audited:
            effects = Effects(self.payable, self.settler, self.told, self.audited)
        return Posting(
            self.id,
            self.principal_id,
            tuple(legs),
            kind=self.kind,
            currency=self.currency,
            reference=self.reference,
            metadata=self.metadata,
            conditions=conditions,
            limits=self.limits,
            effects=effects,
            unfrozen=True,
            identity=(self.kind, *self.identity),
        )


async def post(platform: Platform, payment: Payment) -> Paid:
    """Post a payment through the lane, and wake the workers for its events; an equal call returns the first payment.

    Raises Refusal with the ledger's code, the first of the payment's own order of causes; `payable_not_open` carries
    the payable's `state`.
    """
    poster = platform.ledger.poster
    if payment.held is None:
        outcomes = [await poster.submit(payment.posting())]
    else:
        outcomes = await poster.submit_many(payment.postings())
    paid = await _result(platform.database, payment, outcomes)
    platform.wake(paid.wakes)
    return paid


async def post_within(connection: Connection, platform: Platform, payment: Payment) -> Paid:
    """Post a payment within a transaction. Raises as `post` does; the caller then rolls the transaction back."""
    outcomes = await platform.ledger.post_within(connection, payment.postings())
    return await _result(platform.database, payment, outcomes)


async def _result(database: Database, payment: Payment, outcomes: Sequence[Outcome]) -> Paid:
    for outcome in outcomes:
        if not outcome.posted and outcome.kind.code != "group_failed":
            raise await _refusal(database, payment, outcome)
    return _paid(payment, outcomes)


def _paid(payment: Payment, outcomes: Sequence[Outcome]) -> Paid:
    """Return the payment as it was posted; a repeated key returns the first one."""
    first, last = outcomes[0], outcomes[-1]
    source, target = first.entries[0], last.entries[1]
    return Paid(
        payment.id,
        wallet_of(source.account),
        wallet_of(target.account) or target.account,
        target.amount,
        payment.currency,
        first.replayed,
        any(outcome.wakes for outcome in outcomes),
        first.recorded_at,
    )


async def _refusal(database: Database, payment: Payment, outcome: Outcome) -> Refusal:
    """Return the refusal in the payment's own words. It names no account: people know none, and codes are nobody's."""
    code = outcome.kind.code
    if code == "idempotency_conflict":
        return outcome.refusal()
    if code == "payable_not_open" and outcome.figure is not None:
        refusal = outcome.refusal()
        refusal.extra["state"] = PAYABLE_STATES[outcome.figure]
        return refusal
    if code == "balance_too_low" and payment.source == payment.target:
        return Refusal(FUNDS, "The wallet has less than the amount to pay.")
    taken = payment.amount + (payment.fee if payment.fee_payer == payment.source else 0)
    taking = Taking(payment.source, taken, payment.currency, payment.limits, payment.order)
    refusal = await explained(database, outcome, taking)
    if outcome.account == payment.source:
        refusal.code = payment.words.get(refusal.code, refusal.code)
    elif outcome.account == payment.target:
        refusal.code = payment.payee_words.get(refusal.code, refusal.code)
    return refusal
