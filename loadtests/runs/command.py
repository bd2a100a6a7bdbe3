"""The load command: from its options to its exit code."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import asyncpg
import click
from rich.console import Console

from core.settings import load_settings
from loadtests.bench import machine
from loadtests.budgets import (
    BUDGETS,
    BudgetsError,
    Line,
    budgets_for,
    judge,
    largest_load,
    load_budgets,
)
from loadtests.budgets import Load as Budgeted
from loadtests.runs import page, report
from loadtests.runs.knee import Knee, Step, find_knee, next_users
from loadtests.runs.limits import limit_of
from loadtests.runs.locusts import Load, run_locust
from loadtests.runs.preparing import Preparer
from loadtests.runs.report import Report
from loadtests.runs.service import RunError, Service, disagreements, is_ready, own_service
from loadtests.runs.watching import Watcher
from loadtests.suites import SUITES
from ops.process import PROJECT, StartError
from ops.state import state_dir

KEPT, BREACHED, FAULT, INTERRUPTED = 0, 1, 2, 130
USERS, FIRST_STEP, SMOKE_USERS = 50, 10, 3
#: A smoke test has ended long before its time, unless the machine is very busy.
SECONDS, STEP_SECONDS, SMOKE_SECONDS = 30, 10, 60
#: The tables fit into this width, where no terminal has one.
PIPED_WIDTH = 120
#: Reports stand here unless another folder is named; `make clean` removes them.
RESULTS = PROJECT / "build" / "load"


class Fault(click.ClickException):
    """The run itself failed, so that nothing is known of the service's speed."""

    exit_code = FAULT


class Plan(NamedTuple):
    """The run that is asked for. `service` is one that runs; None: one of our own with so many `api_processes`."""

    suites: Sequence[str]
    users: int
    seconds: int
    step: bool = False
    smoke: bool = False
    budgets: Path = BUDGETS
    folder: Path = RESULTS
    service: Service | None = None
    api_processes: int = 1
    options: Sequence[str] = ()


def main(plan: Plan, *, parent: Path | None = None) -> int:
    """Do it, and return the exit code: 0 within the budgets, 1 a breach, 130 interrupted. Raises Fault."""
    if find_spec("locust") is None:
        raise Fault("Locust is not installed here. A checkout installs it with `./tallystick setup --dev`.")
    console = Console()
    console = console if console.is_terminal else Console(width=PIPED_WIDTH)

    async def stoppable() -> bool:
        task = asyncio.current_task()
        if task is not None:
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        return await _Runner(plan, console, parent or state_dir(load_settings(env_file=None))).run()

    try:
        return KEPT if asyncio.run(stoppable()) else BREACHED
    except (KeyboardInterrupt, asyncio.CancelledError):
        console.print("stopped")
        return INTERRUPTED
    except (BudgetsError, RunError, StartError, OSError, asyncpg.PostgresError) as error:
        raise Fault(str(error)) from error


class _Runner:
    """One run of the command."""

    def __init__(self, plan: Plan, console: Console, parent: Path) -> None:
        self._plan = plan
        self._console = console
        self._parent = parent
        # Mistakes in the budgets are found before anything starts.
        known = load_budgets(plan.budgets)
        self._budgets: Mapping[str, Budgeted] = {
            suite: largest_load(known, suite)
            if plan.step or plan.smoke
            else budgets_for(known, suite, plan.users)
            for suite in plan.suites
        }
        self._commit = machine.commit()
        self._folder = plan.folder / f"{datetime.now(UTC):%Y-%m-%dT%H-%M-%S}-{self._commit}"

    async def run(self) -> bool:
        """Run every suite on one service; return whether all budgets were kept."""
        kept = True
        async with self._service() as service:
            preparer = Preparer(service)
            for suite in self._plan.suites:
                take = self._find_knee if self._plan.step else self._hold
                kept &= await take(suite, service, preparer)
            if service.pid is not None:
                kept &= await self._books_agree(service)
        self._console.print(f"reports: {self._folder}", soft_wrap=True, highlight=False)
        return kept

    async def _books_agree(self, service: Service) -> bool:
        """Check the books of a service of our own, in which everything is known to be ours."""
        found = await disagreements(service)
        for text in found or ["The books agree."]:
            self._console.print(text, soft_wrap=True, markup=False, highlight=False)
        return not found

    @contextlib.asynccontextmanager
    async def _service(self) -> AsyncIterator[Service]:
        if self._plan.service is not None:
            if not await is_ready(self._plan.service.url):
                raise RunError(f"No service is ready at {self._plan.service.url}.")
            yield self._plan.service
            return
        self._console.print("Starting a service of our own ...")
        async with own_service(self._parent, self._plan.api_processes) as service:
            yield service

    async def _hold(self, suite: str, service: Service, preparer: Preparer) -> bool:
        """Hold one load to its budgets."""
        found = await self._take(suite, self._plan.users, service, preparer)
        report.show(found, self._console)
        return not found.breaches

    async def _find_knee(self, suite: str, service: Service, preparer: Preparer) -> bool:
        """Raise the load until the budgets or the throughput say that it is enough."""
        users, reports, steps = self._plan.users, list[Report](), list[Step]()
        knee: Knee | None = None
        while knee is None:
            found = await self._take(suite, users, service, preparer)
            reports.append(found)
            steps.append(Step(users, found.total.per_second, found.lines))
            self._console.print(
                f"{users} users: {found.total.per_second:,.0f} requests/s, p95 {found.total.p95_ms or 0:g} ms",
                highlight=False,
            )
            knee, users = find_knee(steps), next_users(users)
        written = page.write(self._folder, suite, reports, knee)
        self._console.print(page.table(suite, reports))
        for text in (page.sentence(knee), f"Limit: {reports[-1].limit.sentence}", f"written: {written}"):
            self._console.print(text, soft_wrap=True, markup=False, highlight=False)
        return knee.step is not None

    async def _take(self, suite: str, users: int, service: Service, preparer: Preparer) -> Report:
        """Put one load on the service, judge it, and write its report."""
        plan = self._plan
        self._console.print(
            f"{suite}: {SUITES[suite].about}; {users} users for up to {plan.seconds} s ...", highlight=False
        )
        load = Load(suite, users, plan.seconds, plan.smoke, plan.options)
        watcher = Watcher(service.pid, service.database_url if service.pid else "")
        before = machine.load_average()
        folder = self._made(f"{suite}-{users}")
        results = await run_locust(load, service.url, preparer, watcher, folder)
        lines: list[Line] = judge(self._budgets[suite], results.seen(), timed=not plan.smoke)
        usage = watcher.usage(results.started_at, results.ended_at)
        made = Report(
            suite=suite,
            users=users,
            seconds=plan.seconds,
            started_at=datetime.fromtimestamp(results.started_at, UTC).isoformat(timespec="seconds"),
            url=service.url,
            commit=self._commit,
            machine=machine.facts(),
            load_average_before=before,
            smoke=plan.smoke,
            lines=lines,
            requests=results.requests,
            total=results.total,
            failures=results.failures,
            usage=usage,
            limit=limit_of(usage),
        )
        report.write(made, folder)
        return made

    def _made(self, name: str) -> Path:
        folder = self._folder / name
        folder.mkdir(parents=True, exist_ok=True)
        return folder
