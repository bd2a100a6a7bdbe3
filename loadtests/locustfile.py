"""The Locust side of `tallystick load`, which prepares the data and starts this with `--given FILE`.

It makes the users that it is told and writes down what was measured; the verdict is the command's. Never import this
into another program: Locust replaces the sockets of its process with gevent's.
"""

import sys
import time
from pathlib import Path
from typing import Any

import msgspec
from locust import events
from locust.runners import WorkerRunner

# Locust is given a path and not a package, so the checkout is not where modules are looked for.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from loadtests.runs.results import Failed, Measured, Results
from loadtests.suites.given import read_given
from loadtests.suites.mixed import Anybody
from loadtests.suites.payments import Shop
from loadtests.suites.qr import Payer
from loadtests.suites.transfers import Program
from loadtests.suites.wallets import Customer
from loadtests.suites.webhooks import Stripe

#: The users of all suites; Locust is told by name which of them to make.
__all__ = ["Anybody", "Customer", "Payer", "Program", "Shop", "Stripe"]

#: Percentiles that are written down, by their names.
PERCENTILES = {"p50_ms": 0.5, "p95_ms": 0.95, "p99_ms": 0.99, "max_ms": 1.0}
_started: list[float] = []


@events.init_command_line_parser.add_listener  # type: ignore[untyped-decorator]
def add_options(parser: Any) -> None:
    """Add our own option."""
    parser.add_argument("--given", required=True, metavar="FILE", help="What the suite is given, as JSON")


@events.init.add_listener  # type: ignore[untyped-decorator]
def read_data(environment: Any, **_: object) -> None:
    """Read what the suite is given."""
    environment.given = read_given(Path(environment.parsed_options.given))


@events.test_start.add_listener  # type: ignore[untyped-decorator]
def note_start(**_: object) -> None:
    """Note when the load began: the start of Locust before it costs a second of processor time."""
    _started.append(time.time())


@events.quitting.add_listener  # type: ignore[untyped-decorator]
def write_results(environment: Any, **_: object) -> None:
    """Write down what was measured. Locust's own workers leave that to their master."""
    if isinstance(environment.runner, WorkerRunner):
        return
    stats = environment.stats
    results = Results(
        started_at=_started[0] if _started else time.time(),
        ended_at=stats.last_request_timestamp or time.time(),
        requests=[_measured(entry) for entry in stats.entries.values() if entry.num_requests],
        total=_measured(stats.total),
        failures=[Failed(error.name, str(error.error), error.occurrences) for error in stats.errors.values()],
        exceptions=[str(each["traceback"]) for each in environment.runner.exceptions.values()],
    )
    Path(environment.given.results).write_bytes(msgspec.json.encode(results))
    # Failed requests are the budgets' affair, which the command knows.
    environment.process_exit_code = 0


def _measured(entry: Any) -> Measured:
    times = {
        name: float(entry.get_response_time_percentile(part) or 0) if entry.num_requests else None
        for name, part in PERCENTILES.items()
    }
    return Measured(
        entry.name, entry.num_requests, entry.num_failures, round(float(entry.total_rps), 2), **times
    )
