"""The chosen tests on each PostgreSQL and Redis of this machine: `make matrix`, and the table of docs/compatibility.md.

The servers are those of the wheels, those that the system's packages bring, and those that TALLYSTICK_MATRIX names: the
paths of `postgres`, `redis-server` or `valkey-server`, with colons between them.
"""

import os
import re
import shutil
import subprocess
import sys
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


def servers() -> Iterator[tuple[Program, Program]]:
    """Yield pairs of servers: those of the wheels, then each other of this machine beside one of the wheels."""
    postgres, valkey = programs.find_postgres(), programs.find_valkey()
    yield postgres, valkey
    seen = {postgres.version, valkey.version}
    named = [Path(path) for path in os.environ.get("TALLYSTICK_MATRIX", "").split(":") if path]
    redis = [Path(there) for name in ("redis-server", "valkey-server") if (there := shutil.which(name))]
    for path in (*named, *(path.resolve() for path in programs._system_postgres()), *redis):
        found = program(path, "postgres" if path.name == "postgres" else path.name.partition("-")[0])
        oldest = OLDEST_POSTGRES if found.name == "postgres" else OLDEST_REDIS
        if found.major >= oldest and found.version not in seen:
            seen.add(found.version)
            yield (found, valkey) if found.name == "postgres" else (postgres, found)


def run(postgres: Program, redis: Program) -> tuple[bool, str]:
    """Run the chosen tests on a pair of servers; return whether all passed, and how many."""
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
        env={**os.environ, POSTGRES: str(postgres.path), REDIS: str(redis.path)},
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
    """Print a line of the table for each pair; return 1 if a test failed on one."""
    failed = 0
    _say("| PostgreSQL | Redis | result |\n|---|---|---|")
    for postgres, redis in servers():
        passed, said = run(postgres, redis)
        failed += not passed
        word = re.sub(r" in .*", "", said) if passed else f"FAILED: {said}"
        _say(f"| {postgres.version} | {redis.name} {redis.version} | {word} |")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
