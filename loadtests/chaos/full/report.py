"""The report of a full run, and the whole run from the first start to the last audit."""

import asyncio
import contextlib
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import aiohttp
import msgspec

from loadtests.bench import machine
from loadtests.bench.report import now
from loadtests.bench.stand import child_environment
from loadtests.chaos import audit as events_audit
from loadtests.chaos.audit import EXAMPLES, Finding
from loadtests.chaos.ending import Ending
from loadtests.chaos.full import audit
from loadtests.chaos.full.lag import Lag
from loadtests.chaos.full.loads import Loads
from loadtests.chaos.full.plan import Plan
from loadtests.chaos.full.run import Evidence, Run
from loadtests.chaos.full.stage import FullStage
from loadtests.chaos.payments import audit as payments_audit
from loadtests.chaos.payments.buyers import TILL_SECONDS
from loadtests.chaos.provider import ANSWER_TIMEOUT_SECONDS

#: Connections of the loads at once.
MOST_CONNECTIONS = 512
NO_ROOM = "No space left on device"


class Recovery(msgspec.Struct, frozen=True, kw_only=True):
    """The seconds from the end of faults of one kind until a write was acknowledged again."""

    times: int
    p50: float
    p95: float
    longest: float


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """A run, as it is written to its file."""

    started_at: str
    seconds: float
    commit: str
    machine: dict[str, object]
    plan: Plan
    kills: int
    others: int
    steps: int
    """The steps that were made. The one after them is the first of a run that goes on."""
    steps_planned: int = 0
    ended_early: str = ""
    """Why not all of them were made: `--seconds`, or the signal's name."""
    faults: dict[str, Recovery]
    left_out: dict[str, str]
    checkpoints: int
    disk_full_errors: int
    """Lines of PostgreSQL's log about a full disk: the proof that the fault was felt."""
    events: dict[str, int]
    transfers: dict[str, int]
    payments: dict[str, int]
    answers: dict[str, dict[str, int]]
    seconds_until_settled: float
    longest_lags: dict[str, float] = {}
    """For how many seconds the process of the loads and that of the links waited for their turn at most, under load."""
    ended_by_themselves: dict[str, int]
    findings: list[Finding]
    state: str = ""
    """The state folder, kept because something was found."""


async def run_full(
    plan: Plan,
    *,
    parent: Path,
    say: Callable[[str], None],
    postgres_options: Mapping[str, str] | None = None,
    ending: Ending | None = None,
) -> Report:
    """Do a whole run on a stage below `parent` and report it. All processes are stopped however it ends.

    A reason in `ending` lets the run end after the step at hand: it settles, is audited and reported as ever.
    """
    ending = ending or Ending()
    started_at, started, commit = now(), time.monotonic(), machine.commit()
    say("starting PostgreSQL, Valkey, the API, workers, tills, the provider and the receiver")
    async with contextlib.AsyncExitStack() as stack:
        stage = FullStage(plan.seed, parent=parent, say=say, postgres_options=postgres_options)
        await stack.enter_async_context(stage)
        timeout = aiohttp.ClientTimeout(max(TILL_SECONDS, ANSWER_TIMEOUT_SECONDS))
        connector = aiohttp.TCPConnector(limit=MOST_CONNECTIONS)
        session = await stack.enter_async_context(aiohttp.ClientSession(timeout=timeout, connector=connector))
        loads = Loads(plan, stage, session)
        run = Run(plan, stage, loads, say, ending)
        stage.keep, ending.state = True, str(stage.folder)
        lag = Lag()
        for beside in (loads.movers.read_feed(), lag.measure()):
            stack.callback(asyncio.create_task(beside).cancel)
        await run.play()
        lags = {"loads": round(lag.longest, 2), "links": round(await stage.links.lag(), 2)}
        ended = time.monotonic()
        evidence = await run.settle()
        settled = time.monotonic() - ended
        say("drawing up the accounts")
        findings = await _judge(run, loads, stage, evidence)
        stage.keep = bool(findings)
        return Report(
            started_at=started_at,
            seconds=round(time.monotonic() - started, 1),
            commit=commit,
            machine=machine.facts(),
            plan=plan,
            kills=run.made(kills=True),
            others=run.made(kills=False),
            steps=run.steps,
            steps_planned=len(run.script),
            ended_early=run.ended_early,
            faults={name: _recovery(took) for name, took in sorted(run.recoveries.items())},
            left_out=run.faults.left_out(),
            checkpoints=run.checkpoints,
            disk_full_errors=_no_room(stage.servers.postgres.log),
            **_counts(loads, evidence),
            seconds_until_settled=round(settled, 1),
            longest_lags=lags,
            ended_by_themselves={member.name: member.ends for member in stage.members if member.ends},
            findings=findings,
            state=str(stage.folder) if findings else "",
        )


