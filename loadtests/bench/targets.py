"""The targets of the benchmark, and the one number that a run gives for each."""

import operator
from collections.abc import Callable, Iterable, Mapping
from statistics import median
from typing import Literal

import msgspec

from loadtests.bench.figures import Figure, Figures


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """One number to reach. `better` says on which side of `bound` it must lie."""

    key: str
    text: str
    better: Literal[">=", ">", "<=", "<"]
    bound: float
    unit: str = ""

    def met(self, got: float) -> bool:
        """Whether the number reaches the target."""
        return _COMPARE[self.better](got, self.bound)


_COMPARE: Mapping[str, Callable[[float, float], bool]] = {
    ">=": operator.ge,
    ">": operator.gt,
    "<=": operator.le,
    "<": operator.lt,
}

TARGETS = (
    Target(
        key="single_uniform_vs_pgbench",
        text="single transfers over HTTP, uniform / pgbench TPC-B",
        better=">=",
        bound=1.0,
        unit="×",
    ),
    Target(
        key="single_uniform_vs_floor1",
        text="single transfers over HTTP, uniform / bare aiohttp handler",
        better=">=",
        bound=0.5,
        unit="×",
    ),
    Target(
        key="hot_vs_uniform", text="one hot account / uniform, over HTTP", better=">=", bound=0.9, unit="×"
    ),
    Target(
        key="hot_vs_function_hot",
        text="one hot account over HTTP / posting function one at a time",
        better=">=",
        bound=3.0,
        unit="×",
    ),
    Target(
        key="one_connection_p50_extra_ms",
        text="1 connection: p50 beyond the direct call plus the bare handler",
        better="<=",
        bound=1.0,
        unit="ms",
    ),
    Target(
        key="batch1000_vs_pgbench",
        text="transfers in batches of 1,000 over HTTP / pgbench TPC-B",
        better=">=",
        bound=4.0,
        unit="×",
    ),
    Target(
        key="bytes_per_transfer",
        text="bytes a two-leg transfer, all tables and indexes",
        better="<=",
        bound=450,
        unit="B",
    ),
    Target(key="hot_update_share", text="HOT share of the updates on accounts", better=">", bound=0.9),
    Target(
        key="loaded_vs_small",
        text="speed with 10 million entries / with 100,000",
        better=">=",
        bound=0.85,
        unit="×",
    ),
    Target(
        key="past_balance_p99_ms",
        text="balance at a past time, 10 million entries, p99",
        better="<",
        bound=5.0,
        unit="ms",
    ),
    Target(key="api_rss_mb", text="API process, resident", better="<", bound=150, unit="MB"),
    Target(
        key="qr_payments_vs_single",
        text="payments at one merchant's QR code with a fee / plain transfers, over HTTP",
        better=">=",
        bound=0.7,
        unit="×",
    ),
    Target(
        key="ingest_vs_floor1",
        text="signed events over HTTP / bare aiohttp handler",
        better=">=",
        bound=0.5,
        unit="×",
    ),
    Target(
        key="ack500_p99_ms",
        text="acknowledgement p99 at 500 events/s, half of them duplicates",
        better="<=",
        bound=10,
        unit="ms",
    ),
    Target(
        key="ack1000_p99_ms",
        text="acknowledgement p99 at 1,000 events/s, half of them duplicates",
        better="<=",
        bound=25,
        unit="ms",
    ),
    Target(
        key="refusal_cpu_us",
        text="processor time of a refused signature, beyond the bare handler's",
        better="<",
        bound=50,
        unit="µs",
    ),
    Target(
        key="delivery50_p95_ms",
        text="from the written event to its receiver, p95 at 50 events/s",
        better="<",
        bound=100,
        unit="ms",
    ),
    Target(
        key="delivery200_p95_ms",
        text="from the written event to its receiver, p95 at 200 events/s",
        better="<",
        bound=100,
        unit="ms",
    ),
    Target(
        key="pipeline_rate",
        text="signed payments worked off to one receiver, one worker",
        better=">=",
        bound=2_000,
        unit="a second",
    ),
    Target(
        key="pipeline_two_workers",
        text="the same with 2 workers / with one, where cores allow",
        better=">=",
        bound=1.4,
        unit="×",
    ),
    Target(
        key="pipeline200_p50_ms",
        text="from a signed payment's sending to the receiver, p50 at 200 events/s",
        better="<=",
        bound=5,
        unit="ms",
    ),
    Target(
        key="pipeline200_p95_ms",
        text="from a signed payment's sending to the receiver, p95 at 200 events/s",
        better="<=",
        bound=10,
        unit="ms",
    ),
    Target(
        key="pipeline1000_p95_ms",
        text="from a signed payment's sending to the receiver, p95 at 1,000 events/s",
        better="<=",
        bound=60,
        unit="ms",
    ),
    Target(
        key="pipeline_rss_mb", text="pipeline: API and worker, resident", better="<", bound=150, unit="MB"
    ),
    # "Flat": what allocators still settle after the warm-up, and the backlogs of some seconds.
    Target(
        key="pipeline_rss_growth_mb",
        text="pipeline: API and worker, growth after the warm-up",
        better="<=",
        bound=10,
        unit="MB",
    ),
    Target(
        key="sustained_rate",
        text="deliveries at once, to 1, 100 or 1,000 endpoints, the slowest",
        better=">=",
        bound=2_000,
        unit="a second",
    ),
    Target(
        key="told_vs_quiet",
        text="wallet payments that an endpoint is told of / without one",
        better=">=",
        bound=0.85,
        unit="×",
    ),
    Target(
        key="told200_p95_ms",
        text="from a wallet payment's sending to its receiver, p95 at 200 payments/s",
        better="<=",
        bound=10,
        unit="ms",
    ),
    Target(
        key="grown_rate",
        text="pipeline after a million events / empty: backlog or deliveries, the worse",
        better=">=",
        bound=0.9,
        unit="×",
    ),
    Target(
        key="grown_p50",
        text="pipeline after a million events / empty: p50 at 200 events/s",
        better="<=",
        bound=1.1,
        unit="×",
    ),
    Target(
        key="isolation_p99",
        text="healthy receivers' p99 beside dead and slow ones / alone",
        better="<",
        bound=1.2,
        unit="×",
    ),
    Target(
        key="create_own_p95_ms",
        text="one creation of a payment beyond the provider's own time, p95",
        better="<",
        bound=5,
        unit="ms",
    ),
    # "Flat": a claim that reads what died before it grows with the time, many times over.
    Target(
        key="claims_growth",
        text="claims while a foreign transaction stays open: p50 at the end / at the start",
        better="<=",
        bound=1.5,
        unit="×",
    ),
    # "Flat": what allocators and caches still settle, as against a leak, which goes on.
    Target(
        key="api_rss_growth_mb", text="API process, growth in 10 minutes", better="<=", bound=5, unit="MB"
    ),
)


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """A target and its figure; `got` and `met` are None where it was not measured or a figure was invalid."""

    key: str
    text: str
    want: str
    got: float | None
    met: bool | None
    unit: str


