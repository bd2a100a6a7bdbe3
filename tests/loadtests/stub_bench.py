"""The benchmark against the stand-in API, smaller than its own `--quick`. As a program, it runs until interrupted."""

import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import click
from rich.console import Console

from loadtests.bench.command import execute
from loadtests.bench.plan import Plan
from loadtests.bench.tallystick import Tallystick

STUB = Path(__file__).with_name("stub_api.py")
FORKED, FORKING = (Path(__file__).with_name(name) for name in ("forked.py", "forking.py"))


class Stubbed(Tallystick):
    """The real ledger behind a stand-in for the API, and no worker."""

    def api_command(self, processes: int) -> Sequence[str]:
        return [sys.executable, str(STUB)]

    def worker_command(self) -> Sequence[str] | None:
        return None

    async def settled(self, database_url: str) -> bool:
        return True  # nobody numbers what was posted


class Hasty(Tallystick):
    """The real service, forked from a process that has imported it; it gives slow receivers a second at its end."""

    def __init__(self, forks: Path) -> None:
        self.forks = forks

    def api_command(self, processes: int) -> Sequence[str]:
        return self.worker_command("api")

    def worker_command(self, role: str = "worker") -> Sequence[str]:
        return [sys.executable, "-S", str(FORKED), str(self.forks), role]

    def environment(self, database_url: str, redis_url: str, port: int) -> Mapping[str, str]:
        return {**super().environment(database_url, redis_url, port), "SHUTDOWN_TIMEOUT_SECS": "1"}


def tiny(**changes: object) -> Plan:
    """A plan for seconds."""
    sizes: dict[str, object] = {
        "quick": True,
        "client": "raw",
        "rounds": 1,
        "seconds": 0.2,
        "warm_seconds": 0.05,
        "connections": (2,),
        "accounts": 50,
        "small_entries": 200,
        "loaded_entries": 1000,
        "batch_connections": 1,
        "storage_seconds": 0.3,
        "memory_seconds": 0.4,
        "memory_sample_seconds": 0.05,
        "processes": (),
        "pgbench_scale": 1,
        "payment_connections": 2,
        "payers": 5,
        "event_connections": 2,
        "ack_connections": 4,
        "sustained_endpoints": (3,),
        "sustained_deliveries": 30,
        "pipeline_events": 30,
        "pipeline_workers": (2,),
        "grown_events": 200,
        "explained_turns": 1,
        "isolation_rate": 20,
        "isolation_healthy": 2,
        "isolation_sick": 2,
        "isolation_backlog": 20,
        "claims_seconds": 0.8,
    }
    return Plan(**{**sizes, **changes})  # type: ignore[arg-type]


if __name__ == "__main__":
    # A shell that runs the tests in the background has it ignored in all that they start.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    plan = tiny(rounds=1000, only=("latency",))
    try:
        execute(plan, Stubbed(), parent=Path(sys.argv[1]), console=Console())
    except click.exceptions.Exit as end:
        sys.exit(end.exit_code)
