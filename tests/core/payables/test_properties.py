"""Random payments with keys, limits, payables and groups, against a model that does them one after another.

`make fuzz` searches longer, with other examples each time: `--hypothesis-profile=fuzz`.
"""

import copy
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import NamedTuple
from uuid import UUID

from hypothesis import HealthCheck, given
from hypothesis import settings as search_settings
from hypothesis import strategies as st

from core.ledger.items import ItemLimits, next_group
from tests.core.payables.conftest import Bank, codes, payment

SEARCH = (
    search_settings.get_profile("fuzz")
    if search_settings.get_current_profile_name() == "fuzz"
    else search_settings(
        max_examples=40,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    )
)
USERS = 3
START = 100
# Two that are paid once, one that stays open.
PAYABLES = (False, False, True)


class Pay(NamedTuple):
    """A payment: who pays whom (places among the users), under which of the payer's keys, within which limits."""

    payer: int
    payee: int
    amount: int
    key: int
    limits: ItemLimits | None
    payable: int | None


class Call(NamedTuple):
    """One call of the ledger; grouped: all or nothing."""

    pays: list[Pay]
    grouped: bool


@dataclass
class Model:
    """What the books should be."""

    balance: list[int] = field(default_factory=lambda: [START] * USERS)
    sent: list[int] = field(default_factory=lambda: [0] * USERS)
    uses: list[int] = field(default_factory=lambda: [0] * USERS)
    keys: dict[tuple[int, int], tuple[int, int]] = field(default_factory=dict)
    paid: set[int] = field(default_factory=set)
    told: list[str] = field(default_factory=list)

    def call(self, call: Call) -> list[str]:
        """Do a call, and return what becomes of each payment."""
        if not call.grouped:
            return [self.pay(pay) for pay in call.pays]
        before = copy.deepcopy(self)
        found = [self.pay(pay) for pay in call.pays]
        culprit = next(
            (place for place, code in enumerate(found) if code not in {"posted", "again posted"}), None
        )
        if culprit is None:
            return found
        vars(self).update(vars(before))
        return [
            found[place] if place == culprit else self.fate(pay) or "group_failed"
            for place, pay in enumerate(call.pays)
        ]

    def fate(self, pay: Pay) -> str | None:
        """What a used key makes of a payment, None for a free one."""
        known = self.keys.get((pay.payer, pay.key))
        if known is None:
            return None
        return "again posted" if known == (pay.payee, pay.amount) else "idempotency_conflict"

    def pay(self, pay: Pay) -> str:
        """Do a payment: idempotency comes before state, the payable before the limits, in the ledger's order."""
        return self.fate(pay) or self.refusal(pay) or self.post(pay)

    def refusal(self, pay: Pay) -> str | None:
        """What stands in the way of a payment that was not made before."""
        limits, payer, amount = pay.limits or ItemLimits(), pay.payer, pay.amount
        if pay.payable in self.paid:
            return "payable_not_open"
        if limits.transfer_max is not None and amount > limits.transfer_max:
            return "transfer_limit_exceeded"
        if amount > self.balance[payer]:
            return "insufficient_funds"
        if limits.hour_amount_max is not None and self.sent[payer] + amount > limits.hour_amount_max:
            return "hourly_amount_exceeded"
        if limits.hour_count_max is not None and self.uses[payer] + 1 > limits.hour_count_max:
            return "hourly_count_exceeded"
        if limits.day_amount_max is not None and self.sent[payer] + amount > limits.day_amount_max:
            return "daily_amount_exceeded"
        return None

    def post(self, pay: Pay) -> str:
        """Move the money, and all that comes with it."""
        self.balance[pay.payer] -= pay.amount
        self.balance[pay.payee] += pay.amount
        self.sent[pay.payer] += pay.amount
        self.uses[pay.payer] += 1
        self.keys[pay.payer, pay.key] = (pay.payee, pay.amount)
        self.told.append(name_of(pay))
        if pay.payable is not None and not PAYABLES[pay.payable]:
            self.paid.add(pay.payable)
        return "posted"


def name_of(pay: Pay) -> str:
    """The key of a payment, under which it is told and audited."""
    return f"{pay.payer}:{pay.key}"


_bound = st.none() | st.sampled_from([20, 50, 99, 100, 150])
_limits = st.none() | st.builds(ItemLimits, _bound, _bound, st.none() | st.integers(1, 4), _bound)
_pays = st.builds(
    lambda payer, step, *more: Pay(payer, (payer + step) % USERS, *more),
    st.integers(0, USERS - 1),
    st.integers(1, USERS - 1),
    st.sampled_from([1, 10, 20, 21, 50, 51, 99, 100, 101]),
    st.integers(0, 5),
    _limits,
    st.none() | st.integers(0, len(PAYABLES) - 1),
)
_singles = st.builds(Call, st.lists(_pays, min_size=1, max_size=6), st.just(False))
# One key twice in one group: what the second repeats is undone with the first; test_batches of the ledger holds that.
_groups = st.builds(
    Call,
    st.lists(_pays, min_size=1, max_size=4, unique_by=lambda pay: (pay.payer, pay.key)),
    st.just(True),
)
programs = st.lists(_singles | _groups, min_size=1, max_size=8)


@SEARCH
@given(programs)
async def test_payments_do_what_the_model_says(bank: Bank, program: list[Call]) -> None:
    day = datetime.now(UTC).date()
    users = [await bank.user(START) for _ in range(USERS)]
    stored = [await bank.payable(users[0], None, reusable=reusable) for reusable in PAYABLES]
    model = Model()
    await bank.owner.execute("DELETE FROM outbox_events")
    await bank.owner.execute("DELETE FROM audit_events")
    for call in program:
        group = next_group() if call.grouped else 0
        items = [
            payment(
                users[pay.payer], users[pay.payee], pay.amount, name_of(pay), limits=pay.limits, group=group,
                payable=None if pay.payable is None else stored[pay.payable],
            )
            for pay in call.pays
        ]  # fmt: skip
        found = codes(await bank.call(*items))
        if datetime.now(UTC).date() != day:
            return  # the day's sums began anew
        assert found == model.call(call)
    assert await bank.balances(*users) == model.balance
    assert await _paid(bank, stored) == model.paid
    assert await bank.written() == (sorted(model.told),) * 2


async def _paid(bank: Bank, stored: list[UUID]) -> set[int]:
    return {place for place, payable in enumerate(stored) if (await bank.state(payable))[0] == "paid"}
