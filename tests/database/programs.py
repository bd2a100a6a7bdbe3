"""The servers' programs that the tests are run on: those of the wheels, or those that the environment names.

`TALLYSTICK_TEST_POSTGRES=/usr/lib/postgresql/15/bin/postgres` and `TALLYSTICK_TEST_REDIS=/usr/bin/redis-server`.
"""

import os
from pathlib import Path

from ops.embedded import postgres, programs, valkey
from ops.embedded.programs import Program

POSTGRES, REDIS = "TALLYSTICK_TEST_POSTGRES", "TALLYSTICK_TEST_REDIS"
# Settings of newer servers, with the first version that knows them.
NEW_OPTIONS = {"file_copy_method": 18}


def use_named_programs() -> None:
    """Let the embedded servers of this process be those that the environment names."""
    if POSTGRES in os.environ:
        named = program(Path(os.environ[POSTGRES]), "postgres")
        vars(postgres)["find_postgres"] = lambda: named
    if REDIS in os.environ:
        path = Path(os.environ[REDIS])
        # The name of a folder of state is made of it.
        other = program(path, path.name.partition("-")[0])
        vars(valkey)["find_valkey"] = lambda: other


def options_for(options: dict[str, str]) -> dict[str, str]:
    """Return the options that the chosen PostgreSQL knows."""
    major: int = vars(postgres)["find_postgres"]().major
    return {name: value for name, value in options.items() if NEW_OPTIONS.get(name, 0) <= major}


def program(path: Path, name: str) -> Program:
    """Return the program at `path` with its version."""
    found = programs._probe(path, name, path.parent, ())
    if found is None:
        raise SystemExit(f"{path} is no server that runs on this machine")
    return found
