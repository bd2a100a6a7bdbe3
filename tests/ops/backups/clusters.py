"""PostgreSQL servers that are copied from one another: by a base backup, and by streaming."""

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from ops.backups.tools import Address
from ops.embedded import Postgres
from ops.process import python_environment

# A kill of all processes is what is tested, and no loss of power: without fsync the drills take a third of the time.
QUICK = {"fsync": "off", "full_page_writes": "off", "shared_buffers": "32MB", "max_connections": "60"}


class Standby(Postgres):
    """A server that is ready when it answers, be it a standby or not."""

    def _is_ready(self) -> bool:
        lines = self._lock_file()
        return len(lines) > 7 and lines[7].strip() in {"ready", "standby"} and lines[0] == str(self.pid)


def server(state: Path, options: Mapping[str, str]) -> Standby:
    state.mkdir(mode=0o755, exist_ok=True)
    return Standby(state, options={**QUICK, **options})


def copied(primary: Postgres, state: Path, *arguments: str) -> None:
    """Make a base backup of a running server, as the data of the server that will run on `state`."""
    home = state / primary.home.name
    home.mkdir(mode=0o755, parents=True)
    shutil.copy(primary.home / "password", home / "password")
    address = Address.of(primary.url("postgres"))
    programs = primary.program.path.parent
    environment = python_environment(PGPASSWORD=address.password)
    data = home / "data"
    command = (
        "pg_basebackup",
        f"--dbname={address.url}",
        f"--pgdata={data}",
        "--checkpoint=fast",
        *arguments,
    )
    run(str(programs / command[0]), *command[1:], environment=environment)
    run(str(programs / "pg_verifybackup"), "--no-parse-wal", str(data), environment=environment)
    owned(primary, data)


def owned(primary: Postgres, folder: Path) -> None:
    """Give a folder with all in it to the server's user."""
    if primary.account.uid is not None:
        for path in (folder, *folder.rglob("*")):
            os.chown(path, primary.account.uid, primary.account.gid or 0, follow_symlinks=False)


def run(*command: str, environment: Mapping[str, str] | None = None) -> str:
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=environment, timeout=60)
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout
