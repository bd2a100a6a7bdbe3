"""The benchmark as a command: from its options to its exit code."""

import asyncio
import signal
from pathlib import Path

import click
import msgspec
import uvloop
from rich.console import Console

from core.settings import load_settings
from loadtests.bench.clients.client import ClientError, ClientName, choose_client
from loadtests.bench.plan import GROUPS, Plan
from loadtests.bench.plan import quick as make_quick
from loadtests.bench.posting import PostingError
from loadtests.bench.report import Report, results_path
from loadtests.bench.run import run
from loadtests.bench.show import show
from loadtests.bench.stand import StandError
from loadtests.bench.subject import Subject
from loadtests.bench.tallystick import Tallystick
from ops.process import PROJECT, StartError
from ops.state import state_dir

PIPED_WIDTH = 170
RESULTS = PROJECT / "loadtests" / "results"


def main(  # noqa: PLR0913 (the options of the command, by name)
    *,
    quick: bool,
    only: tuple[str, ...],
    seconds: int | None,
    rounds: int | None,
    connections: tuple[int, ...] | None,
    entries: int | None,
    backlog: int | None,
    events: int | None,
    memory_seconds: int | None,
    client: ClientName | None,
    keep: Path | None,
    output: Path | None,
    check: bool,
) -> None:
    """Runs, prints, writes. Raises click's exceptions, so that every end has its exit code and sentence."""
    groups = tuple(name for name in GROUPS if name in only) or tuple(GROUPS)
    plan = Plan(client=client or choose_client(), state=keep, only=groups)
    given = {
        "seconds": seconds,
        "rounds": rounds,
        "connections": connections,
        "loaded_entries": entries,
        "pipeline_events": backlog,
        "grown_events": events,
        "memory_seconds": memory_seconds,
    }
    plan = make_quick(plan) if quick else plan
    plan = msgspec.structs.replace(
        plan, **{name: value for name, value in given.items() if value is not None}
    )
    console = make_console()
    report = execute(plan, Tallystick(), parent=state_dir(load_settings(env_file=None)), console=console)
    path = output or results_path(RESULTS, report)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=1) + b"\n")
    show(report, console)
    console.print(f"written: {path}", highlight=False)
    if check and not all(verdict.met for verdict in report.targets):
        raise click.exceptions.Exit(1)


def make_console() -> Console:
    """The terminal as wide as it is; a pipe or a file as wide as the tables are."""
    console = Console()
    return console if console.is_terminal else Console(width=PIPED_WIDTH)


def execute(plan: Plan, subject: Subject, *, parent: Path, console: Console) -> Report:
    """Runs the plan on an event loop of its own. Ctrl-C and SIGTERM stop all that was started, then end us with 130."""

    async def stoppable() -> Report:
        task = asyncio.current_task()
        if task is not None:
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        return await run(plan, subject, parent=parent, console=console)

    try:
        # uvloop as in the API: the direct calls that HTTP is compared with shall not be slower than its own.
        return uvloop.run(stoppable())
    except (KeyboardInterrupt, asyncio.CancelledError):
        console.print("stopped; nothing was written")
        raise click.exceptions.Exit(130) from None
    except (ClientError, PostingError, StandError, StartError) as error:
        raise click.ClickException(str(error)) from error
