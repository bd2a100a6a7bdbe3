"""Counters, histograms and gauges that are cheap to use, and the text in which Prometheus reads them.

Hot paths add to plain dictionaries, which `flush` hands over to prometheus_client: at every `render`, and, where
several processes share a port, half a second after the first change. Measured on one core with shared files: counter
1.5 us and histogram 3.3 us when called directly, which is 8 us for a request; `observe_request` takes 2 us with its
share of the flush. A process that is killed loses at most its last half second of counts.

Several processes: PROMETHEUS_MULTIPROC_DIR must be in the environment before this module is imported, since
prometheus_client reads it then. The supervisor empties the folder, starts its children with it, and calls
`forget_process` for each one that ended. All functions belong to the event loop's thread.
"""

from __future__ import annotations

import asyncio
import atexit
import itertools
import math
import os
import time
from bisect import bisect_left
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

import prometheus_client
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from prometheus_client.values import MutexValue, ValueClass

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

Labels = tuple[str, ...]

CONTENT_TYPE = prometheus_client.CONTENT_TYPE_PLAIN_0_0_4
# prometheus_client chose this class by PROMETHEUS_MULTIPROC_DIR when it was imported.
SHARED = ValueClass is not MutexValue
FLUSH_SECONDS = 0.5
# All processes of a machine can never add so many bytes between two looks.
ROOM_BYTES = 4 * 2**20

# Seconds of what mostly takes a few milliseconds.
FAST_BOUNDS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5)
# Seconds of an answer: the bounds of all contracts together.
HTTP_BOUNDS: Final = (
    0.001,
    0.0025,
    0.005,
    0.01,
    0.025,
    0.05,
    0.075,
    0.1,
    0.25,
    0.5,
    0.75,
    1,
    2.5,
    5,
    7.5,
    10,
)

prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]
REGISTRY = CollectorRegistry()


class Defined(NamedTuple):
    """A metric as a reader of the text knows it."""

    name: str
    kind: Literal["counter", "histogram", "gauge"]
    labels: Labels
    about: str


# Every metric of this process, for the page of documentation and for the tests of rules and dashboards.
DEFINED: Final[list[Defined]] = []
_METRICS: list[Count | Spread] = []

# A single process hands its counts over when it renders, so it never needs the timer.
_flush_is_due = not SHARED


class Count:
    """A counter that is cheap to add to. The series of `start` are there with 0 before anything has happened."""

    def __init__(self, name: str, about: str, labels: Labels = (), start: Iterable[Labels] = ()) -> None:
        self._counter = Counter(name, about, labels, registry=REGISTRY)
        # Each sum stands in a list of one, so that the labels are hashed once for each addition.
        self._added: dict[Labels, list[float]] = {one: [0] for one in start}
        self.begun: set[Labels] = set(self._added)
        _METRICS.append(self)
        DEFINED.append(Defined(name, "counter", labels, about))

    def begin(self, *labels: str) -> None:
        """Show the series with these label values from now on, with 0 if nothing was added."""
        if labels not in self.begun:
            self.begun.add(labels)
            self.add(*labels, by=0)

    def add(self, *labels: str, by: float = 1) -> None:
        """Add `by` to the series with these label values."""
        added = self._added.get(labels)
        if added is not None:
            added[0] += by
        else:
            self._added[labels] = [by]
            if not _flush_is_due:
                _schedule_flush()

    def flush(self) -> None:
        """Hand over to prometheus_client."""
        added, self._added = self._added, {}
        for labels, (by,) in added.items():
            (self._counter.labels(*labels) if labels else self._counter).inc(by)


class Copy(NamedTuple):
    """A second name of a histogram: its bounds are some of the first one's, `relabel` makes its labels."""

    spread: Spread
    relabel: Callable[[Labels], Labels]


