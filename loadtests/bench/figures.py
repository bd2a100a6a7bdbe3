"""Figures: the result of one measurement, and the few sums made of several."""

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence

import msgspec

#: The percentiles that every client records; the key is also the name in the results file.
PERCENTILES: Mapping[str, float] = {"p50": 50.0, "p90": 90.0, "p95": 95.0, "p99": 99.0, "p99.9": 99.9}


class Figure(msgspec.Struct, frozen=True, kw_only=True):
    """One measurement of one thing, raw.

    `rate` is in `unit` (transfers per second and the like); latencies are of whole requests, in milliseconds.
    `cpu` gives how many cores each part ("client", "api", "postgres", ...) used on average; "other" is what the rest of
    the machine used meanwhile. `errors` counts by kind whatever was not a success: any makes the figure invalid.
    """

    name: str
    unit: str
    rate: float
    seconds: float
    requests: int
    connections: int
    client: str
    latency_ms: dict[str, float]
    errors: dict[str, int]
    round: int = 0
    cpu: dict[str, float] = {}
    load_average: float | None = None
    steal: float | None = None

    @property
    def valid(self) -> bool:
        """Whether every request succeeded and there was at least one."""
        return not self.errors and self.requests > 0


def percentile(ordered: Sequence[float], percent: float) -> float:
    """The nearest-rank percentile of values already in ascending order: always a value that occurred.

    Raises ValueError without values or when `percent` lies outside 0..100.
    """
    if not ordered:
        raise ValueError("no values")
    if not 0 <= percent <= 100:
        raise ValueError(f"{percent} is not a percentage")
    rank = math.ceil(percent / 100 * len(ordered))
    return ordered[max(rank, 1) - 1]


def latency_summary(seconds: Iterable[float]) -> dict[str, float]:
    """Percentiles, mean and maximum in milliseconds of latencies in seconds; empty without values."""
    ordered = sorted(seconds)
    if not ordered:
        return {}
    summary = {name: percentile(ordered, percent) * 1000 for name, percent in PERCENTILES.items()}
    summary["mean"] = statistics.fmean(ordered) * 1000
    summary["max"] = ordered[-1] * 1000
    return {name: round(value, 4) for name, value in summary.items()}


def slope_per_second(points: Sequence[tuple[float, float]]) -> float:
    """The least-squares slope through (second, value) points; 0.0 where fewer than two moments were seen."""
    if len({moment for moment, _ in points}) < 2:
        return 0.0
    return statistics.linear_regression(
        [moment for moment, _ in points], [value for _, value in points]
    ).slope


class Figures:
    """All figures of a run, and the medians and paired ratios taken of them."""

    def __init__(self) -> None:
        self.all: list[Figure] = []

    def add(self, figure: Figure) -> None:
        """Keeps one more."""
        self.all.append(figure)

    def named(self, name: str) -> list[Figure]:
        """The figures of that name, in the order taken."""
        return [figure for figure in self.all if figure.name == name]

    def names(self) -> list[str]:
        """Every name once, in the order first measured."""
        return list(dict.fromkeys(figure.name for figure in self.all))

    def median_rate(self, name: str) -> float | None:
        """The median over the rounds, None when it was not measured or any round was invalid."""
        figures = self.named(name)
        if not figures or not all(figure.valid for figure in figures):
            return None
        return statistics.median(figure.rate for figure in figures)

    def ratio(self, ours: str, floor: str) -> float | None:
        """The median over the rounds of ours / floor, each pair from one round.

        Pairs cancel a machine that is slower in one round than in the next, which a ratio of two medians does not.
        """
        pairs = [(a.rate, b.rate) for a, b in self.pairs(ours, floor)]
        return statistics.median(a / b for a, b in pairs) if pairs and all(b for _, b in pairs) else None

    def pairs(self, *names: str) -> list[tuple[Figure, ...]]:
        """The figures of these names round by round; empty when one is missing or invalid in any round."""
        by_round = [{figure.round: figure for figure in self.named(name)} for name in names]
        rounds = sorted(set().union(*by_round))
        if not rounds or any(set(of_name) != set(rounds) for of_name in by_round):
            return []
        if not all(figure.valid for of_name in by_round for figure in of_name.values()):
            return []
        return [tuple(of_name[number] for of_name in by_round) for number in rounds]
