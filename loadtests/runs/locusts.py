"""Locust as a process of its own: started with what a suite is given, watched, and read when it has ended."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from loadtests.runs.results import Results, read_results
from loadtests.runs.service import RunError
from loadtests.suites import SUITES
from ops.process import PROJECT, open_log, python_environment, spawn, stop
from ops.state import write_secret

if TYPE_CHECKING:
    from loadtests.runs.preparing import Preparer
    from loadtests.runs.watching import Watcher

LOCUSTFILE = PROJECT / "loadtests" / "locustfile.py"
#: Users may finish their action when the time is over.
FINISH_SECONDS = 10
#: Locust's start, and the writing of its report, on a busy machine.
SPARE_SECONDS = 90.0
STOP_SECONDS = 5.0
LOG_TAIL = 2_000
#: Names of the files of a run, in its folder.
LOG, PAGE, CSV_PREFIX = "locust.log", "report.html", "locust"


class Load(NamedTuple):
    """A load: the suite, its users, how long they stay at most, and further options of Locust.

    With `once` they leave when each has done each action once.
    """

    suite: str
    users: int
    seconds: int
    once: bool = False
    options: Sequence[str] = ()


async def run_locust(load: Load, url: str, preparer: Preparer, watcher: Watcher, folder: Path) -> Results:
    """Make the data, put the load on the service, and return what was measured. Raises RunError.

    Locust writes its page, its CSV files and its log into `folder`.
    """
    with tempfile.TemporaryDirectory(prefix="tallystick-load-") as private:
        given_path, results_path = Path(private, "given.json"), Path(private, "results.json")
        given = await preparer.prepare(load.suite, load.users, str(results_path), once=load.once)
        # The keys go through a file of ours, because everybody on the machine can read a command line.
        write_secret(given_path, msgspec.json.encode(given).decode())
        with open_log(folder / LOG) as output:
            process = spawn(
                _command(load, url, given_path, folder), output=output, environment=python_environment()
            )
        try:
            async with watcher.watching(process.pid):
                code = await _ended(process, load.seconds + FINISH_SECONDS + SPARE_SECONDS)
        finally:
            await asyncio.to_thread(stop, process, (signal.SIGTERM, STOP_SECONDS))
        try:
            results = read_results(results_path)
        except (OSError, msgspec.DecodeError):
            raise RunError(f"Locust ended with code {code} and measured nothing.{_tail(folder)}") from None
    if results.exceptions:
        raise RunError(f"The suite failed in its own code:\n{results.exceptions[0]}")
    return results


def _command(load: Load, url: str, given: Path, folder: Path) -> list[str]:
    users, prefix = str(load.users), str(folder / CSV_PREFIX)
    return [
        *(sys.executable, "-m", "locust", "-f", str(LOCUSTFILE), SUITES[load.suite].user, "--headless"),
        *("--host", url, "--given", str(given), "--only-summary"),
        *("--users", users, "--spawn-rate", users, "--run-time", f"{load.seconds}s"),
        *("--stop-timeout", str(FINISH_SECONDS), "--html", str(folder / PAGE), "--csv", prefix),
        *load.options,
    ]


async def _ended(process: subprocess.Popen[bytes], seconds: float) -> int:
    """Wait for the end of a process. Raises RunError when it takes too long."""
    try:
        # The caller stops the process in any case, which ends the thread.
        return await asyncio.to_thread(process.wait, seconds)
    except subprocess.TimeoutExpired:
        raise RunError(f"Locust has not ended within {seconds:g} s.") from None


def _tail(folder: Path) -> str:
    log = folder / LOG
    return f"\n{log}:\n{log.read_text(errors='replace')[-LOG_TAIL:]}" if log.exists() else ""
