"""The ledger as docs/ledger.md describes it, in plain Python: one thing after the other, and no concern for speed.

It takes the same postings as the real one and must come to the same outcomes. Time does not pass in it: a hold is due
from the start or never, and all windows are one.
"""

from copy import deepcopy
from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import groupby
from uuid import UUID

from core.ledger.accounts import AccountState, Limits
from core.ledger.items import Condition, Leg, Operation, Posting
from tests.core.ledger.parts import between

TOP = 2**62 - 1
# What leaves the key free for another try.
NOT_FROZEN = {
    *("idempotency_conflict", "transfer_not_found", "hold_not_found", "account_not_found", "account_closed"),
    *("account_frozen", "effective_before_original", "currency_mismatch", "legs_unbalanced", "group_failed"),
}
LIMITS_IN_ORDER = (
    *("transfer_limit_exceeded", "insufficient_funds", "ceiling_exceeded", "hourly_amount_exceeded"),
    *("hourly_count_exceeded", "daily_amount_exceeded", "daily_count_exceeded"),
)


@dataclass
class Account:
    currency: str
    limits: Limits
    state: AccountState = "open"
    balance: int = 0
    held: int = 0
    incoming: int = 0
    version: int = 0
    changes: int = 0
    spent: int = 0
    uses: int = 0


@dataclass
class Hold:
    legs: tuple[Leg, ...]
    expires_at: datetime | None
    captured: int = 0
    state: str = "open"

    @property
    def amount(self) -> int:
        return -self.legs[0].amount

    @property
    def left(self) -> int:
        return self.amount - self.captured


@dataclass
class Transfer:
    legs: tuple[Leg, ...]
    is_reversal: bool
    effective_at: datetime
    reversed: int = 0


@dataclass
class Result:
    """What became of an item; entries are (account, amount, version, balance after)."""

    code: str
    entries: tuple[tuple[str, int, int, int], ...] = ()
    replayed: bool = False
    first: "Result | None" = None
    lapsed: bool = False


class Refused(Exception):
    """Carries the code, and whether holds whose time is over are all that stands in the way."""

    def __init__(self, code: str, *, lapsed: bool = False) -> None:
        super().__init__(code)
        self.lapsed = lapsed


@dataclass
class State:
    accounts: dict[str, Account] = field(default_factory=dict)
    holds: dict[UUID, Hold] = field(default_factory=dict)
    transfers: dict[UUID, Transfer] = field(default_factory=dict)


