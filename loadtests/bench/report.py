"""The report of a run, as it is written to loadtests/results."""

import datetime as dt
from pathlib import Path
from typing import Any

import msgspec

from loadtests.bench import machine
from loadtests.bench.figures import Figure, Figures
from loadtests.bench.memory import Memory
from loadtests.bench.pipeline.group import Pipeline
from loadtests.bench.pipeline.grown import Grown
from loadtests.bench.plan import Plan
from loadtests.bench.storage import Storage
from loadtests.bench.targets import TARGETS, Verdict, pipeline_ratios, speed_ratios, webhook_ratios


class Contention(msgspec.Struct, frozen=True, kw_only=True):
    """The load of the rest of the machine: a figure taken beside a busy neighbour is the neighbour's, too."""

    load_average_before: float | None
    load_average_after: float | None
    other_cores_largest: float | None
    steal_largest: float | None


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """A run, as it is written to loadtests/results. `ratios` has one number for each target, None where unknown."""

    started_at: str
    finished_at: str
    commit: str
    quick: bool
    machine: dict[str, Any]
    contention: Contention
    postgres: dict[str, str]
    plan: dict[str, Any]
    figures: list[Figure]
    medians: dict[str, float | None]
    storage: Storage | None
    memory: Memory | None
    pipeline: Pipeline | None
    grown: Grown | None
    ratios: dict[str, float | None]
    targets: list[Verdict]
    notes: list[str]


def all_ratios(
    plan: Plan,
    figures: Figures,
    storage: Storage | None = None,
    memory: Memory | None = None,
    pipeline: Pipeline | None = None,
) -> dict[str, float | None]:
    """One number for each target, rounded for people; None where it was not measured or a figure was invalid."""
    ratios = speed_ratios(figures, plan.connections) | webhook_ratios(figures) | pipeline_ratios(figures)
    valid = all(figure.valid for figure in figures.all if figure.name.startswith(("storage.", "memory.")))
    if storage and valid:
        ratios |= {
            "bytes_per_transfer": storage.bytes_per_transfer,
            "hot_update_share": storage.hot_update_share,
        }
    if memory and valid:
        ratios |= {"api_rss_mb": memory.largest_mb, "api_rss_growth_mb": memory.growth_mb}
    if pipeline and pipeline.resident_at_end:
        ends, starts = pipeline.resident_at_end, pipeline.resident_at_start
        ratios |= {
            "pipeline_rss_mb": max(ends.values()),
            "pipeline_rss_growth_mb": max(end - starts.get(role, end) for role, end in ends.items()),
        }
    known = {target.key: ratios.get(target.key) for target in TARGETS}
    return {key: None if got is None else round(got, 4) for key, got in known.items()}


def contention(figures: Figures, load_before: float | None) -> Contention:
    """The worst that any measurement saw."""
    others = [figure.cpu["other"] for figure in figures.all if "other" in figure.cpu]
    stolen = [figure.steal for figure in figures.all if figure.steal is not None]
    return Contention(
        load_average_before=load_before,
        load_average_after=machine.load_average(),
        other_cores_largest=max(others, default=None),
        steal_largest=max(stolen, default=None),
    )


def now() -> str:
    """The time as the report states it: UTC, to the second."""
    return dt.datetime.now(dt.UTC).isoformat(timespec="seconds")


def results_path(folder: Path, report: Report) -> Path:
    """`<date>-<commit>.json`, with a number from the second of one day and commit on."""
    stem = f"{report.started_at[:10]}-{report.commit}{'-quick' if report.quick else ''}"
    path = folder / f"{stem}.json"
    number = 2
    while path.exists():
        path = folder / f"{stem}-{number}.json"
        number += 1
    return path
