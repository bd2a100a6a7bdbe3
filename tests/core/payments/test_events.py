"""Events of the inbox end in the table of states: each by its example, twice, late, early, and beside the old rule."""

import asyncio
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from core import metrics
from core.inbox import rules
from core.inbox.intake import Intake, NewEvent
from core.inbox.processing import Processor, take_over_inbox_events
from core.inbox.rules import Admission
from core.payments import observing
from core.payments.accounts import clearing_account
from core.payments.flow import Payments, Route
from core.payments.notices import Notices
from core.payments.payments import NewPayment, Payment
from core.payments.states import State
from core.providers import cloudpayments, stripe_objects
from core.providers.known import EVENT_READERS
from core.providers.protocol import Notice, Sight, Standing, UnknownError
from core.work.leases import Worker
from tests.core.payments.conftest import Desk, Scripted, gate

TABLE = Path(__file__).resolve().parents[3] / "docs" / "payments.md"
ROW = re.compile(r"^\| `(\w+)` \| `([\w.]+)` \| (\w+)(, asked)? \|", re.MULTILINE)
ROWS = {
    (provider, kind): (state, bool(asked)) for provider, kind, state, asked in ROW.findall(TABLE.read_text())
}


class Teller(Scripted):
    """A scripted provider whose events are read by the real one's file."""

    def read(self, event_type: str, body: bytes) -> Notice | None:
        """Read an event."""
        return EVENT_READERS[self.name](event_type, body)


