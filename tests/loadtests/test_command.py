"""`tallystick bench`: options, the file it writes, exit codes. The run itself is replaced: test_harness.py holds it."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from loadtests.bench import command
from loadtests.bench.plan import GROUPS, Plan
from loadtests.bench.report import Contention, Report, results_path
from loadtests.bench.targets import TARGETS, verdicts
from ops.commands.develop.bench import bench

REACHED = {target.key: target.bound * (0.5 if "<" in target.better else 2) for target in TARGETS}


def a_report(**ratios: float | None) -> Report:
    known: dict[str, float | None] = {**REACHED, **ratios}
    return Report(
        started_at="2026-11-21T10:00:00+00:00",
        finished_at="2026-11-21T10:30:00+00:00",
        commit="abc1234567",
        quick=False,
        machine={
            "cpu": "a processor",
            "cores": 2,
            "memory_mb": 4096,
            "python": "3.13.0",
            "state_filesystem": "ext4",
        },
        contention=Contention(
            load_average_before=0.1, load_average_after=2.0, other_cores_largest=0.05, steal_largest=0.0
        ),
        postgres={"server_version": "18.6", "fsync": "on", "synchronous_commit": "on"},
        plan={},
        figures=[],
        medians={},
        storage=None,
        memory=None,
        pipeline=None,
        grown=None,
        ratios=known,
        targets=verdicts(known),
        notes=[],
    )


@pytest.fixture
def plans(monkeypatch: pytest.MonkeyPatch) -> list[Plan]:
    """The plans that were run; each gives a report in which every target is met."""
    made: list[Plan] = []

    def execute(plan: Plan, *_: object, **__: object) -> Report:
        made.append(plan)
        return a_report()

    monkeypatch.setattr(command, "execute", execute)
    return made


def test_the_report_is_written_as_json(plans: list[Plan], tmp_path: Path) -> None:
    output = tmp_path / "folder" / "figures.json"
    result = CliRunner().invoke(bench, ["--output", str(output), "--check"])
    assert result.exit_code == 0, result.output
    written = json.loads(output.read_text())
    assert written["ratios"] == REACHED
    assert written["commit"] == "abc1234567"
    assert {"machine", "contention", "figures", "targets"} <= written.keys()


def test_a_full_run_is_the_one_that_the_targets_speak_of(plans: list[Plan], tmp_path: Path) -> None:
    CliRunner().invoke(bench, ["--output", str(tmp_path / "figures.json")])
    (plan,) = plans
    assert plan.only == tuple(GROUPS)
    assert (plan.connections, plan.accounts, plan.batch_items) == ((64, 256), 100_000, 1_000)
    assert (plan.small_entries, plan.loaded_entries, plan.memory_seconds) == (100_000, 10_000_000, 600)


def test_options_reach_the_plan(plans: list[Plan], tmp_path: Path) -> None:
    arguments = [
        "--quick",
        "--only",
        "batches",
        "--only",
        "singles",
        "--seconds",
        "1",
        "--connections",
        "8,16",
    ]
    arguments += [
        "--client",
        "raw",
        "--entries",
        "500",
        "--backlog",
        "700",
        "--events",
        "9000",
        "--keep",
        str(tmp_path),
        "--output",
        str(tmp_path / "f.json"),
    ]
    result = CliRunner().invoke(bench, arguments)
    assert result.exit_code == 0, result.output
    (plan,) = plans
    assert plan.only == ("singles", "batches")
    assert (plan.quick, plan.rounds, plan.seconds, plan.connections) == (True, 1, 1, (8, 16))
    assert (plan.pipeline_events, plan.grown_events) == (700, 9000)
    assert (plan.client, plan.loaded_entries, plan.state) == ("raw", 500, tmp_path)


@pytest.mark.parametrize(
    "arguments",
    [
        ["--connections", "0"],
        ["--connections", "64,x"],
        ["--connections", ""],
        ["--only", "speed"],
        ["--seconds", "0"],
    ],
)
def test_bad_options_are_refused_before_anything_starts(plans: list[Plan], arguments: list[str]) -> None:
    result = CliRunner().invoke(bench, arguments)
    assert result.exit_code == 2
    assert plans == []


@pytest.mark.parametrize("got", [0.2, None])
def test_check_fails_on_a_target_missed_or_not_measured(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, got: float | None
) -> None:
    monkeypatch.setattr(command, "execute", lambda *_, **__: a_report(hot_vs_uniform=got))
    output = ["--output", str(tmp_path / "figures.json")]
    assert CliRunner().invoke(bench, output).exit_code == 0
    assert CliRunner().invoke(bench, [*output, "--check"]).exit_code == 1


def test_results_are_named_by_day_and_commit_and_never_overwritten(tmp_path: Path) -> None:
    first = results_path(tmp_path, a_report())
    assert first.name == "2026-11-21-abc1234567.json"
    first.touch()
    second = results_path(tmp_path, a_report())
    assert second.name == "2026-11-21-abc1234567-2.json"
    second.touch()
    assert results_path(tmp_path, a_report()).name == "2026-11-21-abc1234567-3.json"