class Model:
    """`post` takes a batch: items in order, each with its own result; those of a group together or not at all."""

    def __init__(self, now: datetime) -> None:
        self.now = now
        self.state = State()
        self.keys: dict[UUID, tuple[object, Result]] = {}

    def post(self, batch: list[Posting]) -> list[Result]:
        results: list[Result] = []
        for _, members in groupby(enumerate(batch), key=lambda pair: pair[1].group or -1 - pair[0]):
            items = [item for _, item in members]
            results += self._group(items) if items[0].group else [self._one(items[0])]
        return results

    def dry_run(self, batch: list[Posting]) -> list[Result]:
        return deepcopy(self).post(batch)

    def expire(self) -> None:
        for hold in self.state.holds.values():
            if hold.state == "open" and self._is_over(hold):
                self._expire(hold)

    def expire_hold(self, id_: UUID) -> None:
        hold = self.state.holds[id_]
        assert hold.state == "open"
        assert self._is_over(hold)
        self._expire(hold)

    def _is_over(self, hold: Hold) -> bool:
        return hold.expires_at is not None and hold.expires_at <= self.now

    def _expire(self, hold: Hold) -> None:
        _release(self.state, hold)
        hold.state = "expired"

    def _lapsed(self, state: State, item: Posting, code: str) -> tuple[int, int]:
        """Return the amount that holds whose time is over keep of an account, and the one they will not bring to it."""
        held = incoming = 0
        for id_, hold in state.holds.items():
            if hold.state == "open" and self._is_over(hold) and id_ != item.id:
                rest = between(hold.legs, hold.captured, hold.amount)
                held -= sum(leg.amount for leg in rest[:1] if leg.account == code)
                incoming += sum(leg.amount for leg in rest[1:] if leg.account == code)
        return held, incoming

    def _group(self, items: list[Posting]) -> list[Result]:
        state, keys = deepcopy(self.state), dict(self.keys)
        results: list[Result] = []
        culprit: Result | None = None
        for item in items:
            result = self._recall(item)
            if result is None:
                result = self._one(item) if culprit is None else Result("group_failed")
            if culprit is None and result.code != "posted":
                culprit = result
                self.state, self.keys = state, keys
                self._remember(item, culprit)
            results.append(result)
        if culprit is None:
            return results
        undone = [result for result in results if result.code == "posted" and not result.replayed]
        return [
            Result("group_failed")
            if any(each is result or each is result.first for each in undone)
            else result
            for result in results
        ]

    def _one(self, item: Posting) -> Result:
        result = self._recall(item)
        if result is None:
            trial = deepcopy(self.state)
            try:
                result = Result("posted", self._do(trial, item))
                self.state = trial
            except Refused as refused:
                result = Result(str(refused), lapsed=refused.lapsed)
            self._remember(item, result)
        return result

    def _recall(self, item: Posting) -> Result | None:
        if item.id not in self.keys:
            return None
        body, result = self.keys[item.id]
        if body != body_of(item):
            return Result("idempotency_conflict")
        return replace(result, replayed=True, first=result)

    def _remember(self, item: Posting, result: Result) -> None:
        if result.code not in NOT_FROZEN and not result.replayed and not result.lapsed:
            self.keys[item.id] = (body_of(item), result)

    def _do(self, state: State, item: Posting) -> tuple[tuple[str, int, int, int], ...]:
        operation = item.operation
        hold = state.holds.get(item.target_id) if item.target_id is not None else None
        if operation in {Operation.CAPTURE, Operation.VOID, Operation.EXTEND} and hold is None:
            raise Refused("hold_not_found")
        _check_accounts(state, item)
        if operation in {Operation.TRANSFER, Operation.HOLD}:
            _check_legs(state, item)
        if hold is not None and operation is not Operation.REVERSAL:
            self._check_hold(hold, item)
        due = _due(state, item, hold, self.now)
        for condition in item.conditions:
            if condition.version not in {None, state.accounts[condition.account].version}:
                raise Refused("version_mismatch")
        for condition in item.conditions:
            account = state.accounts[condition.account]
            if condition.revision not in {None, account.version + account.changes}:
                raise Refused("revision_mismatch")
        before = deepcopy(state.accounts)
        entries = (
            _move(state, due) if operation not in {Operation.HOLD, Operation.VOID, Operation.EXTEND} else ()
        )
        _change_holds(state, item, hold)
        self._check_conditions(state, item)
        if operation in {Operation.TRANSFER, Operation.HOLD, Operation.REVERSAL}:
            self._check_limits(state, before, item, due)
        if operation in {Operation.TRANSFER, Operation.CAPTURE, Operation.REVERSAL}:
            moved = tuple(leg for leg in due if leg.amount)
            effective_at = item.effective_at or self.now
            state.transfers[item.id] = Transfer(moved, operation is Operation.REVERSAL, effective_at)
        return entries

    def _check_conditions(self, state: State, item: Posting) -> None:
        for each in item.conditions:
            if each.balance_at_least is not None and self._has(state, each) < each.balance_at_least:
                raise Refused("balance_too_low")
        for each in item.conditions:
            if each.balance_at_most is not None and self._has(state, each) > each.balance_at_most:
                raise Refused("balance_too_high")
        for each in item.conditions:
            least, has = each.available_at_least, self._has(state, each, available=True)
            if least is not None and has < least:
                held, _ = self._lapsed(state, item, each.account)
                raise Refused("available_too_low", lapsed=has + held >= least)
        for each in item.conditions:
            most = each.available_at_most
            if most is not None and self._has(state, each, available=True) > most:
                raise Refused("available_too_high")

    @staticmethod
    def _has(state: State, condition: Condition, *, available: bool = False) -> int:
        account = state.accounts[condition.account]
        return account.balance - account.held if available else account.balance

    def _check_limits(
        self, state: State, before: dict[str, Account], item: Posting, due: tuple[Leg, ...]
    ) -> None:
        broken: dict[str, bool] = {}  # the code, and whether only holds whose time is over stand in the way
        for code in dict.fromkeys(leg.account for leg in due):
            account = state.accounts[code]
            limits = account.limits
            held, incoming = self._lapsed(state, item, code)
            if item.operation is Operation.HOLD:
                net = sum(leg.amount for leg in due if leg.account == code)
            else:
                net = account.balance - before[code].balance
            taken = account.balance + account.incoming
            if net > 0 and limits.ceiling is not None and taken > limits.ceiling:
                broken.setdefault("ceiling_exceeded", taken - incoming <= limits.ceiling)
            if net < 0:
                available = account.balance - account.held
                if limits.floor is not None and available < limits.floor:
                    broken.setdefault("insufficient_funds", available + held >= limits.floor)
                if item.operation is not Operation.REVERSAL:
                    for each in _spend(account, -net):
                        broken.setdefault(each, False)
        for code in LIMITS_IN_ORDER:
            if code in broken:
                raise Refused(code, lapsed=broken[code])

    def _check_hold(self, hold: Hold, item: Posting) -> None:
        if hold.state != "open":
            raise Refused("hold_not_open")
        if (
            item.operation is not Operation.VOID
            and hold.expires_at is not None
            and hold.expires_at <= self.now
        ):
            raise Refused("hold_expired")
        if item.operation is Operation.CAPTURE and item.amount is not None and item.amount > hold.left:
            raise Refused("exceeds_hold")


