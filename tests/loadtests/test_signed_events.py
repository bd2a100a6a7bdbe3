"""The load clients as Stripe: what they sign, what they repeat, and that an open loop waits for nobody."""

import asyncio
from collections import Counter

import orjson
import pytest
import stripe
from aiohttp import web

from loadtests.bench.clients import open_rate
from loadtests.bench.clients.client import Job, run_client
from loadtests.bench.clients.workload import STRIPE_PATH, STRIPE_SECRET, UNKNOWN_SECRET, Caller, Workload
from tests.loadtests.test_clients import serving

pytestmark = pytest.mark.drill


def job(caller: Caller, workload: Workload, **changes: float) -> Job:
    fields = {"connections": 2, "seconds": 1.0, "seed": 1, "timeout_seconds": 10.0, "rate": 100.0, **changes}
    return Job(host=caller.host, port=caller.port, workload=workload, **fields)  # type: ignore[arg-type]


async def test_events_are_signed_as_stripes_library_expects_and_never_repeat() -> None:
    seen: list[tuple[str, str]] = []

    async def answer(request: web.Request) -> web.Response:
        assert (request.method, request.path) == ("POST", STRIPE_PATH)
        body = await request.text()
        stripe.WebhookSignature.verify_header(body, request.headers["Stripe-Signature"], STRIPE_SECRET, 300)
        event = orjson.loads(body)
        assert event["type"] == "payment_intent.succeeded"
        assert event["data"]["object"]["metadata"]["account"] in {f"acct-{number:06}" for number in (1, 2, 3)}
        seen.append((event["id"], event["data"]["object"]["id"]))
        return web.json_response({"status": "ok"})

    async with serving(answer) as caller:
        workload = caller.event()
        result = await run_client(workload, caller, connections=3, seconds=0.5, seed=1, client="wrk")

    assert (result.errors, result.client) == ({}, "raw"), "wrk cannot sign"
    assert len({event for event, _ in seen}) == len({intent for _, intent in seen}) == len(seen) > 3


async def test_a_forged_event_has_to_be_refused() -> None:
    answered = 0

    async def answer(request: web.Request) -> web.Response:
        nonlocal answered
        answered += 1
        stripe.WebhookSignature.verify_header(
            await request.text(), request.headers["Stripe-Signature"], UNKNOWN_SECRET, 300
        )
        return web.json_response({}, status=200 if answered == 3 else 400)

    async with serving(answer) as caller:
        workload = caller.forged_event()
        result = await run_client(workload, caller, connections=1, seconds=0.5, seed=1, client="raw")

    assert result.errors == {"status": 1}


async def test_an_open_loop_sends_what_is_due_and_half_of_it_again() -> None:
    bodies: Counter[bytes] = Counter()

    async def answer(request: web.Request) -> web.Response:
        bodies[await request.read()] += 1
        return web.json_response({})

    async with serving(answer) as caller:
        workload = caller.event(repeats=0.5)
        result = await run_client(
            workload, caller, connections=4, seconds=1, seed=1, client="raw", rate=400.0
        )

    assert (result.errors, result.requests) == ({}, 400)
    assert sum(bodies.values()) == 400
    assert 150 < len(bodies) < 250


async def test_an_open_loop_counts_a_stall_for_all_that_it_delays() -> None:
    stalled = 0

    async def answer(request: web.Request) -> web.Response:
        nonlocal stalled
        stalled += 1
        if stalled <= 2:
            await asyncio.sleep(0.5)
        return web.json_response({})

    async with serving(answer) as caller:
        result = await open_rate.run(job(caller, caller.event()))

    assert (+Counter(result.errors), result.requests) == ({}, 100)
    # The half that fell due meanwhile waited, one more than 0.2 s in four.
    assert result.latency_ms["p90"] > 200
    assert result.latency_ms["max"] > 450


async def test_what_an_open_loop_has_no_answer_to_is_an_error() -> None:
    never = asyncio.Event()

    async def answer(request: web.Request) -> web.Response:
        await never.wait()
        return web.json_response({})

    async with serving(answer) as caller:
        result = await open_rate.run(job(caller, caller.event(), seconds=0.1, timeout_seconds=0.2))
        never.set()

    assert result.requests == 0
    assert +Counter(result.errors) == {"timeout": 10}
