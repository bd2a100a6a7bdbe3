"""Every outcome occurs, and where two causes meet the documented one is told."""

import itertools
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from core.errors import Refusal
from core.ledger import holds, transfers
from core.ledger.accounts import Limits, Opening, change_account, open_accounts
from core.ledger.items import Condition, Operation, Outcome, Posting, operation_id, sentence
from core.ledger.outcomes import OUTCOMES_BY_CODE
from core.ledger.posting import EffectiveSpan
from core.money import MAX_AMOUNT_MINOR
from handlers.http.problems import PROBLEMS
from tests.core.ledger.book import PRINCIPAL, Book, condition, pay, posting

DOCUMENT = Path(__file__).parents[3] / "docs" / "ledger.md"
LONG_AGO = datetime(2020, 2, 29, 12, tzinfo=UTC)


def test_document_has_the_table() -> None:
    rows = re.findall(
        r"^\| `(\w+)` \| (\d+) \| (\S+) \| (yes|no) \| (.+) \|$", DOCUMENT.read_text(), re.MULTILINE
    )
    assert rows == [
        (
            kind.code,
            str(kind.number),
            "-" if kind.code == "posted" else str(PROBLEMS[kind.code].status),
            "yes" if kind.freezes else "no",
            kind.meaning,
        )
        for kind in OUTCOMES_BY_CODE.values()
    ]


@dataclass
class Scene:
    """One item about to be posted: `s` has 1,000 and sends 100 to `d`; causes of refusal are added to it.

    `o` is near the highest balance, `x` can be closed, `y` can be frozen. Codes and keys get a prefix, so that many
    scenes fit into one ledger.
    """

    book: Book
    prefix: str
    operation: Operation
    limits: dict[str, dict[str, int | None]] = field(default_factory=dict)
    states: dict[str, Any] = field(default_factory=dict)
    more_legs: list[tuple[str, int]] = field(default_factory=list)
    conditions: list[Condition] = field(default_factory=list)
    currency: str | None = None
    amount: int | None = None
    expires_at: datetime | None = None
    effective_at: datetime | None = None
    expected_revision: int | None = None
    target_no: int | None = None
    before: list[Callable[[], Awaitable[Outcome]]] = field(default_factory=list)

    def code(self, name: str) -> str:
        return f"{self.prefix}:{name}"

    def key(self, name: str) -> str:
        return f"{self.prefix}/{name}"

    def pay(self, key: str, source: str, destination: str, amount: int) -> Posting:
        return pay(self.key(key), self.code(source), self.code(destination), amount)

    def limit(self, name: str, **limits: int) -> None:
        self.limits.setdefault(name, {}).update(limits)

    def demand(self, name: str, **bounds: int) -> None:
        self.conditions.append(condition(self.code(name), **bounds))

    async def play(self) -> Outcome:
        await self._set_up()
        target = await self._target()
        for step in self.before:
            assert (await step()).posted
        for name, limits in self.limits.items():
            await change_account(self.book.database, self.code(name), limits=limits)
        for name, state in self.states.items():
            await change_account(self.book.database, self.code(name), state=state)
        item = msgspec.structs.replace(await self._item(target), effective_at=self.effective_at)
        return (await self.book.call(item, effective_span=EffectiveSpan(36_500, 366)))[0]

    async def _set_up(self) -> None:
        openings = [
            Opening(self.code(name), "USD", Limits(floor=None)) for name in ("cash", "s", "d", "o", "x", "y")
        ]
        await open_accounts(self.book.database, openings, PRINCIPAL)
        await self.book.call(
            self.pay("fund", "cash", "s", 1_000), self.pay("fill o", "cash", "o", MAX_AMOUNT_MINOR - 1_001)
        )

    @property
    def of_hold(self) -> bool:
        return self.operation not in {Operation.TRANSFER, Operation.REVERSAL}

    def _legs(self) -> list[tuple[str, int]]:
        added = sum(amount for _, amount in self.more_legs) if self.of_hold else 0
        return [("s", -100 - added), ("d", 100), *self.more_legs]

    async def _target(self) -> Posting | None:
        """What the item captures, voids, extends or reverses."""
        if self.operation in {Operation.TRANSFER, Operation.HOLD}:
            return None
        legs = [(self.code(name), amount) for name, amount in self._legs()]
        operation = Operation.HOLD if self.of_hold else Operation.TRANSFER
        target = posting(self.key("target"), *legs, operation=operation, expires_at=self.expires_at)
        [outcome] = await self.book.call(target)
        assert outcome.posted, outcome
        return target

    async def _item(self, target: Posting | None) -> Posting:
        id_ = operation_id(PRINCIPAL, self.key("item"))
        common: dict[str, Any] = {"id_": id_, "principal_id": PRINCIPAL}
        if target is None:
            legs = [(self.code(name), amount) for name, amount in self._legs()]
            demanded = tuple(self.conditions)
            return posting(
                self.key("item"), *legs, operation=self.operation, currency=self.currency, conditions=demanded
            )
        if self.operation is Operation.REVERSAL:
            item = await transfers.prepare_reversal(
                self.book.database, target.id, amount=self.amount, **common
            )
        else:
            stored = await self.book.stored(self.key("target"))
            if self.operation is Operation.CAPTURE:
                item = holds.capture(stored, amount=self.amount, **common)
            elif self.operation is Operation.VOID:
                item = holds.void(stored, **common)
            else:
                item = holds.extend(stored, expires_at=None, **common)
        return msgspec.structs.replace(
            item,
            conditions=tuple(self.conditions),
            target_no=self.target_no or item.target_no,
            expected_revision=self.expected_revision,
        )

    async def conflict(self) -> Outcome:
        return (await self.book.call(self.pay("item", "cash", "x", 1), self.pay("undo", "x", "cash", 1)))[0]

    async def void_first(self) -> Outcome:
        return await self.book.void(self.key("void first"), await self.book.stored(self.key("target")))

    async def reverse_first(self) -> Outcome:
        return await self.book.reverse(self.key("reverse first"), self.key("target"))

    async def fill(self, name: str, payer: str) -> Outcome:
        """Leave room for 50 more below the highest balance."""
        room = MAX_AMOUNT_MINOR - (await self.book.account(self.code(name))).balance
        return (await self.book.call(self.pay("fill", payer, name, room - 50)))[0]

    async def fill_source(self) -> Outcome:
        return await self.fill("s", "d")

    async def fill_destination(self) -> Outcome:
        return await self.fill("d", "y")

    async def hold_all(self) -> Outcome:
        legs = ((self.code("s"), -MAX_AMOUNT_MINOR), (self.code("cash"), MAX_AMOUNT_MINOR))
        return (await self.book.call(posting(self.key("hold all"), *legs, operation=Operation.HOLD)))[0]