def verdicts(ratios: Mapping[str, float | None]) -> list[Verdict]:
    """Holds the ratios against the targets, in the order of the targets."""
    found = []
    for target in TARGETS:
        got = ratios.get(target.key)
        found.append(
            Verdict(
                key=target.key,
                text=target.text,
                want=f"{target.better} {target.bound:g}",
                got=got,
                met=None if got is None else target.met(got),
                unit=target.unit,
            )
        )
    return found


def speed_ratios(figures: Figures, connections: Iterable[int]) -> dict[str, float | None]:
    """The ratios of the speed targets. Where one is measured at several numbers of connections, the worst counts."""
    every = list(connections)

    def worst(ours: str, floor: str) -> float | None:
        return _worst(figures.ratio(ours.format(c=c), floor.format(c=c)) for c in every)

    return {
        "single_uniform_vs_pgbench": worst("single.uniform@{c}", "floor2.tpcb"),
        "single_uniform_vs_floor1": worst("single.uniform@{c}", "floor1.single@{c}"),
        "hot_vs_uniform": worst("single.hot@{c}", "single.uniform@{c}"),
        "hot_vs_function_hot": worst("single.hot@{c}", "floor3.function.hot"),
        "one_connection_p50_extra_ms": one_connection_extra_ms(figures),
        "batch1000_vs_pgbench": figures.ratio("batch1000", "floor2.tpcb"),
        "loaded_vs_small": figures.ratio("single.uniform.loaded", "single.uniform.small"),
        "qr_payments_vs_single": figures.ratio("payments.qr", "payments.single"),
        "past_balance_p99_ms": _median_latency(figures, "past_balance", "p99"),
        "create_own_p95_ms": _median_latency(figures, "creates.own@1", "p95"),
    }


