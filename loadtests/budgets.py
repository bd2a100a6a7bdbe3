"""Latency budgets: read from budgets.toml, held against what a run saw. Knows nothing of Locust."""

import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path

import msgspec
from rich.table import Table

BUDGETS = Path(__file__).with_name("budgets.toml")


class Budget(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The budget of one kind of request; see budgets.toml."""

    p95_ms: float
    failure_ratio: float = 0.0


class Total(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The budget of all requests together."""

    failure_ratio: float = 0.0


class Budgets(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The whole file."""

    requests: dict[str, Budget]
    total: Total = Total()


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
    """One budget and its verdict; `breach` is a sentence, empty where the budget was kept."""

    name: str
    seen: Seen
    p95_ms: float | None
    failure_ratio: float
    breach: str


def load_budgets(path: Path = BUDGETS) -> Budgets:
    """Reads the file; raises msgspec.ValidationError, tomllib.TOMLDecodeError or OSError."""
    return msgspec.convert(tomllib.loads(path.read_text()), type=Budgets)


def judge(budgets: Budgets, seen: Mapping[str, Seen]) -> list[Line]:
    """Holds every budget against what was seen, in the order of the file, and the total last."""
    lines = [
        _line(name, budget, seen.get(name, Seen(0, 0, None))) for name, budget in budgets.requests.items()
    ]
    everything = Seen(
        sum(each.requests for each in seen.values()), sum(each.failures for each in seen.values()), None
    )
    allowed = budgets.total.failure_ratio
    breach = "" if everything.failure_ratio <= allowed else _too_many(everything, allowed)
    return [*lines, Line("total", everything, None, allowed, breach)]


def _line(name: str, budget: Budget, seen: Seen) -> Line:
    breaches = []
    if seen.requests == 0 or seen.p95_ms is None:
        breaches.append("was never requested")
    elif seen.p95_ms > budget.p95_ms:
        breaches.append(f"p95 {seen.p95_ms:g} ms is over {budget.p95_ms:g} ms")
    if seen.failure_ratio > budget.failure_ratio:
        breaches.append(_too_many(seen, budget.failure_ratio))
    return Line(name, seen, budget.p95_ms, budget.failure_ratio, "; ".join(breaches))


def _too_many(seen: Seen, allowed: float) -> str:
    return f"{seen.failures} of {seen.requests} failed, {seen.failure_ratio:.2%} is over {allowed:.2%}"


def breached(lines: Iterable[Line]) -> bool:
    """Whether any budget was breached."""
    return any(line.breach for line in lines)


def budgets_table(lines: Iterable[Line]) -> Table:
    """The verdict for a terminal."""
    table = Table(title="budgets", title_justify="left")
    table.add_column("request", no_wrap=True)
    for heading in ("requests", "p95 ms", "allowed", "failed", "allowed"):
        table.add_column(heading, justify="right")
    table.add_column("verdict")
    for line in lines:
        table.add_row(
            line.name,
            f"{line.seen.requests:,}",
            "" if line.seen.p95_ms is None else f"{line.seen.p95_ms:g}",
            "" if line.p95_ms is None else f"{line.p95_ms:g}",
            f"{line.seen.failure_ratio:.2%}",
            f"{line.failure_ratio:.2%}",
            "[red]breached[/red]" if line.breach else "[green]kept[/green]",
        )
    return table