def body_of(item: Posting) -> object:
    return (
        item.legs, item.operation, item.kind, item.currency, item.reference, item.metadata, item.effective_at,
        item.conditions, item.amount, item.target_id, item.expires_at,
    )  # fmt: skip


def _check_accounts(state: State, item: Posting) -> None:
    legs = item.legs
    named = [leg.account for leg in legs] + [condition.account for condition in item.conditions]
    if any(code not in state.accounts for code in named):
        raise Refused("account_not_found")
    states = {state.accounts[leg.account].state for leg in legs}
    if item.operation not in {Operation.VOID, Operation.EXTEND}:
        if "closed" in states:
            raise Refused("account_closed")
        if "frozen" in states:
            raise Refused("account_frozen")


def _check_legs(state: State, item: Posting) -> None:
    totals: dict[str, int] = {}
    for leg in item.legs:
        currency = state.accounts[leg.account].currency
        totals[currency] = totals.get(currency, 0) + leg.amount
    if item.currency is not None and set(totals) != {item.currency}:
        raise Refused("currency_mismatch")
    if len(totals) > 1 and (item.operation is Operation.HOLD or any(totals.values())):
        raise Refused("currency_mismatch")
    if any(totals.values()):
        raise Refused("legs_unbalanced")


def _due(state: State, item: Posting, hold: Hold | None, now: datetime) -> tuple[Leg, ...]:
    """The legs that move now: a part of the whole for partial captures and reversals."""
    if item.operation is Operation.CAPTURE and hold is not None:
        amount = hold.left if item.amount is None else item.amount
        return between(hold.legs, hold.captured, hold.captured + amount)
    if item.operation is not Operation.REVERSAL or item.target_id is None:
        return item.legs
    original = state.transfers[item.target_id]
    if (item.effective_at or now) < original.effective_at:
        raise Refused("effective_before_original")
    sizes = [abs(leg.amount) for leg in original.legs]
    whole = max(sizes)
    left = whole - original.reversed
    if left == 0:
        raise Refused("already_reversed")
    if item.amount is not None and item.amount > left:
        raise Refused("exceeds_reversible")
    done, original.reversed = original.reversed, original.reversed + (item.amount or left)
    back = tuple(Leg(leg.account, -leg.amount) for leg in original.legs)
    return (
        back
        if original.reversed - done == whole
        else between(back, done, original.reversed, sizes.index(whole))
    )


def _move(state: State, due: tuple[Leg, ...]) -> tuple[tuple[str, int, int, int], ...]:
    entries = []
    for leg in due:
        if leg.amount:
            account = state.accounts[leg.account]
            account.balance += leg.amount
            account.version += 1
            if abs(account.balance) > TOP:
                raise Refused("balance_overflow")
            entries.append((leg.account, leg.amount, account.version, account.balance))
    return tuple(entries)


def _change_holds(state: State, item: Posting, hold: Hold | None) -> None:
    source = state.accounts[item.legs[0].account]
    if item.operation is Operation.HOLD:
        made = state.holds[item.id] = Hold(item.legs, item.expires_at)
        source.held += made.amount
        for leg in item.legs:
            state.accounts[leg.account].changes += 1
        for leg in item.legs[1:]:
            state.accounts[leg.account].incoming += leg.amount
        if source.held > TOP or any(state.accounts[leg.account].incoming > TOP for leg in item.legs):
            raise Refused("balance_overflow")
    elif hold is not None and item.operation is Operation.CAPTURE:
        amount = hold.left if item.amount is None else item.amount
        _release(state, hold, amount)
        hold.captured += amount
        hold.state = "open" if hold.left else "captured"
    elif hold is not None and item.operation is Operation.VOID:
        _release(state, hold)
        hold.state = "voided"
    elif hold is not None and item.operation is Operation.EXTEND:
        source.changes += 1
        hold.expires_at = item.expires_at


def _release(state: State, hold: Hold, amount: int | None = None) -> None:
    """Give back what the hold keeps of its source, and what it was to bring to the others: `amount`, or all of it."""
    due = between(hold.legs, hold.captured, hold.captured + (hold.left if amount is None else amount))
    state.accounts[due[0].account].held += due[0].amount
    for leg in due[1:]:
        state.accounts[leg.account].incoming -= leg.amount
    for leg in due:
        state.accounts[leg.account].changes += 1


def _spend(account: Account, amount: int) -> set[str]:
    limits = account.limits
    if any(
        limit is not None for limit in limits.windows
    ):  # what leaves is counted only while there is a limit to it
        account.spent += amount
        account.uses += 1
    checks = (
        ("transfer_limit_exceeded", amount, limits.transfer_max),
        ("hourly_amount_exceeded", account.spent, limits.hour_amount_max),
        ("hourly_count_exceeded", account.uses, limits.hour_count_max),
        ("daily_amount_exceeded", account.spent, limits.day_amount_max),
        ("daily_count_exceeded", account.uses, limits.day_count_max),
    )
    return {code for code, figure, most in checks if most is not None and figure > most}
