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

from loadtests.bench.plan import GROUPS, Plan
from loadtests.bench.report import Report
from loadtests.bench.run import run
from loadtests.bench.show import show
from loadtests.bench.tallystick import Tallystick
from loadtests.bench.targets import TARGETS
from ops.process import PROJECT, spawn
from tests.copies import in_memory
from tests.loadtests.stub_bench import FORKING, Hasty, Stubbed, tiny

# A run starts servers, databases and thirty programs: seconds each on a machine that is busy otherwise.
pytestmark = [pytest.mark.drill, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def parent() -> Iterator[Path]:
    """A folder that the user of root's servers can enter."""
    folder = Path(tempfile.mkdtemp(prefix="tallystick-bench-", dir=in_memory()))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


#: Groups that a stand-in for the API has nothing to say to: the worker is what they measure, or a provider's answer.
OF_THE_WORKER = ("creates", "delivery", "pipeline", "told", "grown", "isolation", "claims")


@pytest.fixture(scope="module")
async def report(parent: Path) -> Report:
    """What a run of every group but the worker's reports. It leaves its state folder behind."""
    groups = tuple(name for name in GROUPS if name not in OF_THE_WORKER)
    return await run_quietly(tiny(state=parent / "kept", only=groups), parent, io.StringIO())


@pytest.fixture(scope="module")
def forks(parent: Path) -> Iterator[Path]:
    """The socket at which the real service is forked: a dozen processes of it would each import it for seconds."""
    path = parent / "forks"
    environment = {**os.environ, "PYTHONPATH": str(PROJECT)}
    server = subprocess.Popen(
        [sys.executable, str(FORKING), str(path)], env=environment, start_new_session=True
    )
    yield path
    os.killpg(server.pid, signal.SIGKILL)
    server.wait()


@pytest.fixture(scope="module")
async def report_of_the_worker(parent: Path, forks: Path) -> Report:
    """What a run of the worker's groups reports, with the real service."""
    return await run_quietly(tiny(only=OF_THE_WORKER), parent, io.StringIO(), Hasty(forks))


async def run_quietly(
    plan: Plan, parent: Path, said: io.StringIO, subject: Tallystick | None = None
) -> Report:
    # Figures of the suite mean nothing, so they need not wait for the disk either.
    options = {"fsync": "off"}
    console = Console(file=said)
    return await run(plan, subject or Stubbed(), parent=parent, console=console, postgres_options=options)


async def test_a_run_measures_every_group(report: Report) -> None:
    assert report.notes == []
    assert {figure.name for figure in report.figures} == {
        "floor1.single@1",
        "floor1.single@2",
        "floor2.tpcb",
        "floor3.direct@1",
        "floor3.function.hot",
        "floor3.function.uniform",
        "ack@1000",
        "ack@500",
        "batch1000",
        "event",
        "floor1.event",
        "floor1.forged",
        "forged",
        "payments.qr",
        "payments.single",
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


async def test_a_run_measures_what_the_worker_does(report_of_the_worker: Report) -> None:
    report = report_of_the_worker
    assert report.notes == []
    assert {figure.name for figure in report.figures} == {
        "creates.http",
        "creates.own@1",
        "delivery@200",
        "delivery@50",
        "sustained@3",
        "pipeline.backlog",
        "pipeline.backlog.workers2",
        "pipeline@200",
        "pipeline@1000",
        "pipeline.intake",
        "pipeline.beside",
        "told.quiet",
        "told.heard",
        "told.deliveries",
        "told@200",
        *(
            f"{database}{kind}"
            for database in ("lean", "grown")
            for kind in (".backlog", "@200", ".sustained")
        ),
        "isolation.alone",
        "isolation.beside",
        *(f"claims.{kind}.{part}" for kind in ("inbox", "deliveries") for part in range(1, 6)),
    }
    requests = {figure.name: figure.requests for figure in report.figures}
    # The rates lasted for 0.2 s; the sustained deliveries go to two endpoints.
    assert (requests["delivery@50"], requests["delivery@200"], requests["sustained@3"]) == (10, 40, 30)
    assert (requests["pipeline@200"], requests["pipeline@1000"], requests["told@200"]) == (40, 200, 40)
    assert requests["grown.sustained"] == 30
    assert requests["isolation.alone"] == requests["isolation.beside"] == 8


async def test_a_run_says_what_an_event_costs(report_of_the_worker: Report) -> None:
    pipeline, grown = report_of_the_worker.pipeline, report_of_the_worker.grown
    assert pipeline is not None
    assert grown is not None
    assert pipeline.bytes.events == 30
    # These tables were empty before; those of the ledger may have had room for a few more.
    events = {"inbox_events", "outbox_events", "webhook_deliveries", "webhook_attempts"}
    assert events <= pipeline.bytes.by_table.keys()
    assert pipeline.resident_at_end.keys() == {"api", "worker"}
    assert all(grown.by_table[name].total > 0 for name in events)
    for costs in (grown.lean, grown.grown):
        named = {
            "claim_inbox_events",
            "post_with_effects",
            "fan_out",
            "claim_deliveries",
            "record_deliveries",
        }
        assert named <= costs.keys()
        assert all(cost.calls > 0 and cost.plan for cost in costs.values())


async def test_a_run_gives_one_number_for_every_target(report: Report, report_of_the_worker: Report) -> None:
    assert report.ratios.keys() == report_of_the_worker.ratios.keys() == {target.key for target in TARGETS}
    for target in TARGETS:
        one, other = report.ratios[target.key], report_of_the_worker.ratios[target.key]
        assert isinstance(other if one is None else one, float | int), target.key
        assert one is None or other is None


async def test_a_run_says_where_it_was_taken(report: Report) -> None:
    assert (report.postgres["fsync"], report.postgres["synchronous_commit"]) == ("off", "on"), "as it was"
    assert report.machine["cores"] >= 1
    assert report.storage is not None
    assert {"entries", "transfers", "keys"} <= report.storage.by_relation.keys()
    assert all("client" in figure.cpu and "postgres" in figure.cpu for figure in report.figures)


async def test_the_report_survives_json_and_is_shown(report: Report) -> None:
    assert msgspec.json.decode(msgspec.json.encode(report), type=Report) == report
    shown = io.StringIO()
    show(report, Console(file=shown, width=200))
    for text in ("single.uniform@1", "entries", "targets", "a quick run"):
        assert text in shown.getvalue().lower()


async def test_a_kept_state_folder_is_used_again(parent: Path, report: Report) -> None:
    said = io.StringIO()
    plan = tiny(only=("latency",), state=parent / "kept")
    again = await run_quietly(plan, parent, said)

    assert "opening" not in said.getvalue()
    assert {figure.name for figure in again.figures} == {
        "floor3.direct@1",
        "floor1.single@1",
        "single.uniform@1",
    }
    assert again.ratios["one_connection_p50_extra_ms"] is not None
    assert again.ratios["bytes_per_transfer"] is None
    assert [verdict.met for verdict in again.targets].count(None) == len(TARGETS) - 1


async def test_ctrl_c_stops_everything_and_leaves_nothing(
    parent: Path, eventually: Callable[..., Awaitable[Any]]
) -> None:
    script = Path(__file__).with_name("stub_bench.py")
    output, states = parent / "output", parent / "states"
    command = [sys.executable, str(script), str(states)]
    with output.open("wb") as file:
        process = spawn(command, output=file, environment={**os.environ, "PYTHONPATH": str(PROJECT)})
    try:
        await eventually(
            lambda: "single.uniform@1" in output.read_text() or process.poll() is not None, timeout=60
        )
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130, output.read_text()
        assert "stopped" in output.read_text()
        assert list(states.iterdir()) == []
        await eventually(lambda: not processes_of(states))
    finally:
        process.kill()


def processes_of(folder: Path) -> list[str]:
    """The command lines that name the folder."""
    shown = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    return [line for line in shown.splitlines() if str(folder) in line]
