"""One run: buyers buy, fault follows fault, the provider is well again, and everything is held against its book."""

import asyncio
import contextlib
import random
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import aiohttp
import msgspec

from loadtests.bench import machine
from loadtests.bench.report import now
from loadtests.chaos.audit import Finding, disagreements, verified
from loadtests.chaos.payments.audit import Evidence, judge, look
from loadtests.chaos.payments.buyers import AT_ONCE, TILL_SECONDS, Buyers, Plan
from loadtests.chaos.payments.stage import FIRST, KINDS, PaymentStage
from loadtests.chaos.plan import Fault

POLL_SECONDS = 0.05
#: The accounts are drawn up so often while the rest is found out.
LOOK_SECONDS = 2.0
PAGE = 1_000

#: The shares of the provider's calls that go wrong, each drawn for itself.
TROUBLES = {
    "create:paid": 0.4,
    "create:timeout": 0.2,
    "create:error": 0.05,
    "create:reset": 0.05,
    "create:html": 0.02,
    "create:error_before": 0.05,
    "look:reset": 0.1,
    "cancel:timeout": 0.1,
    "webhook:twice": 0.3,
    "webhook:drop": 0.2,
    "webhook:late": 0.3,
}


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """A run, as it is written to its file."""

    started_at: str
    seconds: float
    commit: str
    machine: dict[str, object]
    plan: Plan
    faults: dict[str, int]
    troubles: dict[str, float]
    answers: dict[str, int]
    deeds: dict[str, int]
    states: dict[str, int]
    seconds_until_known: float
    """From the last answer of a till until every payment stood as at the provider."""
    charged: int
    earned: int
    ended_by_themselves: dict[str, int]
    findings: list[Finding]


async def run_payments(
    plan: Plan,
    *,
    parent: Path,
    say: Callable[[str], None],
    postgres_options: Mapping[str, str] | None = None,
) -> Report:
    """Do a whole run on a stage below `parent` and report it. All processes are stopped however it ends."""
    started_at, started = now(), time.monotonic()
    say("starting PostgreSQL, Valkey, the API, two workers, two tills and the provider")
    async with contextlib.AsyncExitStack() as stack:
        stage = PaymentStage(plan.seed, parent=parent, say=say, postgres_options=postgres_options)
        stage.told = plan.told
        await stack.enter_async_context(stage)
        session = await stack.enter_async_context(
            aiohttp.ClientSession(
                timeout=aiohttp.ClientTimeout(TILL_SECONDS),
                connector=aiohttp.TCPConnector(limit=4 * AT_ONCE),
            )
        )
        provider = Book(stage.provider_url, session)
        rules = [{"fault": fault, "share": share} for fault, share in TROUBLES.items()]
        await provider.put("/faults", {"seed": plan.seed, "rules": rules})
        buyers = Buyers(plan, stage.till_urls, stage.provider_url, session)
        faults = await _play(plan, stage, buyers, say)
        await provider.put("/faults", {})
        await provider.post("/webhooks/release")
        say("the provider is well again; waiting until every payment is known")
        ended = time.monotonic()
        evidence = await _settle(plan, stage, provider, say)
        known_after = time.monotonic() - ended
        say("drawing up the accounts")
        evidence.answered, evidence.asked = buyers.created.keys(), plan.payments
        evidence.ledger = await verified(stage.database_url)
        evidence.books = await disagreements(stage.database_url)
        ends = {member.name: member.ends for member in stage.members if member.ends}
    paid = [one for one in evidence.listed if one["standing"] == "paid"]
    return Report(
        started_at=started_at,
        seconds=round(time.monotonic() - started, 1),
        commit=machine.commit(),
        machine=machine.facts(),
        plan=plan,
        faults=faults,
        troubles=TROUBLES,
        answers=dict(sorted(buyers.answers.items())),
        deeds=dict(sorted(buyers.deeds.items())),
        states=evidence.states(),
        seconds_until_known=round(known_after, 1),
        charged=len(paid),
        earned=sum(one["amount"] - one["fee"] for one in paid),
        ended_by_themselves=ends,
        findings=judge(evidence),
    )


