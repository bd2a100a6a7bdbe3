"""The chosen tests on each PostgreSQL and Redis of this machine: `make matrix`, and the table of docs/compatibility.md.

The servers are those of the wheels, those that the system's packages bring, and those that TALLYSTICK_MATRIX names: the
paths of `postgres`, `redis-server` or `valkey-server`, with colons between them.
"""

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from ops.embedded import programs
from ops.embedded.programs import OLDEST_POSTGRES, OLDEST_REDIS, Program
from tests.database.programs import POSTGRES, REDIS, program

ROOT = Path(__file__).resolve().parents[2]
# All SQL and all scripts of Redis are prepared or run by these, and money goes every way once.
CHOSEN = (
    "tests/core/test_migrations.py",
    "tests/core/test_database.py",
    "tests/core/test_plans.py",
    "tests/core/ledger/test_batches.py",
    "tests/core/ledger/test_holds.py",
    "tests/core/ledger/test_verify.py",
    "tests/core/access/test_guard_keys.py",
    "tests/core/access/test_guard_rates.py",
    "tests/core/outbox/test_deliveries.py",
    "tests/core/payables/test_effects.py",
    "tests/jobs/test_processing.py",
    "tests/database/test_day.py",
)


def servers() -> Iterator[Program]:
    """Return each server of this machine once, the wheels' first."""
    named = [Path(path) for path in os.environ.get("TALLYSTICK_MATRIX", "").split(":") if path]
    system = [path.resolve() for path in programs._system_postgres()]
    redis = [Path(path) for name in ("redis-server", "valkey-server") if (path := shutil.which(name))]
    seen = {}
    for found in (
        programs.find_postgres(),
        programs.find_valkey(),
        *(
            program(path, "postgres" if path.name == "postgres" else "redis")
            for path in (*named, *system, *redis)
        ),
    ):
        oldest = OLDEST_POSTGRES if found.name == "postgres" else OLDEST_REDIS
        if found.major >= oldest:
            seen.setdefault((found.name, found.version), found)
    yield from seen.values()


def run(server: Program) -> tuple[bool, str]:
    """Run the chosen tests with this server in the place of the wheel's; return whether all passed, and how many."""
    variable = POSTGRES if server.name == "postgres" else REDIS
    ended = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-n",
            "2",
            "--show-capture=no",
            "-m",
            "drill or not drill",
            *CHOSEN,
        ],
        cwd=ROOT,
        env={**os.environ, variable: str(server.path)},
        check=False,
        capture_output=True,
        text=True,
    )
    if ended.returncode:
        _say(ended.stdout[-6000:] + ended.stderr[-2000:])
    said = re.findall(r"^\d+ .*in [\d.]+s.*$", ended.stdout, flags=re.MULTILINE)
    return ended.returncode == 0, said[-1] if said else "no tests ran"


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def main() -> int:
    """Print a line of the table for each server; return 1 if a test failed on one."""
    failed = 0
    _say("| server | result |\n|---|---|")
    for server in servers():
        started = time.monotonic()
        passed, said = run(server)
        failed += not passed
        word = re.sub(r" in .*", "", said) if passed else f"FAILED: {said}"
        _say(f"| {server.name} {server.version} | {word}, {time.monotonic() - started:.0f} s |")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