def through(name: str, state: str | None = None) -> Callable[[Scene], None]:
    """Let legs go through another account, whose state is changed before the item comes."""

    def apply(scene: Scene) -> None:
        scene.more_legs += [(name, 1)] if scene.of_hold else [(name, 1), (name, -1)]
        if state is not None:
            scene.states[name] = state

    return apply


def takes_effect(at: datetime) -> Callable[[Scene], None]:
    """Let the item take effect at this time, or earlier if another cause says so."""
    return lambda scene: setattr(scene, "effective_at", min(at, scene.effective_at or at))


def closed(scene: Scene) -> None:
    """Close the currency until shortly after the time at which the item takes effect."""

    async def close() -> Outcome:
        await scene.book.owner.execute(
            "INSERT INTO closed_dates (currency, closed_before) VALUES ('USD', $1) ON CONFLICT DO NOTHING",
            LONG_AGO + timedelta(days=1),
        )
        return Outcome(OUTCOMES_BY_CODE["posted"])

    scene.before.append(close)
    takes_effect(LONG_AGO)(scene)


def set_field(name: str, value: object) -> Callable[[Scene], None]:
    return lambda scene: setattr(scene, name, value)


def first(method: Callable[[Scene], Awaitable[Outcome]]) -> Callable[[Scene], None]:
    return lambda scene: scene.before.append(lambda: method(scene))