def steps(plan: Plan) -> list[Fault]:
    """Return the faults in their order: every kind before any comes again, those of our own processes first."""
    draw = random.Random(f"payment faults {plan.seed}")
    found: list[Fault] = []
    rest = sorted(KINDS.keys() - {*FIRST})
    while sum(KINDS[fault.name].kills for fault in found) < plan.kills:
        for name in [*draw.sample(FIRST, len(FIRST)), *draw.sample(rest, len(rest))]:
            kind = KINDS[name]
            found.append(Fault(name, round(draw.uniform(kind.shortest, kind.longest), 2)))
    while sum(KINDS[fault.name].kills for fault in found) > plan.kills:
        found.pop()
    return found


async def _play(
    plan: Plan, stage: PaymentStage, buyers: Buyers, say: Callable[[str], None]
) -> dict[str, int]:
    """Let the buyers buy and make the faults meanwhile; return how often each was made."""
    script, maker = steps(plan), stage.faults()
    made: dict[str, int] = {}
    buying = asyncio.create_task(buyers.run())
    try:
        for number, fault in enumerate(script, 1):
            moment = plan.payments * number / (len(script) + 1)
            await _patiently(plan, buyers, lambda: len(buyers.created) >= moment)  # noqa: B023
            await maker.make(fault)
            made[fault.name] = made.get(fault.name, 0) + 1
            say(
                f"[{number:>3}/{len(script)}] {fault.name} {fault.seconds:g} s;"
                f" {len(buyers.created):,} of {plan.payments:,} answered"
            )
        await _patiently(plan, buyers, buying.done)
        buyers.give_up()
        await buying
    finally:
        buying.cancel()
    return dict(sorted(made.items()))


async def _patiently(plan: Plan, buyers: Buyers, question: Callable[[], bool]) -> None:
    """Wait until the answer is yes; no longer than the plan's patience without any answer of a till."""
    seen, since = -1, time.monotonic()
    while not question() and time.monotonic() - since < plan.patience_seconds:
        if len(buyers.created) != seen:
            seen, since = len(buyers.created), time.monotonic()
        await asyncio.sleep(POLL_SECONDS)


async def _settle(plan: Plan, stage: PaymentStage, provider: "Book", say: Callable[[str], None]) -> Evidence:
    """Wait until all is known, as long as anything gets on; return the last evidence."""
    seen, since = -1, time.monotonic()
    await stage.wait_ready()
    async with stage.connect() as connection:
        while True:
            evidence = await look(connection, await provider.book())
            findings = judge(evidence)
            left = sum(finding.count for finding in findings if finding.check != "wrong_balance")
            if not findings or time.monotonic() - since > plan.patience_seconds:
                return evidence
            if left != seen:
                seen, since = left, time.monotonic()
                say(f"{left:,} to be found out; {evidence.states()}")
            await asyncio.sleep(LOOK_SECONDS)


class Book:
    """The simulator's switches and book."""

    def __init__(self, url: str, session: aiohttp.ClientSession) -> None:
        self._url = url
        self._session = session

    async def put(self, path: str, body: dict[str, Any]) -> None:
        """Set a switch."""
        async with self._session.put(self._url + path, json=body) as response:
            response.raise_for_status()

    async def post(self, path: str) -> None:
        """Push a button."""
        async with self._session.post(self._url + path) as response:
            response.raise_for_status()

    async def book(self) -> list[dict[str, Any]]:
        """Return all payments."""
        found: list[dict[str, Any]] = []
        while True:
            query = {"after": str(len(found)), "limit": str(PAGE)}
            async with self._session.get(f"{self._url}/v1/payments", params=query) as response:
                page = (await response.json())["payments"]
            found += page
            if len(page) < PAGE:
                return found
