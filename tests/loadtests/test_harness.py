"""One small run of the benchmark on real servers, with a stand-in for the API."""

import io
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from rich.console import Console

from loadtests.bench.report import Report
from loadtests.bench.run import run
from loadtests.bench.show import show
from loadtests.bench.targets import TARGETS
from ops.process import PROJECT
from stub_bench import Stubbed, tiny


@pytest.fixture
def parent() -> Iterator[Path]:
    """A folder that the user of root's servers can enter."""
    folder = Path(tempfile.mkdtemp(prefix="tallystick-bench-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


async def test_a_run_measures_every_group_and_gives_a_number_for_every_target(parent: Path) -> None:
    report = await run(tiny(), Stubbed(), parent=parent, console=Console(file=io.StringIO()))

    assert report.notes == []
    assert {figure.name for figure in report.figures} == {
        "floor1.single@1",
        "floor1.single@2",
        "floor2.tpcb",
        "floor3.direct@1",
        "floor3.function.hot",
        "floor3.function.uniform",
        "batch20",
        "memory.single@2",
        "past_balance",
        "single.hot@2",
        "single.uniform.loaded",
        "single.uniform.small",
        "single.uniform@1",
        "single.uniform@2",
        "single.uniform@2.processes1",
        "storage.single@2",
    }
    assert all(figure.valid and figure.rate > 0 for figure in report.figures)
    assert report.ratios.keys() == {target.key for target in TARGETS}
    # Batches of 20 are not what the target speaks of.
    missing = {key for key, got in report.ratios.items() if got is None}
    assert missing == {"batch1000_vs_pgbench"}
    assert [verdict.met for verdict in report.targets].count(None) == 1
    assert report.postgres["fsync"] == report.postgres["synchronous_commit"] == "on"
    assert report.storage is not None
    assert {"entries", "transfers", "keys"} <= report.storage.by_relation.keys()
    assert list(parent.iterdir()) == [], "the state folder goes with the run"


async def test_the_report_survives_json_and_is_shown(parent: Path) -> None:
    report = await run(tiny(only=("latency",)), Stubbed(), parent=parent, console=Console(file=io.StringIO()))

    assert msgspec.json.decode(msgspec.json.encode(report), type=Report) == report
    shown = io.StringIO()
    show(report, Console(file=shown, width=200))
    assert "single.uniform@1" in shown.getvalue()
    assert "not measured" in shown.getvalue()


async def test_a_kept_state_folder_is_used_again(parent: Path) -> None:
    plan = tiny(only=("latency",), state=parent / "kept")
    console = Console(file=io.StringIO())
    await run(plan, Stubbed(), parent=parent, console=console)
    assert "opening 50 accounts" in console.file.getvalue()  # type: ignore[attr-defined]

    console = Console(file=io.StringIO())
    report = await run(plan, Stubbed(), parent=parent, console=console)

    assert "opening" not in console.file.getvalue()  # type: ignore[attr-defined]
    assert report.ratios["one_connection_p50_extra_ms"] is not None


async def test_an_api_that_fails_makes_the_figures_invalid(parent: Path) -> None:
    class Failing(Stubbed):
        def environment(self, database_url: str, redis_url: str, port: int) -> dict[str, str]:
            return {**super().environment(database_url, redis_url, port), "STUB_FAIL": "1"}

        def is_posted(self, status: int, body: bytes) -> bool:
            return True

    report = await run(
        tiny(only=("latency",)), Failing(), parent=parent, console=Console(file=io.StringIO())
    )

    assert report.ratios["one_connection_p50_extra_ms"] is None
    assert any("invalid" in note and "status" in note for note in report.notes)


async def test_ctrl_c_stops_everything_and_leaves_nothing(
    parent: Path, eventually: Callable[..., Awaitable[Any]]
) -> None:
    script = Path(__file__).with_name("stub_bench.py")
    output = parent.with_suffix(".out")
    with output.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, str(script), str(parent)],
            stdout=file,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONPATH": str(PROJECT)},
            start_new_session=True,
        )
    try:
        await eventually(lambda: "floor2.tpcb" in output.read_text() or process.poll() is not None, timeout=60)
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130, output.read_text()
        assert "stopped" in output.read_text()
        assert list(parent.iterdir()) == []
        await eventually(lambda: not processes_of(parent))
    finally:
        process.kill()
        output.unlink()


def processes_of(folder: Path) -> list[str]:
    """The command lines that name the folder."""
    shown = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    return [line for line in shown.splitlines() if str(folder) in line]
