"""One run: the stream flows, fault follows fault, the dust settles, and the accounts are drawn up."""

import asyncio
import contextlib
import random
import statistics
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import aiohttp
import msgspec

from loadtests.bench import machine
from loadtests.bench.report import now
from loadtests.chaos.audit import Finding, collect, delivered, judge, undone
from loadtests.chaos.faults import Faults, first_failure
from loadtests.chaos.plan import Fault, Plan, events, steps
from loadtests.chaos.provider import ANSWER_TIMEOUT_SECONDS, MAX_SENDING, Provider
from loadtests.chaos.stage import Stage

POLL_SECONDS = 0.05
#: A fault comes when this share of its stretch of the stream has been sent.
EARLIEST, LATEST = 0.2, 0.6


class Comeback(msgspec.Struct, frozen=True, kw_only=True):
    """The seconds from the end of faults of one kind until an event was acknowledged again."""

    times: int
    median: float
    longest: float


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """A run, as it is written to its file."""

    started_at: str
    seconds: float
    commit: str
    machine: dict[str, object]
    plan: Plan
    kills: int
    faults: dict[str, Comeback]
    sent: int
    forged: int
    acknowledged: int
    answers: dict[str, int]
    deliveries: dict[str, int]
    ended_by_themselves: dict[str, int]
    findings: list[Finding]


class Run:
    """The parts of a run, once its stage stands."""

    def __init__(self, plan: Plan, stage: Stage, provider: Provider, say: Callable[[str], None]) -> None:
        self._plan = plan
        self._stage = stage
        self._provider = provider
        self._say = say
        self._random = random.Random(f"moments {plan.seed}")
        self.comebacks: defaultdict[str, list[float]] = defaultdict(list)
        self.no_comeback: list[str] = []

    async def play(self) -> None:
        """Send the stream and make the faults of the plan, until every event is acknowledged or given up."""
        script = steps(self._plan)
        stretch = self._plan.events / (len(script) + 1)
        faults = Faults(self._stage, self._plan.seed)
        async with asyncio.TaskGroup() as group:
            stream = group.create_task(self._provider.run())
            for number, step in enumerate(script):
                await self._provider.release(round(stretch * (number + 1)))
                await self._reach(stretch * (number + self._random.uniform(EARLIEST, LATEST)))
                async with asyncio.TaskGroup() as together:
                    for fault in step:
                        together.create_task(faults.make(fault))
                # The next acknowledgement shows that the service is back.
                await self._provider.release(round(stretch * (number + 2)))
                await self._come_back(step)
                self._tell(number + 1, len(script), step)
            await self._provider.release(self._plan.events)
            await self._patiently(stream.done)
            self._provider.give_up()

    async def _reach(self, moment: float) -> None:
        await self._patiently(lambda: self._provider.started >= moment)

    async def _come_back(self, step: Sequence[Fault]) -> None:
        ended, before = time.monotonic(), self._answers()
        names = " + ".join(fault.name for fault in step)
        if not await self._patiently(lambda: self._answers() > before):
            self.no_comeback.append(names)
        for fault in step:
            self.comebacks[fault.name].append(time.monotonic() - ended)

    def _answers(self) -> int:
        return self._provider.journal.statuses["200"]

    async def _patiently(self, question: Callable[[], bool]) -> bool:
        """Wait until the answer is yes; no longer than the plan's patience without any acknowledgement."""
        seen, since = self._answers(), time.monotonic()
        while not question():
            if self._answers() != seen:
                seen, since = self._answers(), time.monotonic()
            if time.monotonic() - since > self._plan.patience_seconds:
                return False
            await asyncio.sleep(POLL_SECONDS)
        return True

    async def settle(self) -> None:
        """Wait until all is applied and delivered, as long as anything gets on."""
        journal, seen, since = self._provider.journal, (-1, -1), time.monotonic()
        self._say("waiting until everything is applied and delivered")
        await self._stage.wait_ready()
        async with self._stage.connect() as connection:
            while time.monotonic() - since < self._plan.patience_seconds:
                wanted = {event.intent for event in journal.sent.values() if event.id in journal.acknowledged}
                left = (await undone(connection), len(wanted - delivered(self._stage.lines())))
                if left == (0, 0):
                    return
                if left != seen:
                    seen, since = left, time.monotonic()
                await asyncio.sleep(POLL_SECONDS)

    def _tell(self, number: int, count: int, step: Sequence[Fault]) -> None:
        faults = " + ".join(f"{fault.name} {fault.seconds:g} s" for fault in step)
        back = max(self.comebacks[fault.name][-1] for fault in step)
        self._say(
            f"[{number:>3}/{count}] {faults}: back after {back:.2f} s; "
            f"{len(self._provider.journal.acknowledged):,} of {self._plan.events:,} acknowledged"
        )


async def run_chaos(
    plan: Plan,
    *,
    parent: Path,
    say: Callable[[str], None],
    postgres_options: Mapping[str, str] | None = None,
) -> Report:
    """Do a whole run on a stage below `parent` and report it. All processes are stopped however it ends."""
    started_at, started = now(), time.monotonic()
    say("starting PostgreSQL, Valkey, the API, two workers and a receiver")
    async with contextlib.AsyncExitStack() as stack:
        stage = await stack.enter_async_context(
            Stage(plan.seed, parent=parent, say=say, postgres_options=postgres_options)
        )
        session = await stack.enter_async_context(
            aiohttp.ClientSession(
                timeout=aiohttp.ClientTimeout(ANSWER_TIMEOUT_SECONDS),
                connector=aiohttp.TCPConnector(limit=MAX_SENDING),
            )
        )
        provider = Provider(plan, events(plan), stage.url, session)
        run = Run(plan, stage, provider, say)
        try:
            await run.play()
        except ExceptionGroup as failed:
            raise first_failure(failed) from None
        await run.settle()
        say("drawing up the accounts")
        async with stage.connect() as connection:
            evidence = await collect(
                connection, stage.database_url, provider.journal, stage.lines(), await stage.balances()
            )
        evidence.no_comeback = run.no_comeback
        ends = {member.name: member.ends for member in stage.members if member.ends}
    journal = provider.journal
    script = [fault for step in steps(plan) for fault in step]
    return Report(
        started_at=started_at,
        seconds=round(time.monotonic() - started, 1),
        commit=machine.commit(),
        machine=machine.facts(),
        plan=plan,
        kills=sum(fault.kind.kills for fault in script),
        faults={name: _comeback(seconds) for name, seconds in sorted(run.comebacks.items())},
        sent=len(journal.sent),
        forged=len(journal.forged),
        acknowledged=sum(event_id in journal.acknowledged for event_id in journal.sent),
        answers=dict(sorted(journal.statuses.items())),
        deliveries={
            str(answer): count
            for answer, count in sorted(Counter(line.answer for line in evidence.received).items())
        },
        ended_by_themselves=ends,
        findings=judge(evidence),
    )


def _comeback(seconds: list[float]) -> Comeback:
    return Comeback(
        times=len(seconds), median=round(statistics.median(seconds), 2), longest=round(max(seconds), 2)
    )
