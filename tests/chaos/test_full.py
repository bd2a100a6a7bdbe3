"""A short run of `make chaos` as a whole, what its seed decides, what its audit finds."""

import asyncio
import io
import os
import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import msgspec
import pytest
from click.testing import CliRunner
from rich.console import Console

from loadtests.bench.stand import StandError
from loadtests.chaos.audit import Finding
from loadtests.chaos.command import execute
from loadtests.chaos.ending import Ending
from loadtests.chaos.full import command
from loadtests.chaos.full.audit import Ledger, in_the_end
from loadtests.chaos.full.movers import ACCOUNTS, Book, Moved
from loadtests.chaos.full.plan import KILLS, KINDS, OTHERS, Plan, steps
from loadtests.chaos.full.report import Recovery, Report, run_full
from ops.commands.develop.chaos import chaos
from ops.process import children_of, command_line_of
from tests.chaos.conftest import POSTGRES_OPTIONS
from tests.chaos.test_chaos import parent  # noqa: F401 - a fixture

pytestmark = pytest.mark.drill


async def test_a_short_full_run_loses_nothing_and_doubles_nothing(
    parent: Path,  # noqa: F811
    record_property: Callable[[str, object], None],
) -> None:
    said: list[str] = []
    # The seed has a full disk and a moved clock among its few faults.
    plan = Plan(seed=39, kills=8, events_a_second=15, transfers_a_second=10, checkpoints=1)
    report = await run_full(plan, parent=parent, say=said.append, postgres_options=POSTGRES_OPTIONS)
    for fault, reason in report.left_out.items():
        record_property("left_out", f"the chaos of {fault}: {reason}")
    assert report.findings == [], said
    assert report.kills == plan.kills
    assert report.checkpoints == plan.checkpoints
    for load in (report.events, report.transfers, report.payments):
        assert min(load.values()) >= 0
    assert report.events["sent"] == report.events["acknowledged"] > 0
    assert report.transfers["asked"] == report.transfers["answered"] > 0
    assert report.payments["asked"] == report.payments["answered"] > 0
    assert list(parent.iterdir()) == []
    assert msgspec.json.decode(msgspec.json.encode(report), type=Report) == report


def test_a_full_run_has_every_fault_and_a_thousand_kills() -> None:
    for seed in (1, 12):
        script = steps(Plan(seed=seed))
        assert script == steps(Plan(seed=seed)) != steps(Plan(seed=seed + 1))
        times = Counter(fault.name for step in script for fault in step)
        assert sum(count for name, count in times.items() if KINDS[name].kills) == Plan().kills == 1_000
        assert times.keys() == KINDS.keys()
        # The API and the workers are killed most often, and the servers several dozen times each.
        assert min(times["api.kill"], times["worker.kill"]) > max(
            times[name] for name in KILLS.keys() - {"api.kill", "worker.kill"}
        )
        assert min(times["postgres.kill"], times["valkey.kill"], times["valkey.wipe"]) >= 36
        assert all(times[name] >= 3 for name in OTHERS)
        for step in script:
            # Two faults of one target at once would be one.
            assert len({KINDS[fault.name].target for fault in step}) == len(step)
            assert all(
                KINDS[fault.name].shortest <= fault.seconds <= KINDS[fault.name].longest for fault in step
            )


def kill_the_links() -> None:
    """End the process of the links of the run that goes on in this process."""
    (links,) = [pid for pid in children_of(os.getpid()) if "chaos.full.proxies" in command_line_of(pid)]
    os.kill(links, signal.SIGKILL)


async def test_a_run_whose_links_die_finds_nothing_and_says_so(parent: Path) -> None:  # noqa: F811

    def say(text: str) -> None:
        if text.startswith("[  1/"):
            kill_the_links()

    plan = Plan(seed=2, kills=40, payments_a_second=0.1)
    ending = Ending()
    with pytest.raises(StandError, match="the harness failed, not the service"):
        await run_full(plan, parent=parent, say=say, postgres_options=POSTGRES_OPTIONS, ending=ending)
    # The logs stay, for somebody to see why.
    assert Path(ending.state, "logs", "links.log").exists()


