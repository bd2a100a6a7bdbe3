"""The page of a step load: its steps in a table, with throughput and latency as curves over the users."""

from __future__ import annotations

import csv
import html
from typing import TYPE_CHECKING

import msgspec
from rich.table import Table

from loadtests.runs.locusts import PAGE
from loadtests.runs.report import STYLE, html_row

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from loadtests.runs.knee import Knee
    from loadtests.runs.report import Report

HEADINGS = ("users", "requests/s", "p95 ms", "of its budget", "failed", "limit")
WIDTH, HEIGHT, MARGIN = 640, 240, 48


class StepReport(msgspec.Struct, frozen=True):
    """A step load as a whole; the steps have reports of their own beside it."""

    suite: str
    knee_users: int | None
    knee_per_second: float | None
    reason: str
    limit: str
    steps: list[tuple[str, ...]]


def worst(report: Report) -> float | None:
    """Return the largest share of a budget that a request's p95 took, None where none was measured."""
    shares = [
        line.seen.p95_ms / line.p95_ms
        for line in report.lines
        if line.p95_ms is not None and line.seen.p95_ms is not None
    ]
    return max(shares, default=None)


def row(report: Report) -> tuple[str, ...]:
    """Return a step under HEADINGS; its p95 is that of all requests together."""
    share = worst(report)
    return (
        str(report.users),
        f"{report.total.per_second:,.0f}",
        f"{report.total.p95_ms or 0:g}",
        "" if share is None else f"{share:.0%}",
        f"{report.total.seen.failure_ratio:.2%}",
        report.limit.part,
    )


def sentence(knee: Knee) -> str:
    """Return the result for a person."""
    if knee.step is None:
        return f"No knee: the first load was too much already: {knee.reason}."
    return f"The knee is at {knee.step.users} users, {knee.step.per_second:,.0f} requests a second: {knee.reason}."


def table(suite: str, reports: Sequence[Report]) -> Table:
    """Return the steps for a terminal."""
    made = Table(title=f"{suite}: steps", title_justify="left")
    for heading in HEADINGS:
        made.add_column(heading, justify="left" if heading == HEADINGS[-1] else "right")
    for report in reports:
        made.add_row(*row(report))
    return made


def write(folder: Path, suite: str, reports: Sequence[Report], knee: Knee) -> Path:
    """Write `<suite>-steps` as HTML, CSV and JSON; return the page."""
    rows = [row(report) for report in reports]
    found = knee.step
    whole = StepReport(
        suite,
        found.users if found else None,
        found.per_second if found else None,
        knee.reason,
        reports[-1].limit.sentence,
        rows,
    )
    page = folder / f"{suite}-steps.html"
    page.with_suffix(".json").write_bytes(msgspec.json.format(msgspec.json.encode(whole), indent=1) + b"\n")
    with page.with_suffix(".csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(HEADINGS)
        writer.writerows(rows)
    page.write_text(_html(whole, reports, sentence(knee)))
    return page


def _html(whole: StepReport, reports: Sequence[Report], told: str) -> str:
    links = "".join(
        f'<li><a href="{html.escape(report.name)}/{PAGE}">{report.users} users</a></li>' for report in reports
    )
    users = [report.users for report in reports]
    rate = curve("requests a second", users, [report.total.per_second for report in reports])
    latency = curve("p95 ms", users, [report.total.p95_ms or 0.0 for report in reports])
    title = html.escape(f"{whole.suite}: step load")
    rows = "".join(html_row(each) for each in whole.steps)
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title>{STYLE}'
        f'<section class="tallystick">'
        f"<h1>{title}</h1><p>{html.escape(told)}</p><p>{html.escape(whole.limit)}</p>{rate}{latency}"
        f"<table>{html_row(HEADINGS, 'th')}{rows}</table><ul>{links}</ul></section></html>\n"
    )


def curve(title: str, users: Sequence[int], values: Sequence[float]) -> str:
    """Return one curve over the users as SVG, both axes from zero."""
    most_users, most = max(users), max([*values, 1e-9])

    def at(count: float, value: float) -> tuple[float, float]:
        return (
            round(MARGIN + count / most_users * (WIDTH - 2 * MARGIN), 1),
            round(HEIGHT - MARGIN - value / most * (HEIGHT - 2 * MARGIN), 1),
        )

    points = [at(count, value) for count, value in zip(users, values, strict=True)]
    line = " ".join(f"{x},{y}" for x, y in points)
    dots = "".join(
        f'<circle cx="{x}" cy="{y}" r="3"><title>{count} users: {value:g}</title></circle>'
        for (x, y), count, value in zip(points, users, values, strict=True)
    )
    (left, bottom), (right, top) = at(0, 0), at(most_users, most)
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" role="img" aria-label="{html.escape(title)}">'
        f'<path d="M{left} {top}V{bottom}H{right}" fill="none" stroke="#888"/>'
        f'<polyline points="{line}" fill="none" stroke="#0b57d0" stroke-width="2"/>{dots}'
        f'<text x="{left}" y="{top - 12}" font-size="13">{html.escape(title)}, up to {most:,.0f}</text>'
        f'<text x="{right}" y="{bottom + 20}" font-size="13" text-anchor="end">{most_users} users</text></svg>'
    )
