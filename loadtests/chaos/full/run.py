"""A full run: three loads flow, step follows step, and the books are audited on the way, beside the traffic."""

import asyncio
import math
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Sequence
from typing import Any

import msgspec

from loadtests.chaos import audit as events_audit
from loadtests.chaos.ending import TIME_IS_UP, Ending
from loadtests.chaos.full import audit
from loadtests.chaos.full.faults import FullFaults
from loadtests.chaos.full.loads import STORM, Loads
from loadtests.chaos.full.movers import Moved
from loadtests.chaos.full.plan import KINDS, Plan, steps
from loadtests.chaos.full.stage import FullStage
from loadtests.chaos.payments import audit as payments_audit
from loadtests.chaos.payments.run import TROUBLES
from loadtests.chaos.plan import Fault

POLL_SECONDS = 0.02
#: A short script has one checkpoint for so many steps, and one at least.
MOST_OFTEN = 5


class Run:
    """The parts of a run, once its stage stands."""

    def __init__(
        self, plan: Plan, stage: FullStage, loads: Loads, say: Callable[[str], None], ending: Ending
    ) -> None:
        self._ending = ending
        self._plan, self._stage, self._loads, self._say = plan, stage, loads, say
        self.script = steps(plan)[plan.first_step - 1 :]
        self.faults = FullFaults(
            stage,
            plan,
            storm=lambda: loads.trouble(STORM),
            calm=lambda: loads.trouble(TROUBLES),
        )
        self.recoveries: defaultdict[str, list[float]] = defaultdict(list)
        self.no_comeback: list[str] = []
        self.steps = 0
        self.checkpoints = 0
        self.ended_early = ""
        self.broken: dict[str, list[str]] = {}
        self._began = time.monotonic()

    async def play(self) -> None:
        """Let the loads flow and make the faults; return when everything that was begun is answered or given up."""
        loads = self._loads
        await loads.trouble(TROUBLES)
        await loads.provider.release(sys.maxsize)
        wanted = min(self._plan.checkpoints, max(1, len(self.script) // MOST_OFTEN))
        every = max(1, len(self.script) // (wanted + 1))
        flows = [asyncio.create_task(flow) for flow in loads.run()]
        try:
            for number, step in enumerate(self.script, 1):
                if self._is_over():
                    break
                await self._make(number, step)
                self.steps += 1
                for flow in flows:
                    if flow.done():
                        await flow
                if number % every == 0 and self.checkpoints < wanted and not self._ending.reason:
                    await self._check()
            loads.finish()
            self._say("the faults are over; waiting until every request is answered")
            await self._patiently(lambda: all(flow.done() for flow in flows))
            loads.give_up()
            await asyncio.gather(*flows)
        finally:
            for flow in flows:
                flow.cancel()
            await asyncio.gather(*flows, return_exceptions=True)

    def _is_over(self) -> bool:
        """Whether no further step is to begin, since somebody has said so or the time is up."""
        if not self._ending.reason and time.monotonic() - self._began > (self._plan.seconds or math.inf):
            self._ending.reason = TIME_IS_UP
        self.ended_early = self._ending.reason
        return bool(self.ended_early)

    async def _make(self, number: int, step: Sequence[Fault]) -> None:
        left_out = self.faults.left_out()
        made = [fault for fault in step if fault.name not in left_out]
        await self.faults.make_all(made)
        ended, before = time.monotonic(), self._loads.acknowledged()
        names = " + ".join(f"{fault.name} {fault.seconds:g} s" for fault in made)
        if not await self._patiently(lambda: self._loads.acknowledged() > before):
            self.no_comeback.append(names)
        took = time.monotonic() - ended
        for fault in made:
            self.recoveries[fault.name].append(took)
        kills = self.made(kills=True)
        self._say(
            f"[{number:>3}/{len(self.script)}] {kills:,} kills in {time.monotonic() - self._began:,.0f} s: "
            f"{names}: back after {took:.2f} s; {self._loads.acknowledged():,} acknowledged"
        )

    def made(self, *, kills: bool) -> int:
        """Return the number of faults so far that kill, or that do not."""
        return sum(len(took) for name, took in self.recoveries.items() if KINDS[name].kills is kills)

    async def _patiently(self, question: Callable[[], bool]) -> bool:
        """Wait until the answer is yes; no longer than the plan's patience without any acknowledgement."""
        seen, since = self._loads.acknowledged(), time.monotonic()
        while not question():
            self._stage.links.check()
            if self._loads.acknowledged() != seen:
                seen, since = self._loads.acknowledged(), time.monotonic()
            if time.monotonic() - since > self._plan.patience_seconds:
                return False
            await asyncio.sleep(POLL_SECONDS)
        return True

    async def _check(self) -> None:
        """Audit the books beside the traffic: what must hold at every moment."""
        loads, started = self._loads, time.monotonic()
        moved = [one for one in loads.movers.book.moved.values() if one.status]
        told = set(loads.provider.journal.acknowledged)
        # Thousands of rows are read and compared: a thread leaves the loads their turn.
        found = await asyncio.to_thread(lambda: asyncio.run(self._held_against(moved, told)))
        found["ledger"] = await events_audit.verified(self._stage.database_url)
        self.checkpoints += 1
        for check, cases in found.items():
            if cases:
                self.broken.setdefault(check, []).extend(
                    f"checkpoint {self.checkpoints}: {case}" for case in cases
                )
                self._say(f"checkpoint {self.checkpoints}: {check}: {len(cases)}: {cases[:2]}")
        self._say(
            f"checkpoint {self.checkpoints}: {time.monotonic() - started:.1f} s, {len(self.broken)} checks broken"
        )

    async def _held_against(self, moved: Collection[Moved], told: Collection[str]) -> dict[str, list[str]]:
        """Read the books, and hold them against what had been answered and told before; more may have come since."""
        async with self._stage.connect() as connection:
            ledger = await audit.look(connection)
            inbox = {row["event_id"] for row in await connection.fetch("SELECT event_id FROM inbox_events")}
        found = audit.on_the_way(moved, self._loads.movers.book, ledger)
        found["lost_at_the_door"] = sorted(one for one in told if one not in inbox)
        found["books"] = await events_audit.disagreements(self._stage.database_url)
        return found

    async def settle(self) -> "Evidence":
        """Let everything become due, wait until all is applied, delivered and known, and read the evidence."""
        loads, stage = self._loads, self._stage
        await loads.book.put("/faults", {})
        await loads.book.post("/webhooks/release")
        if stage.host.clock is not None:
            # Work that a clock that was ahead has put off is due at that time, and no earlier.
            stage.host.clock.move(stage.host.clock.furthest + 1)
        await stage.wait_ready()
        seen, since = "", time.monotonic()
        async with stage.connect() as connection:
            while True:
                evidence = await self._look(connection)
                stage.links.check()
                left = evidence.left()
                if not any(left.values()) or time.monotonic() - since > self._plan.patience_seconds:
                    evidence.ledger.backwards = await audit.ran_back(connection)
                    return evidence
                if str(left) != seen:
                    seen, since = str(left), time.monotonic()
                    self._say(f"still to come: {left}")
                await asyncio.sleep(1.0)

    async def _look(self, connection: Any) -> "Evidence":
        loads, stage = self._loads, self._stage
        journal = loads.provider.journal
        wanted = {event.intent for event in journal.sent.values() if event.id in journal.acknowledged}
        payments = await payments_audit.look(connection, await loads.book.book())
        payments.answered, payments.asked = loads.buyers.created.keys(), loads.buyers.asked
        ledger = await audit.look(connection)
        return Evidence(
            await events_audit.undone(connection),
            len(wanted - events_audit.delivered(stage.lines())),
            payments,
            ledger,
            ledger.events - loads.movers.book.position,
        )


class Evidence(msgspec.Struct):
    """The evidence while all settles."""

    undone: int
    undelivered: int
    payments: payments_audit.Evidence
    ledger: audit.Ledger
    unread: int

    def left(self) -> dict[str, int]:
        """Return what is still to come, by its kind."""
        unknown = [
            finding for finding in payments_audit.judge(self.payments) if finding.check != "not_answered"
        ]
        return {
            "events to apply": self.undone,
            "events to deliver": self.undelivered,
            "payments to be known": sum(finding.count for finding in unknown),
            "holds to expire": sum(row["state"] == audit.OPEN for row in self.ledger.holds),
            "events of the feed to read": self.unread,
        }
