"""The costs of tests, as a long run tells them at its end."""

from collections import defaultdict
from collections.abc import Iterator, Sequence

import pytest

SLOWEST_SHOWN = 10


def costs_of(reports: Sequence[pytest.TestReport]) -> Iterator[str]:
    """Yield the times of set-up and tests, together and for each test, and the slowest tests with their set-up."""
    phases: defaultdict[str, float] = defaultdict(float)
    tests: defaultdict[str, float] = defaultdict(float)
    for report in reports:
        phases[report.when] += report.duration
        tests[report.nodeid] += report.duration
    yield f"TIME of {len(tests)} tests, in seconds over all processes (and milliseconds a test):"
    for phase, seconds in phases.items():
        yield f"  {phase:<8} {seconds:7.1f} ({seconds / len(tests) * 1000:.0f})"
    yield "  slowest:"
    for test, seconds in sorted(tests.items(), key=lambda test: -test[1])[:SLOWEST_SHOWN]:
        yield f"  {seconds:16.1f} {test}"
