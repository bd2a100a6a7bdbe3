"""A short run of `make chaos`, and what its seed decides."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner
from rich.console import Console

from loadtests.chaos import command
from loadtests.chaos.audit import Finding
from loadtests.chaos.plan import FIRST, KINDS, Plan, events, steps
from loadtests.chaos.run import Comeback, Report, run_chaos
from ops.commands.develop.chaos import chaos
from tests.chaos.conftest import POSTGRES_OPTIONS

pytestmark = pytest.mark.drill


@pytest.fixture
def parent() -> Iterator[Path]:
    """A folder that root's servers can enter, in memory where there is some."""
    memory = Path("/dev/shm")  # noqa: S108 - mkdtemp makes a folder of our own in it
    folder = Path(tempfile.mkdtemp(prefix="tallystick-chaos-", dir=memory if memory.is_dir() else None))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


async def test_a_short_run_loses_nothing_and_doubles_nothing(parent: Path) -> None:
    said: list[str] = []
    plan = Plan(seed=19, events=240, kills=len(FIRST), rate=120)
    report = await run_chaos(plan, parent=parent, say=said.append, postgres_options=POSTGRES_OPTIONS)
    assert report.findings == [], said
    assert report.acknowledged == report.sent == plan.events - report.forged
    assert report.kills == len(FIRST)
    assert set(FIRST) < report.faults.keys()
    assert list(parent.iterdir()) == []
    assert msgspec.json.decode(msgspec.json.encode(report), type=Report) == report


def test_the_seed_decides_the_faults_and_the_events() -> None:
    plan = Plan(seed=1)
    assert steps(plan) == steps(Plan(seed=1)) != steps(Plan(seed=2))
    assert events(plan) == events(Plan(seed=1)) != events(Plan(seed=2))
    assert (
        len({event.id for event in events(plan)}) == len({event.intent for event in events(plan)}) == 20_000
    )
    assert {event.sending for event in events(plan)} == {"once", "twice", "late", "forged"}


def test_a_full_run_has_every_fault_and_fifty_kills() -> None:
    for seed in range(20):
        script = steps(Plan(seed=seed))
        faults = [fault for step in script for fault in step]
        assert sum(fault.kind.kills for fault in faults) == 50
        assert {fault.name for fault in faults} == KINDS.keys()
        # Two faults of one target at once would be one.
        assert all(len({fault.kind.target for fault in step}) == len(step) for step in script)
        assert any(len(step) > 1 for step in script)
        assert all(fault.kind.shortest <= fault.seconds <= fault.kind.longest for fault in faults)


def test_the_shortest_run_kills_each_part_once() -> None:
    for seed in range(20):
        faults = [fault for step in steps(Plan(seed=seed, kills=len(FIRST))) for fault in step]
        assert {fault.name for fault in faults if fault.kind.kills} == set(FIRST)


@pytest.mark.parametrize(("findings", "code"), [(0, 0), (1, 1)])
def test_the_command_writes_a_report_and_fails_on_a_finding(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, findings: int, code: int
) -> None:
    plans = []

    def execute(plan: Plan, *, parent: Path, console: Console) -> Report:
        plans.append(plan)
        return a_report(plan, [Finding(check="posted_twice", count=3, examples=["pi_1: 2 times"])] * findings)

    monkeypatch.setattr(command, "execute", execute)
    output = tmp_path / "folder" / "chaos.json"
    result = CliRunner().invoke(
        chaos, ["--seed", "7", "--events", "500", "--kills", "5", "--output", str(output)]
    )
    assert result.exit_code == code, result.output
    assert plans == [Plan(seed=7, events=500, kills=5)]
    assert msgspec.json.decode(output.read_bytes(), type=Report).plan == plans[0]
    assert ("pi_1: 2 times" in result.output) == bool(findings)


def test_a_run_without_a_stream_is_refused() -> None:
    result = CliRunner().invoke(chaos, ["--events", "50", "--kills", "5"])
    assert result.exit_code == 2
    assert "events a kill" in result.output


def a_report(plan: Plan, findings: list[Finding]) -> Report:
    return Report(
        started_at="2026-11-21T10:00:00+00:00",
        seconds=12.5,
        commit="abc1234567",
        machine={"cores": 2},
        plan=plan,
        kills=plan.kills,
        faults={"api.kill": Comeback(times=5, median=0.1, longest=0.4)},
        sent=495,
        forged=5,
        acknowledged=495,
        answers={"200": 600, "400": 5},
        deliveries={"0": 3, "204": 495},
        ended_by_themselves={},
        findings=findings,
    )
