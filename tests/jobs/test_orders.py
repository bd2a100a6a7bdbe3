"""Every order in which the events of one payment can come, with duplicates, ends in the same state."""

import itertools
import random
import time
from collections import Counter
from typing import Any

import pytest

from core.inbox.processing import Processor
from core.inbox.rules import Admission
from core.work.leases import Worker
from tests.jobs.merchant import Thread, payment


async def drain(thread: Thread) -> None:
    service = thread.service
    worker = Processor(
        service.database,
        service.ledger,
        Worker(),
        admission=Admission.of(service.settings),
        wake=lambda topic: None,
    )
    while await worker.step():
        pass


def events_of(intent: str) -> list[dict[str, Any]]:
    """Six events of one payment as Stripe sends them, the fifth of which is the twin of the fourth."""
    paid = payment(intent, "shop:main")
    charge = {"id": f"ch_{intent}", "object": "charge", "payment_intent": intent, "amount": 1500}
    return [
        paid | {"id": f"evt_{intent}_created", "type": "payment_intent.created"},
        paid | {"id": f"evt_{intent}_processing", "type": "payment_intent.processing"},
        paid | {"id": f"evt_{intent}_failed", "type": "payment_intent.payment_failed"},
        paid | {"id": f"evt_{intent}_paid"},
        paid | {"id": f"evt_{intent}_twin"},
        paid | {"id": f"evt_{intent}_charge", "type": "charge.succeeded", "data": {"object": charge}},
    ]


async def test_any_order_of_a_payments_events_with_duplicates_ends_the_same(
    thread: Thread, request: pytest.FixtureRequest
) -> None:
    """A sample of the orders of six events; every one of them under `make fuzz`."""
    seed = time.time_ns() if request.config.getoption("--hypothesis-profile") == "fuzz" else 3
    generator = random.Random(seed)
    orders = list(itertools.permutations(range(6)))
    if seed == 3:
        orders = generator.sample(orders, 25)
    await thread.open_account("shop:main")
    for number, order in enumerate(orders):
        intent = f"pi_{number}"
        events = events_of(intent)
        # Each comes a second time, anywhere after its first.
        sent = list(order)
        for place in order:
            sent.insert(generator.randint(sent.index(place) + 1, len(sent)), place)
        for place in sent:
            status, _ = await thread.send(events[place])
            assert status == 200
            if generator.random() < 0.3:
                await drain(thread)
        await drain(thread)
        assert await end_of(thread, intent) == (
            {"applied": 1, "already_applied": 1, "ignored": 4},
            {"done"},
            1,
            1,
        ), f"seed {seed}, order {order}, sent {sent}"
    assert await thread.balance("shop:main") == 1500 * len(orders)
    assert await thread.balance("provider:stripe:clearing:USD") == -1500 * len(orders)


async def end_of(thread: Thread, intent: str) -> tuple[dict[str, int], set[str], int, int]:
    pool = thread.service.database.connections.pool
    rows = await pool.fetch(
        "SELECT state, outcome FROM inbox_events WHERE starts_with(event_id, $1)", f"evt_{intent}_"
    )
    transfers = await pool.fetchval("SELECT count(*) FROM transfers WHERE reference = $1", intent)
    told = await pool.fetchval("SELECT count(*) FROM outbox_events WHERE object_id = $1", intent)
    return dict(Counter(row["outcome"] for row in rows)), {row["state"] for row in rows}, transfers, told