class Spread:
    """A histogram that is cheap to observe into. The series of `start` are there before anything was observed."""

    def __init__(
        self,
        name: str,
        about: str,
        labels: Labels,
        bounds: tuple[float, ...],
        start: Iterable[Labels] = (),
        also: Copy | None = None,
    ) -> None:
        self._histogram = Histogram(name, about, labels, buckets=bounds, registry=REGISTRY)
        self._bounds = bounds
        self._also = also
        # Each list, by label values, has the count of each bucket, the last one unbounded, and then the sum.
        self._seen: dict[Labels, list[float]] = {one: self._nothing() for one in start}
        _METRICS.append(self)
        DEFINED.append(Defined(name, "histogram", labels, about))

    def begin(self, *labels: str) -> None:
        """Show the series with these label values from now on."""
        self._seen.setdefault(labels, self._nothing())

    def observe(self, value: float, *labels: str) -> None:
        """Record `value` in the series with these label values."""
        seen = self._seen.get(labels)
        if seen is None:
            seen = self._seen[labels] = self._nothing()
            if not _flush_is_due:
                _schedule_flush()
        seen[bisect_left(self._bounds, value)] += 1
        seen[-1] += value

    @contextmanager
    def timed(self, *labels: str) -> Iterator[None]:
        """Record the seconds that the block takes, however it ends."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.observe(time.perf_counter() - started, *labels)

    def flush(self) -> None:
        """Hand over to prometheus_client."""
        seen_of, self._seen = self._seen, {}
        for labels, seen in seen_of.items():
            child = self._histogram.labels(*labels) if labels else self._histogram
            # The client has no public way to add many observations at once; a test holds that these members exist.
            for bucket, count in zip(child._buckets, seen, strict=False):  # noqa: SLF001
                if count:
                    bucket.inc(count)
            child._sum.inc(seen[-1])  # noqa: SLF001
            if self._also is not None:
                self._also.spread.include(self._bounds, seen, *self._also.relabel(labels))

    def include(self, bounds: tuple[float, ...], counts: list[float], *labels: str) -> None:
        """Add what was counted between finer `bounds`, and the sum, which comes last."""
        seen = self._seen.setdefault(labels, self._nothing())
        for bound, count in zip((*bounds, math.inf), counts, strict=False):
            seen[bisect_left(self._bounds, bound)] += count
        seen[-1] += counts[-1]

    def _nothing(self) -> list[float]:
        return [0] * (len(self._bounds) + 2)


Share = Literal["livesum", "livemax", "livemostrecent", "mostrecent"]


def level(name: str, about: str, labels: Labels = (), *, share: Share = "livemostrecent") -> Gauge:
    """Return a gauge; `share` says what processes of one port show together: by default the value that was set last."""
    DEFINED.append(Defined(name, "gauge", labels, about))
    return Gauge(name, about, labels, registry=REGISTRY, multiprocess_mode=share)


def each(*values: Iterable[str]) -> list[Labels]:
    """Return every combination of label values."""
    return list(itertools.product(*values))


def flush() -> None:
    """Hand over the counts since the last time; keep them while the folder that processes share has no room.

    The client writes into mapped files, and a page that the disk has no room for ends the process with SIGBUS.
    """
    global _flush_is_due  # noqa: PLW0603
    if SHARED and not _has_room():
        _flush_is_due = False
        _schedule_flush()
        return
    # A copy stands before its original, and is handed over after it.
    for metric in reversed(_METRICS):
        metric.flush()
    _flush_is_due = not SHARED


def _has_room() -> bool:
    try:
        found = os.statvfs(os.environ["PROMETHEUS_MULTIPROC_DIR"])
    except (KeyError, OSError):
        return False
    return found.f_bavail * found.f_frsize >= ROOM_BYTES


def _schedule_flush() -> None:
    global _flush_is_due  # noqa: PLW0603
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        return  # without a loop this is a short-lived command, which flushes at its end
    loop.call_later(FLUSH_SECONDS, flush)
    _flush_is_due = True


if SHARED:
    atexit.register(flush)


def render() -> bytes:
    """Return the exposition text (CONTENT_TYPE) of this process, or of all processes that share its folder."""
    return prometheus_client.generate_latest(_collected())


def totals(name: str, label: str) -> dict[str, int]:
    """Return the sums of the counter `name` by the values of one label, over all that `render` shows."""
    sums: dict[str, int] = {}
    for family in _collected().collect():
        for sample in family.samples:
            if sample.name == name:
                value = sample.labels[label]
                sums[value] = sums.get(value, 0) + int(sample.value)
    return sums


def _collected() -> CollectorRegistry:
    flush()
    if not SHARED:
        return REGISTRY
    together = CollectorRegistry()
    MultiProcessCollector(together)  # type: ignore[no-untyped-call]
    return together


def forget_process(pid: int, folder: str) -> None:
    """Remove the gauges of an ended process from `folder`; its counts stay."""
    mark_process_dead(pid, folder)  # type: ignore[no-untyped-call]
