"""Budgets of load runs: read from budgets.toml, held against what a run saw. Knows nothing of Locust."""

import difflib
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated

import msgspec
from rich.table import Table

from loadtests.suites import SUITES

BUDGETS = Path(__file__).with_name("budgets.toml")

Milliseconds = Annotated[float, msgspec.Meta(gt=0)]
Ratio = Annotated[float, msgspec.Meta(ge=0, le=1)]
Users = Annotated[int, msgspec.Meta(ge=1)]


class BudgetsError(Exception):
    """The file cannot be used; the text names the place and what belongs there."""


class Budget(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The budget of one kind of request."""

    p95_ms: Milliseconds
    failure_ratio: Ratio = 0.0


class Load(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The budgets of a suite for up to so many users; `failure_ratio` is that of all requests together."""

    users: Users
    requests: dict[str, Budget]
    failure_ratio: Ratio = 0.0


class Seen(msgspec.Struct, frozen=True):
    """The counts of one kind of request in a run; `p95_ms` is None where none was answered."""

    requests: int
    failures: int
    p95_ms: float | None

    @property
    def failure_ratio(self) -> float:
        """The share of failed requests, 0 without requests."""
        return self.failures / self.requests if self.requests else 0.0


class Line(msgspec.Struct, frozen=True):
    """One budget and its verdict; `breach` is a sentence, empty where the budget was kept.

    `p95_ms` is the budget, None where only errors count.
    """

    name: str
    seen: Seen
    p95_ms: float | None
    failure_ratio: float
    breach: str


def load_budgets(path: Path = BUDGETS) -> dict[str, list[Load]]:
    """Read the file: the loads of each suite, the smallest first. Raises BudgetsError or OSError."""
    try:
        tables = tomllib.loads(path.read_text())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BudgetsError(f"{path} is no TOML: {error}.") from None
    found = {}
    for suite, loads in tables.items():
        if suite not in SUITES:
            raise BudgetsError(f"{path}: there is no suite {suite!r}.{_near(suite, SUITES)}")
        found[suite] = _loads(path, suite, loads)
    return found


def _loads(path: Path, suite: str, tables: object) -> list[Load]:
    try:
        loads = msgspec.convert(tables, type=list[Load])
    except msgspec.ValidationError as error:
        hint = f" A load begins with [[{suite}]]." if not isinstance(tables, list) else ""
        raise BudgetsError(f"{path}: {suite}: {error}.{hint}") from None
    requests = SUITES[suite].requests
    for load in loads:
        place = f"{path}: {suite}, {load.users} users"
        for name in load.requests:
            if name not in requests:
                raise BudgetsError(f"{place}: the suite does not make {name!r}.{_near(name, requests)}")
        if missing := [name for name in requests if name not in load.requests]:
            raise BudgetsError(f"{place}: {', '.join(map(repr, missing))} has no budget.")
    if len({load.users for load in loads}) < len(loads):
        raise BudgetsError(f"{path}: {suite}: two loads have the same number of users.")
    return sorted(loads, key=lambda load: load.users)


def _near(word: str, known: Iterable[str]) -> str:
    found = difflib.get_close_matches(word, known, n=1)
    return f" Did you mean {found[0]!r}?" if found else ""


def budgets_for(budgets: Mapping[str, list[Load]], suite: str, users: int) -> Load:
    """Return the budgets of the smallest load that has so many users. Raises BudgetsError for more than any has."""
    loads = budgets.get(suite, [])
    for load in loads:
        if users <= load.users:
            return load
    known = ", ".join(str(load.users) for load in loads) or "none"
    raise BudgetsError(
        f"No budget of {suite!r} is for {users} users (there are budgets for {known}). Add one, run with fewer users,"
        " or look for the knee with --step, which takes the budgets of the largest load."
    )


def largest_load(budgets: Mapping[str, list[Load]], suite: str) -> Load:
    """Return the budgets of the largest load. Raises BudgetsError where the suite has none."""
    if not budgets.get(suite):
        raise BudgetsError(f"{suite!r} has no budgets.")
    return budgets[suite][-1]


def judge(load: Load, seen: Mapping[str, Seen], *, timed: bool = True) -> list[Line]:
    """Hold every budget against what was seen, in the order of the file, and the total last.

    Without `timed`, each request has to be made and none may be slow enough to fail; its time is not looked at.
    """
    lines = [
        _line(name, budget, seen.get(name, Seen(0, 0, None)), timed=timed)
        for name, budget in load.requests.items()
    ]
    everything = Seen(
        sum(each.requests for each in seen.values()), sum(each.failures for each in seen.values()), None
    )
    allowed = load.failure_ratio
    breach = "" if everything.failure_ratio <= allowed else _too_many(everything, allowed)
    return [*lines, Line("total", everything, None, allowed, breach)]


def _line(name: str, budget: Budget, seen: Seen, *, timed: bool) -> Line:
    breaches = []
    if seen.requests == 0 or seen.p95_ms is None:
        breaches.append("was never requested")
    elif timed and seen.p95_ms > budget.p95_ms:
        breaches.append(f"p95 {seen.p95_ms:g} ms is over {budget.p95_ms:g} ms")
    if seen.failure_ratio > budget.failure_ratio:
        breaches.append(_too_many(seen, budget.failure_ratio))
    return Line(name, seen, budget.p95_ms if timed else None, budget.failure_ratio, "; ".join(breaches))


def _too_many(seen: Seen, allowed: float) -> str:
    return f"{seen.failures} of {seen.requests} failed, {seen.failure_ratio:.2%} is over {allowed:.2%}"


def breached(lines: Iterable[Line]) -> bool:
    """Whether any budget was breached."""
    return any(line.breach for line in lines)


HEADINGS = ("request", "requests", "p95 ms", "allowed", "failed", "allowed", "verdict")


def cells(line: Line) -> tuple[str, ...]:
    """Return a line as its cells, under HEADINGS."""
    return (
        line.name,
        f"{line.seen.requests:,}",
        "" if line.seen.p95_ms is None else f"{line.seen.p95_ms:g}",
        "" if line.p95_ms is None else f"{line.p95_ms:g}",
        f"{line.seen.failure_ratio:.2%}",
        f"{line.failure_ratio:.2%}",
        "breached" if line.breach else "kept",
    )


def budgets_table(title: str, lines: Iterable[Line]) -> Table:
    """Return the verdict for a terminal."""
    table = Table(title=title, title_justify="left")
    table.add_column(HEADINGS[0], no_wrap=True)
    for heading in HEADINGS[1:-1]:
        table.add_column(heading, justify="right")
    table.add_column(HEADINGS[-1])
    for line in lines:
        *told, verdict = cells(line)
        table.add_row(*told, f"[red]{verdict}[/red]" if line.breach else f"[green]{verdict}[/green]")
    return table