Causes = dict[str, Callable[[Scene], None]]
CONFLICT: Causes = {"idempotency_conflict": first(Scene.conflict)}
NO_HOLD: Causes = {"hold_not_found": set_field("target_no", 999 << 22)}
CLOSED: Causes = {"account_closed": through("x", "closed")}
FROZEN: Causes = {"account_frozen": through("y", "frozen")}
UNKNOWN: Causes = {"account_not_found": lambda scene: scene.demand("nobody")}
SHAPE: Causes = {
    "currency_mismatch": set_field("currency", "EUR"),
    "legs_unbalanced": lambda scene: scene.more_legs.append(("d", 7)),
}
DEMANDS: Causes = {
    "version_mismatch": lambda scene: scene.demand("s", version=999),
    "revision_mismatch": lambda scene: scene.demand("s", revision=999),
    "available_too_low": lambda scene: scene.demand("s", available_at_least=10**6),
    "available_too_high": lambda scene: scene.demand("s", available_at_most=-(10**6)),
    "balance_too_low": lambda scene: scene.demand("s", at_least=10**6),
    "balance_too_high": lambda scene: scene.demand("s", at_most=-(10**6)),
}
BOUNDS: Causes = {
    "insufficient_funds": lambda scene: scene.limit("s", floor=950),
    "ceiling_exceeded": lambda scene: scene.limit("d", ceiling=50),
}
SPENDING: Causes = {
    "transfer_limit_exceeded": lambda scene: scene.limit("s", transfer_max=50),
    "hourly_amount_exceeded": lambda scene: scene.limit("s", hour_amount_max=60),
    "hourly_count_exceeded": lambda scene: scene.limit("s", hour_count_max=0),
    "daily_amount_exceeded": lambda scene: scene.limit("s", day_amount_max=70),
    "daily_count_exceeded": lambda scene: scene.limit("s", day_count_max=0),
}
PERIODS: Causes = {
    "effective_time_out_of_range": takes_effect(datetime(1900, 1, 1, tzinfo=UTC)),
    "period_closed": closed,
}
CHANGED: Causes = {"precondition_failed": set_field("expected_revision", 999)}
CLOSED_HOLD: Causes = {
    "hold_not_open": first(Scene.void_first),
    "hold_expired": set_field("expires_at", LONG_AGO),
}
CAUSES: dict[Operation, Causes] = {
    Operation.TRANSFER: CONFLICT | CLOSED | FROZEN | UNKNOWN | SHAPE | PERIODS | DEMANDS | BOUNDS | SPENDING
    | {"balance_overflow": lambda scene: scene.more_legs.extend([("o", 2_000), ("cash", -2_000)])},
    Operation.HOLD: CONFLICT | CLOSED | FROZEN | UNKNOWN | DEMANDS | BOUNDS | SPENDING
    | {"currency_mismatch": set_field("currency", "EUR"), "balance_overflow": first(Scene.hold_all)},
    Operation.CAPTURE: CONFLICT | NO_HOLD | CLOSED | FROZEN | UNKNOWN | CHANGED | CLOSED_HOLD | DEMANDS
    | {"exceeds_hold": set_field("amount", 200), "balance_overflow": first(Scene.fill_destination)},
    Operation.VOID: CONFLICT | NO_HOLD | UNKNOWN | CHANGED | {"hold_not_open": first(Scene.void_first)},
    Operation.EXTEND: CONFLICT | NO_HOLD | UNKNOWN | CHANGED | CLOSED_HOLD,
    Operation.REVERSAL: CONFLICT | CLOSED | FROZEN | UNKNOWN | PERIODS | CHANGED | DEMANDS
    | {
        "effective_before_original": takes_effect(datetime.now(UTC) - timedelta(days=1)),
        "already_reversed": first(Scene.reverse_first),
        "exceeds_reversible": set_field("amount", 200),
        "balance_overflow": first(Scene.fill_source),
        "insufficient_funds": lambda scene: scene.limit("d", floor=50),
        "ceiling_exceeded": lambda scene: scene.limit("s", ceiling=500),
    },
}  # fmt: skip
ORDER = list(OUTCOMES_BY_CODE)


@pytest.mark.parametrize("operation", CAUSES)
async def test_each_cause_alone(book: Book, operation: Operation) -> None:
    for code, cause in CAUSES[operation].items():
        scene = Scene(book, code, operation)
        cause(scene)
        outcome = await scene.play()
        assert outcome.kind.code == code
        assert sentence(outcome)[-1] == "."
    assert (await Scene(book, "none", operation).play()).posted


@pytest.mark.parametrize("operation", CAUSES)
async def test_of_two_causes_the_documented_one_is_told(book: Book, operation: Operation) -> None:
    causes = CAUSES[operation]
    for number, pair in enumerate(itertools.combinations(causes, 2)):
        scene = Scene(book, str(number), operation)
        for code in pair:
            causes[code](scene)
        assert (await scene.play()).kind.code == min(pair, key=ORDER.index), pair


def test_every_outcome_has_a_cause_here() -> None:
    # The group's is below; an unknown transfer is found out before the posting function is called.
    assert {code for causes in CAUSES.values() for code in causes} == set(ORDER) - {
        "posted",
        "group_failed",
        "transfer_not_found",
    }


async def test_unknown_original(book: Book) -> None:
    with pytest.raises(Refusal) as caught:
        await book.reversal("r", "never")
    assert caught.value.code == "transfer_not_found"