async def _judge(run: Run, loads: Loads, stage: FullStage, evidence: Evidence) -> list[Finding]:
    """Hold everything against every promise."""
    async with stage.connect() as connection:
        events = await events_audit.collect(
            connection, stage.database_url, loads.provider.journal, stage.lines(), await stage.balances()
        )
    events.no_comeback = run.no_comeback
    moves = audit.in_the_end(loads.movers.book, evidence.ledger, await _reconciled(stage.database_url))
    on_the_way = [
        Finding(check=check, count=len(cases), examples=cases[:EXAMPLES])
        for check, cases in run.broken.items()
    ]
    return [
        *on_the_way,
        *events_audit.judge(events),
        *payments_audit.judge(evidence.payments),
        *audit.findings(moves),
    ]


async def _reconciled(database_url: str) -> list[str]:
    """Return the complaint of `tallystick reconcile`, run as a program of its own; none where it ends with 0."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "ops.cli", "reconcile", "--once"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env=child_environment({"ENV": "test", "DATABASE_URL": database_url}),
        start_new_session=True,
    )
    output, _ = await process.communicate()
    return [output.decode(errors="replace")[-1000:]] if process.returncode else []


def _counts(loads: Loads, evidence: Evidence) -> dict[str, Any]:
    """Return how much each load did, and how often it was answered how."""
    journal, book, payments = loads.provider.journal, loads.movers.book, evidence.payments
    charged = [one for one in payments.listed if one["standing"] == "paid"]
    deeds = [one.deed for one in book.moved.values() if one.status and not one.code]
    return {
        "events": {
            "sent": len(journal.sent),
            "forged": len(journal.forged),
            "acknowledged": sum(event_id in journal.acknowledged for event_id in journal.sent),
        },
        "transfers": {
            "asked": len(book.moved),
            "answered": book.answered,
            **{deed: deeds.count(deed) for deed in sorted(set(deeds))},
            "too late": sum(bool(one.code) for one in book.moved.values()),
            "events of the feed": book.position,
        },
        "payments": {
            "asked": loads.buyers.asked,
            "answered": len(loads.buyers.created),
            **payments.states(),
            "charged": len(charged),
            "earned": sum(one["amount"] - one["fee"] for one in charged),
        },
        "answers": {
            "events": dict(sorted(journal.statuses.items())),
            "transfers": dict(sorted(book.statuses.items())),
            "tills": dict(sorted(loads.buyers.answers.items())),
        },
    }


def _recovery(took: list[float]) -> Recovery:
    ordered = sorted(took)
    return Recovery(
        times=len(ordered),
        p50=round(statistics.median(ordered), 2),
        p95=round(ordered[min(len(ordered) - 1, int(0.95 * len(ordered)))], 2),
        longest=round(ordered[-1], 2),
    )


def _no_room(log: Path) -> int:
    """Return the number of lines about a full disk."""
    with log.open(errors="replace") as lines:
        return sum(NO_ROOM in line for line in lines)