def webhook_ratios(figures: Figures) -> dict[str, float | None]:
    """The numbers of the targets of webhooks in and out."""
    return {
        "ingest_vs_floor1": figures.ratio("event", "floor1.event"),
        "ack500_p99_ms": _median_latency(figures, "ack@500", "p99"),
        "ack1000_p99_ms": _median_latency(figures, "ack@1000", "p99"),
        "refusal_cpu_us": refusal_cpu_us(figures),
        "delivery50_p95_ms": _median_latency(figures, "delivery@50", "p95"),
        "delivery200_p95_ms": _median_latency(figures, "delivery@200", "p95"),
        "isolation_p99": _latency_ratio(figures, "isolation.beside", "isolation.alone", "p99"),
        "claims_growth": claims_growth(figures),
    }


def pipeline_ratios(figures: Figures) -> dict[str, float | None]:
    """The numbers of the targets of the whole way."""
    return {
        "pipeline_rate": figures.median_rate("pipeline.backlog"),
        "pipeline_two_workers": figures.ratio("pipeline.backlog.workers2", "pipeline.backlog"),
        "pipeline200_p50_ms": _median_latency(figures, "pipeline@200", "p50"),
        "pipeline200_p95_ms": _median_latency(figures, "pipeline@200", "p95"),
        "pipeline1000_p95_ms": _median_latency(figures, "pipeline@1000", "p95"),
        "sustained_rate": _worst(
            figures.median_rate(name) for name in figures.names() if name.startswith("sustained@")
        ),
        "told_vs_quiet": figures.ratio("told.heard", "told.quiet"),
        "told200_p95_ms": _median_latency(figures, "told@200", "p95"),
        "grown_rate": _worst(
            figures.ratio(f"grown.{kind}", f"lean.{kind}") for kind in ("backlog", "sustained")
        ),
        "grown_p50": _latency_ratio(figures, "grown@200", "lean@200", "p50"),
    }


def _worst(rates: Iterable[float | None]) -> float | None:
    """The lowest, None when one of them is not known."""
    every = list(rates)
    known = [rate for rate in every if rate is not None]
    return min(known) if known and len(known) == len(every) else None


def refusal_cpu_us(figures: Figures) -> float | None:
    """The CPU time of the API's processes for a refused event, less that of the bare handler for the same request."""
    rounds = figures.pairs("forged", "floor1.forged")
    extra = [_cpu_us(ours, "api") - _cpu_us(floor, "floor1") for ours, floor in rounds]
    return median(extra) if extra else None


def claims_growth(figures: Figures) -> float | None:
    """How much longer claims take at the end than at the start; of the inbox or of deliveries, whichever is worse."""
    kinds = [
        _latency_ratio(figures, f"claims.{kind}.5", f"claims.{kind}.1", "p50")
        for kind in ("inbox", "deliveries")
    ]
    known = [growth for growth in kinds if growth is not None]
    return max(known) if len(known) == len(kinds) else None


def _cpu_us(figure: Figure, role: str) -> float:
    return figure.cpu.get(role, 0.0) * figure.seconds / figure.requests * 1e6


def _latency_ratio(figures: Figures, ours: str, floor: str, percentile: str) -> float | None:
    pairs = [(a.latency_ms[percentile], b.latency_ms[percentile]) for a, b in figures.pairs(ours, floor)]
    return median(a / b for a, b in pairs) if pairs and all(b for _, b in pairs) else None


def one_connection_extra_ms(figures: Figures) -> float | None:
    """The time of one request beyond its parts: p50 over HTTP less those of the direct call and the bare handler."""
    rounds = figures.pairs("single.uniform@1", "floor3.direct@1", "floor1.single@1")
    extra = [
        http.latency_ms["p50"] - direct.latency_ms["p50"] - bare.latency_ms["p50"]
        for http, direct, bare in rounds
    ]
    return round(median(extra), 4) if extra else None


def _median_latency(figures: Figures, name: str, percentile: str) -> float | None:
    found = [rounds[0].latency_ms[percentile] for rounds in figures.pairs(name)]
    return median(found) if found else None