class Counter:
    """The inbox with one worker, and the engine behind it."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self.tellers = {name: Teller(name) for name in EVENT_READERS}
        desk.payments = Payments(desk.service.database, desk.service.ledger, self.tellers, _routes)
        self._numbers = 0
        self.wakes: list[str] = []

    def worker(self, *, engine: bool = True) -> Processor:
        """Return another worker."""
        service = self.desk.service
        return Processor(
            service.database,
            service.ledger,
            Worker(),
            admission=Admission(stripe="both", paypal=True, cloudpayments="both", simulator=True),
            wake=self.wakes.append,
            engine=Notices(self.desk.payments) if engine else None,
        )

    async def store(self, provider: str, kind: str, body: bytes, object_id: str | None = None) -> str:
        """Take in an event that was verified; return its id."""
        self._numbers += 1
        event_id = f"evt_{self._numbers}"
        await Intake(self.desk.service.database, _Waker())._store(  # type: ignore[arg-type]
            [NewEvent(provider, event_id, kind, object_id, None, {}, body)]
        )
        return event_id

    async def tell(self, provider: str, kind: str, found: Mapping[str, Any]) -> tuple[str, str]:
        """Let an event be stored and applied; return its outcome and reason."""
        event_id = await self.store(provider, kind, body_of(provider, kind, found))
        await self.drain()
        return await self.outcome(event_id)

    async def drain(self) -> None:
        """Let one worker apply everything that is due."""
        worker = self.worker()
        while await worker.step():
            pass

    async def outcome(self, event_id: str) -> tuple[str, str]:
        """Return outcome and reason of an event."""
        row = await self.desk.owner.fetchrow(
            "SELECT outcome, reason, last_error FROM inbox_events WHERE event_id = $1", event_id
        )
        return str(row["outcome"]), str(row["reason"] or row["last_error"] or "").split(":")[0]

    async def pay_of(self, provider: str, **more: Any) -> Payment:
        """Create a payment at a provider."""
        return await self.desk.create(provider=provider, **more)

    async def transfers(self) -> int:
        """Return the number of postings."""
        return int(await self.desk.owner.fetchval("SELECT count(*) FROM transfers"))


class _Waker:
    def wake(self, _topic: str) -> None:
        return


async def _routes(new: NewPayment, _payment_id: UUID) -> Route:
    return Route([str(new.provider)])


@pytest.fixture
def counter(desk: Desk) -> Counter:
    return Counter(desk)


def body_of(provider: str, kind: str, found: Mapping[str, Any]) -> bytes:
    """Return the body in which a provider sends an object."""
    if provider == "stripe":
        found = {"id": "evt", "type": kind, "livemode": False, "data": {"object": found}}
    if provider == "paypal":
        found = {"id": "WH", "event_type": kind, "resource": found}
    if provider == "simulator":
        found = {"id": "evt", "type": kind, "timestamp": 1.0, **found}
    return json.dumps(found).encode()


def example(provider: str, kind: str, payment: Payment) -> dict[str, Any]:
    """Return the object of an event about a payment of one euro."""
    return {"stripe": _stripe, "paypal": _paypal, "cloudpayments": _cloud, "simulator": _simulated}[provider](
        kind, str(payment.latest.id), str(payment.latest.provider_id)
    )


def _stripe(kind: str, attempt: str, name: str) -> dict[str, Any]:
    ours = {"metadata": {"attempt": attempt}}
    what = kind.partition(".")[0]
    if what == "checkout":
        status = {"expired": ("expired", "unpaid"), "async_payment_failed": ("complete", "unpaid")}
        state, paid = status.get(kind.rpartition(".")[2], ("complete", "paid"))
        found = {"id": name, "status": state, "payment_status": paid, "amount_total": 100, "currency": "eur"}
        return found | {"payment_intent": f"pi_{name}"} | ours
    if what == "payment_intent":
        return {"id": f"pi_{name}", "amount_received": 100, "currency": "eur", **ours}
    if kind == "charge.refunded":
        return {"id": f"ch_{name}", "amount": 100, "amount_refunded": 40, "currency": "eur", **ours}
    if what in {"charge", "refund"}:  # a refund or a dispute, which names an object of the provider's alone
        found = {"id": f"re_{name}", "amount": 40, "currency": "eur", "status": "succeeded"}
        return found | {"payment_intent": name}
    details = {"subscription_details": {"subscription": f"sub_{name}", **ours}}
    if what == "invoice":
        first = {"billing_reason": "subscription_create"} if kind == "invoice.paid" else {}
        return {"id": f"in_{name}", "amount_paid": 100, "currency": "eur", "parent": details, **first}
    return {"id": f"sub_{name}", **ours}


def _paypal(kind: str, attempt: str, name: str) -> dict[str, Any]:
    word = kind.rpartition(".")[2]
    if kind.startswith("CHECKOUT"):
        return {"id": name, "status": word, "purchase_units": [{"custom_id": attempt}]}
    money = {"currency_code": "EUR", "value": "1.00"}
    status = {"PENDING": "PENDING", "DENIED": "DECLINED"}.get(word, "COMPLETED")
    links = [{"rel": "up", "href": f"https://api.paypal.test/captures/CAP-{name}"}]
    found = {"id": f"CAP-{name}", "status": status, "amount": money, "custom_id": attempt}
    return found | ({"id": f"REF-{name}", "links": links} if word in {"REFUNDED", "REVERSED"} else {})


def _cloud(kind: str, attempt: str, name: str) -> dict[str, Any]:
    paid = {"TransactionId": f"9{name}", "PaymentTransactionId": name} if kind == "refund" else {}
    return {"TransactionId": name, "Amount": "1.00", "Currency": "EUR", "InvoiceId": attempt, **paid}


def _simulated(kind: str, attempt: str, name: str) -> dict[str, Any]:
    word = kind.rpartition(".")[2]
    beside: dict[str, dict[str, Any]] = {
        "refunded": {"refund": {"id": "re_1", "amount": 40, "status": "succeeded"}},
        "disputed": {"dispute": 40},
    }
    return {
        "data": {
            "id": name,
            "standing": "paid" if word in beside else word,
            "amount": 100,
            "currency": "EUR",
            "refunded": 40 if word == "refunded" else 0,
            "url": "https://pay.test/1",
            "expires_at": "2030-01-01T00:00:00Z",
            "attempt": attempt,
        },
        **beside.get(word, {}),
    }


def test_the_table_has_a_row_for_each_event_that_is_read() -> None:
    told = {("stripe", kind) for kind in stripe_objects.EVENTS} | {
        ("cloudpayments", kind) for kind in cloudpayments.KINDS
    }
    told |= {("simulator", f"payment.{word}") for word in Standing if word not in {"open", "absent"}}
    told |= {("simulator", "payment.refunded"), ("simulator", "payment.disputed")}
    assert {key for key in ROWS if key[0] != "paypal"} == told
    assert {key for key in rules.RULES if key not in ROWS} == set()


async def test_what_each_event_does_is_what_the_table_says_however_often_it_comes(counter: Counter) -> None:
    for (provider, kind), (state, asked) in ROWS.items():
        payment = await counter.pay_of(provider)
        await counter.desk.owner.execute(
            "UPDATE payment_attempts SET next_look_at = now() + interval '1 hour'"
        )
        found = example(provider, kind, payment)
        assert (await counter.tell(provider, kind, found))[0] == "applied", kind
        after = await counter.desk.again(payment)
        assert after.state == state, (provider, kind)
        due = await counter.desk.owner.fetchval(
            "SELECT next_look_at <= clock_timestamp() FROM payment_attempts WHERE id = $1", payment.latest.id
        )
        assert bool(due) == asked, (provider, kind)
        before = await counter.transfers()
        assert (await counter.tell(provider, kind, found))[0] == (
            "applied" if asked else "already_applied"
        ), kind
        again = await counter.desk.again(payment)
        # A dispute is known by its own name; the twin of an event that has none is another dispute, as at the bank.
        if kind != "payment.disputed":
            assert (await counter.transfers(), again.revision) == (before, after.revision), (provider, kind)


async def test_an_intent_that_names_an_attempt_and_an_account_is_the_engines_alone(counter: Counter) -> None:
    desk = counter.desk
    account, other = await desk.account(), await desk.account()
    payment = await counter.pay_of("stripe", account=account, metadata={"account": other})
    name, attempt = str(payment.latest.provider_id), str(payment.latest.id)
    intent = {"id": f"pi_{name}", "amount_received": 100, "currency": "eur", "latest_charge": "ch_1"}
    both = intent | {"metadata": {"attempt": attempt, "account": other}}
    assert await counter.tell("stripe", "payment_intent.succeeded", both) == ("applied", "")
    assert (await desk.again(payment)).state is State.PAID
    assert await desk.balance(account, other, clearing_account("stripe", "EUR")) == [100, 0, -100]
    # A later event of the intent that has lost our name is found by the provider's.
    twin = intent | {"metadata": {"account": other}}
    assert await counter.tell("stripe", "payment_intent.succeeded", twin) == ("already_applied", "")
    # An attempt that is none of ours leaves the event to the rule, as before; without an account it is nobody's.
    strange = {"metadata": {"attempt": str(payment.id), "account": other}}
    assert await counter.tell("stripe", "payment_intent.succeeded", intent | strange | {"id": "pi_9"}) == (
        "applied",
        "",
    )
    nobodys = intent | {"id": "pi_8", "metadata": {"attempt": "no-id"}}
    assert await counter.tell("stripe", "payment_intent.succeeded", nobodys) == (
        "ignored",
        "no_account_named",
    )
    assert await counter.tell("stripe", "charge.refunded", {**intent, "id": "ch_7", "amount": 1}) == (
        "ignored",
        "no_attempt",
    )
    assert await counter.tell("stripe", "charge.refunded", {"id": ["x"]}) == (
        "unusable_payload",
        "unusable_payload",
    )
    assert await counter.tell("stripe", "customer.created", intent) == ("ignored", "no_rule")
    assert await desk.balance(account, other) == [100, 100]


async def test_an_event_that_overtakes_the_answer_of_the_order_counts_once(counter: Counter) -> None:
    desk = counter.desk
    begun, go, answer = gate()
    account = await desk.account()
    opened = Sight(Standing.OPEN, provider_id="cs_1", url="https://pay.test/1")
    counter.tellers["stripe"].says("create", answer(opened))
    new = desk.new(provider="stripe", account=account)
    create = asyncio.create_task(desk.payments.create(new))
    await begun.wait()
    row = await desk.owner.fetchrow("SELECT a.id FROM payment_attempts AS a JOIN payments AS p ON p.id = a.payment_id"
        " WHERE p.request_id = $1", new.request_id)  # fmt: skip
    found = _stripe("checkout.session.completed", str(row["id"]), "cs_1")
    assert await counter.tell("stripe", "checkout.session.completed", found) == ("applied", "")
    go.set()
    payment = (await create).payment
    assert (payment.state, payment.paid, payment.latest.provider_id) == (State.PAID, 100, "cs_1")
    assert await desk.balance(account) == [100]


UNLOCKED = """
CREATE OR REPLACE FUNCTION inbox_hold(claim uuid, ends boolean) RETURNS void LANGUAGE sql AS $$ SELECT $$;
CREATE OR REPLACE FUNCTION inbox_finish(
    claim uuid, ids uuid[], items integer[], reasons text[], ends boolean, outcomes smallint[]
) RETURNS integer LANGUAGE sql AS $$ SELECT 0 $$;
"""


@pytest.mark.parametrize(("claim", "steps"), [("ignored", 3), ("checked", 2)])
async def test_a_worker_that_has_lost_its_claim_moves_nothing(
    counter: Counter, monkeypatch: pytest.MonkeyPatch, claim: str, steps: int
) -> None:
    """A person has discarded the event while the worker slept. Without the claim it would move the payment."""
    desk = counter.desk
    if claim == "ignored":
        await desk.owner.execute(UNLOCKED)
    payment = await counter.pay_of("simulator")
    found = body_of("simulator", "payment.paid", example("simulator", "payment.paid", payment))
    await counter.store("simulator", "payment.paid", found)
    slow = counter.worker()
    claimed, go = asyncio.Event(), asyncio.Event()
    decide = slow._decide

    async def stall(events: Any) -> Any:
        claimed.set()
        await go.wait()
        return await decide(events)

    monkeypatch.setattr(slow, "_decide", stall)
    late = asyncio.create_task(slow.step())
    await claimed.wait()
    assert await take_over_inbox_events(desk.service.database) == 1
    go.set()
    await late
    assert len(await desk.steps(payment)) == steps


async def test_an_event_that_fails_fails_alone_and_the_claim_ends(
    counter: Counter, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = counter.desk
    account = await desk.account()
    payments = [await counter.pay_of("simulator", account=account) for _ in range(3)]
    bodies = [
        body_of("simulator", "payment.paid", example("simulator", "payment.paid", one)) for one in payments
    ]
    events = [await counter.store("simulator", "payment.paid", body) for body in bodies]
    events += [await counter.store("stripe", kind, b"{}") for kind in ("customer.created", "charge.refunded")]
    within = desk.payments.applier.within

    async def broken(connection: Any, payment_id: UUID, *rest: Any) -> Any:
        if payment_id == payments[1].id:
            raise asyncpg.DataError("nobody foresaw this")
        return await within(connection, payment_id, *rest)

    monkeypatch.setattr(desk.payments.applier, "within", broken)
    assert await counter.worker().step() == 5
    assert [(await counter.outcome(event))[0] for event in events] == [
        "applied", "None", "applied", "ignored", "unusable_payload",
    ]  # fmt: skip
    assert await desk.owner.fetchval("SELECT count(*) FROM inbox_claims") == 0
    monkeypatch.undo()
    await desk.owner.execute(
        "UPDATE inbox_events SET due_at = now() - interval '1 s' WHERE state = 'pending'"
    )
    await counter.drain()
    assert {(await desk.again(one)).state for one in payments} == {State.PAID}
    assert await desk.balance(account) == [300]


def count(text: bytes, series: str) -> float:
    """Return the value of a series, -1 where there is none."""
    found = re.search(rf"^{re.escape(series)} (\S+)$", text.decode(), re.MULTILINE)
    return float(found[1]) if found else -1


async def test_states_calls_and_what_nobody_knows_are_measured(counter: Counter) -> None:
    desk = counter.desk
    observing.prepare(counter.tellers)
    state = 'provider_payments_total{{provider="stripe",state="{}",surface="orders"}}'
    call = 'provider_calls_total{{outcome="{}",provider="stripe"}}'
    names = [state.format(one) for one in ("created", "pending", "paid")]
    names += [call.format(one) for one in ("answered", "unknown", "declined", "unsent")]
    before = {name: count(metrics.render(), name) for name in names}
    assert min(before.values()) >= 0
    counter.tellers["stripe"].says("create", UnknownError("Nobody knows."))
    unknown = await counter.pay_of("stripe", surface="orders")
    payment = await counter.pay_of("stripe", surface="orders")
    found = example("stripe", "checkout.session.completed", payment)
    await counter.tell("stripe", "checkout.session.completed", found)
    assert [count(metrics.render(), name) - before[name] for name in names] == [2, 1, 1, 1, 1, 0, 0]
    await desk.owner.execute(
        "UPDATE payment_attempts SET created_at = now() - interval '1 hour', next_look_at = now() - interval '1 minute'"
        " WHERE id = $1", unknown.latest.id,
    )  # fmt: skip
    await observing.measure(desk.payments)
    text = metrics.render()
    assert count(text, "provider_payments_unknown") == 1
    assert 3_600 <= count(text, "provider_payments_unknown_age_seconds") < 3_700
    assert 60 <= count(text, "provider_look_lag_seconds") < 160
    assert count(text, 'provider_breaker_open{provider="stripe"}') == 0
    # A provider that is not set up any more is where nobody looks.
    await desk.owner.execute(
        "UPDATE payment_attempts SET provider = 'another', next_look_at = now() - interval '1 hour' WHERE id = $1",
        unknown.latest.id,
    )
    await observing.measure(desk.payments)
    assert 3_600 <= count(metrics.render(), "provider_look_lag_seconds") < 3_700
