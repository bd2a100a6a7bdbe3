"""The figures that Locust's process measured, as it writes them down."""

from pathlib import Path

import msgspec

from loadtests.budgets import Seen


class Measured(msgspec.Struct, frozen=True):
    """The figures of one kind of request; times are None where none was made."""

    name: str
    requests: int
    failures: int
    per_second: float
    p50_ms: float | None = None
    p95_ms: float | None = None
    p99_ms: float | None = None
    max_ms: float | None = None

    @property
    def seen(self) -> Seen:
        """The part that budgets speak of."""
        return Seen(self.requests, self.failures, self.p95_ms)


class Failed(msgspec.Struct, frozen=True):
    """One way in which requests of a name failed, and how often."""

    name: str
    error: str
    times: int


class Results(msgspec.Struct, frozen=True, kw_only=True):
    """The whole of a run. Moments are unix seconds; `exceptions` are tracebacks of the suite's own code."""

    started_at: float
    ended_at: float
    requests: list[Measured]
    total: Measured
    failures: list[Failed]
    exceptions: list[str]

    def seen(self) -> dict[str, Seen]:
        """Return what budgets are held against, by the name of the request."""
        return {each.name: each.seen for each in self.requests}


def read_results(path: Path) -> Results:
    """Read what Locust's process wrote. Raises OSError where it wrote nothing, msgspec.DecodeError."""
    return msgspec.json.decode(path.read_bytes(), type=Results)
