"""The report of a run: one object, written as JSON and CSV, shown in the terminal, and put onto Locust's page."""

from __future__ import annotations

import csv
import html
import re
from typing import TYPE_CHECKING, Any

import msgspec
from rich.table import Table

from loadtests.budgets import HEADINGS, Line, budgets_table, cells
from loadtests.runs.limits import Limit, RoleUse, Usage, doubts
from loadtests.runs.locusts import PAGE
from loadtests.runs.results import Failed, Measured

if TYPE_CHECKING:
    from pathlib import Path

    from rich.console import Console

JSON, CSV = "report.json", "budgets.csv"
BODY = re.compile(r"^\s*<body>\s*$", re.MULTILINE)
#: Ways of failing that are shown; the JSON has all.
SHOWN_FAILURES = 10
STYLE = (
    "<style>.tallystick{font:15px/1.45 system-ui,sans-serif;max-width:70em;margin:1.5em auto;padding:0 1em;color:#111;"
    "background:#fff}.tallystick table{border-collapse:collapse;margin:.6em 0 1.2em}.tallystick td,.tallystick th"
    "{border:1px solid #ccc;padding:.25em .7em;text-align:right}.tallystick td:first-child,.tallystick th:first-child"
    "{text-align:left}.tallystick .breached{color:#b00020;font-weight:600}</style>"
)


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """One load on one service: what it was, what was measured, what limits it. Times are milliseconds."""

    suite: str
    users: int
    seconds: int
    started_at: str
    url: str
    commit: str
    machine: dict[str, Any]
    load_average_before: float | None
    smoke: bool
    lines: list[Line]
    requests: list[Measured]
    total: Measured
    failures: list[Failed]
    usage: Usage
    limit: Limit

    @property
    def title(self) -> str:
        """A line that names the load."""
        if self.smoke:
            return f"{self.suite}: {self.users} users make each request once"
        return f"{self.suite}: {self.users} users, {self.seconds} s, {self.total.per_second:,.0f} requests/s"

    @property
    def name(self) -> str:
        """The name of the folder."""
        return f"{self.suite}-{self.users}"

    @property
    def breaches(self) -> list[str]:
        """The sentences of the breaches."""
        return [f"{line.name}: {line.breach}" for line in self.lines if line.breach]


def write(report: Report, folder: Path) -> None:
    """Write the report beside Locust's own files, and put it at the head of Locust's page."""
    (folder / JSON).write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=1) + b"\n")
    with (folder / CSV).open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(HEADINGS)
        writer.writerows(cells(line) for line in report.lines)
    page = folder / PAGE
    if page.exists():  # an interrupted Locust leaves none
        # Locust's scripts stand on long lines and may have the tag in a text.
        page.write_text(BODY.sub(lambda tag: tag[0] + section(report), page.read_text(), count=1))


def section(report: Report) -> str:
    """Return the verdict as HTML."""
    rows = "".join(html_row(cells(line), breached=bool(line.breach)) for line in report.lines)
    parts = "".join(html_row(row) for row in role_rows(report.usage))
    told = (_where(report), report.limit.sentence, *doubts(report.usage))
    notes = "".join(f"<p>{html.escape(text)}</p>" for text in told)
    breaches = "".join(f'<p class="breached">{html.escape(text)}</p>' for text in report.breaches)
    return (
        f'{STYLE}<section class="tallystick"><h1>{html.escape(report.title)}</h1>{breaches}'
        f"<table>{html_row(HEADINGS, 'th')}{rows}</table>"
        f"<table>{html_row(ROLE_HEADINGS, 'th')}{parts}</table>{notes}</section>"
    )


def html_row(values: tuple[str, ...], tag: str = "td", *, breached: bool = False) -> str:
    """Return a row of a table in HTML."""
    kind = ' class="breached"' if breached else ""
    return f"<tr{kind}>" + "".join(f"<{tag}>{html.escape(value)}</{tag}>" for value in values) + "</tr>"


def _where(report: Report) -> str:
    machine = f"{report.machine.get('cores')} cores, {report.machine.get('cpu')}"
    load = f"load average before {report.load_average_before}"
    return f"{report.started_at}, commit {report.commit}, {report.url}; {machine}; {load}."


ROLE_HEADINGS = ("part", "cores", "busiest process", "processes")


def role_rows(usage: Usage) -> list[tuple[str, ...]]:
    """Return who used the processors, the most first, and everything else last."""

    def row(part: str, use: RoleUse) -> tuple[str, ...]:
        return part, f"{use.cores:.2f}", f"{use.busiest:.2f}", str(use.processes)

    rows = [row(part, use) for part, use in sorted(usage.roles.items(), key=lambda each: -each[1].cores)]
    return rows if usage.other is None else [*rows, ("other programs", f"{usage.other:.2f}", "", "")]


def show(report: Report, console: Console) -> None:
    """Print the verdict. A smoke test says nothing about processors."""
    console.print(budgets_table(report.title, report.lines))
    if not report.smoke:
        _show_usage(report, console)
    for failed in report.failures[:SHOWN_FAILURES]:
        _say(console, f"failed {failed.times} times: {failed.name}: {failed.error}")
    for breach in report.breaches:
        _say(console, f"budget breached: {breach}")


def _show_usage(report: Report, console: Console) -> None:
    table = Table(title="processors", title_justify="left")
    for number, heading in enumerate(ROLE_HEADINGS):
        table.add_column(heading, justify="right" if number else "left")
    for row in role_rows(report.usage):
        table.add_row(*row)
    console.print(table)
    waits = [f"{wait.kind} {wait.event} {wait.sessions:g}" for wait in report.usage.waits[:5]]
    if waits:
        _say(console, f"PostgreSQL's sessions, on average: {', '.join(waits)}.")
    _say(console, f"Limit: {report.limit.sentence}")
    for doubt in doubts(report.usage):
        _say(console, f"Doubt: {doubt}")


def _say(console: Console, text: str) -> None:
    console.print(text, soft_wrap=True, markup=False, highlight=False)