async def test_a_run_that_is_told_to_end_is_audited_and_reports_its_steps(parent: Path) -> None:  # noqa: F811
    ending = Ending()

    def say(text: str) -> None:
        if text.startswith("[  2/"):
            ending.reason = "SIGTERM"

    plan = Plan(seed=2, kills=40, payments_a_second=0.1)
    report = await run_full(plan, parent=parent, say=say, postgres_options=POSTGRES_OPTIONS, ending=ending)
    assert report.findings == []
    assert (report.ended_early, report.steps, report.steps_planned) == ("SIGTERM", 2, len(steps(plan)))
    assert report.events["sent"] == report.events["acknowledged"] > 0
    assert report.longest_lags.keys() == {"loads", "links"}
    assert list(parent.iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("signals", [1, 2])
def test_the_first_signal_ends_a_run_in_good_order_and_the_second_one_at_once(
    tmp_path: Path, number: signal.Signals, signals: int
) -> None:
    ending = Ending(state="/kept")

    async def run(_: Plan, **_more: Any) -> str:
        for _sent in range(signals):
            os.kill(os.getpid(), number)
        while signals > 1 or not ending.reason:  # noqa: ASYNC110 - a signal is what is waited for
            await asyncio.sleep(0.01)
        return "reported"

    console = Console(file=io.StringIO(), width=200)
    said = console.file.getvalue  # type: ignore[attr-defined]
    if signals == 1:
        assert execute(Plan(), run, parent=tmp_path, console=console, ending=ending) == "reported"
        assert f"{number.name}: the step is finished, then comes the audit" in said()
    else:
        with pytest.raises(click.exceptions.Exit) as ended:
            execute(Plan(), run, parent=tmp_path, console=console, ending=ending)
        assert ended.value.exit_code == 130
        assert "stopped; nothing was written\nThe state is kept in /kept." in said()
    assert ending.reason == number.name


@pytest.mark.parametrize(
    ("reason", "findings", "code"), [("", 0, 0), ("--seconds", 0, 0), ("SIGTERM", 0, 130), ("SIGTERM", 1, 1)]
)
def test_the_command_writes_a_report_however_the_run_ends(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, reason: str, findings: int, code: int
) -> None:
    found = [Finding(check="move_lost", count=1, examples=["move-1"])] * findings
    report = a_report(ended_early=reason, findings=found)

    def execute(_plan: Plan, _run: Any, *, ending: Ending, **_more: Any) -> Report:
        ending.reason = reason
        return report

    monkeypatch.setattr(command, "execute", execute)
    output = tmp_path / "folder" / "chaos.json"
    result = CliRunner().invoke(chaos, ["--step", "5", "--output", str(output)])
    assert result.exit_code == code, result.output
    assert msgspec.json.decode(output.read_bytes(), type=Report) == report
    words = f"ENDED EARLY by {reason}: 3 of 9 steps were made; `--step 8` goes on"
    assert (words in result.output) is bool(reason)
    assert ("move-1" in result.output) is bool(findings)


def a_report(**changes: Any) -> Report:
    empty: dict[str, Any] = {name: {} for name in ("machine", "left_out", "answers", "ended_by_themselves")}
    counts: dict[str, Any] = {name: {"sent": 1} for name in ("events", "transfers", "payments")}
    faults = {"api.kill": Recovery(times=1, p50=0.1, p95=0.2, longest=0.2)}
    figures: dict[str, Any] = {
        "started_at": "2026-11-30T00:00:00Z", "commit": "abc", "plan": Plan(first_step=5), "seconds": 1.0, "kills": 1,
        "others": 0, "steps": 3, "steps_planned": 9, "checkpoints": 0, "disk_full_errors": 0, "faults": faults,
        "seconds_until_settled": 0.5,
    }  # fmt: skip
    return Report(**{**empty, **counts, **figures, **changes})


def test_each_broken_promise_of_the_movers_is_found() -> None:
    hot, other = ACCOUNTS[:2]

    def moved(key: str, deed: str, **more: Any) -> Moved:
        return Moved(f"move-{key}", deed, other, hot, 50, **{"status": 201, "id": f"id-{key}", **more})

    def transfer(key: str, **more: Any) -> dict[str, Any]:
        return {"reference": f"move-{key}", "id": f"id-{key}", "amount": 50, **more}

    def hold(key: str, **more: Any) -> dict[str, Any]:
        return {"reference": f"move-{key}", "id": f"id-{key}", "state": 1, "captured": 50, "ends": 0, **more}

    def balance(code: str, amount: int, held: int = 0) -> dict[str, Any]:
        return {"code": code, "balance": amount, "held": held}

    asked = (moved("t", "transfer"), moved("h", "hold"), moved("h-end", "capture"))
    late = (moved("l", "hold"), moved("l-end", "capture", status=409, id="", code="hold_expired"))
    book = Book(moved={one.key: one for one in (*asked, *late)}, position=7)
    good: dict[str, Any] = {
        "transfers": [transfer("t"), transfer("h-end")],
        "holds": [hold("h"), hold("l", state=3, captured=0, ends=1)],
        "balances": [balance(hot, 100), balance(other, -100)],
        "events": 7,
    }
    assert not any(in_the_end(book, Ledger(**good), []).values())
    cases: dict[str, dict[str, Any]] = {
        "move_lost": {"transfers": [transfer("h-end")]},
        "move_twice": {"transfers": [*good["transfers"], transfer("t", id="another")]},
        "move_unasked": {"transfers": [*good["transfers"], transfer("z")]},
        "move_balance": {"balances": [balance(hot, 101), balance(other, -100, held=1)]},
        "hold_left": {"holds": [hold("h"), hold("l", state=0)]},
        "hold_ended_twice": {"holds": [hold("h", ends=2), hold("l", state=3)]},
        "time_ran_back": {"backwards": ["(1, 2)"]},
        "feed_gap": {"events": 8},
    }
    for check, changes in cases.items():
        assert in_the_end(book, Ledger(**{**good, **changes}), [])[check], check
    # A capture that was refused must not have moved anything.
    assert in_the_end(book, Ledger(**{**good, "transfers": [*good["transfers"], transfer("l-end")]}), [])[
        "move_lost"
    ]
    book.moved["move-open"] = moved("open", "transfer", status=0)
    assert in_the_end(book, Ledger(**good), ["a fault"])["move_not_answered"] == ["move-open"]
    assert in_the_end(book, Ledger(**good), ["a fault"])["reconcile"] == ["a fault"]
