"""An embedded PostgreSQL: created on first use, durable by default, reached over loopback with a password."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from typing import TYPE_CHECKING
from urllib.parse import quote

from ops.embedded.programs import find_postgres
from ops.embedded.server import HOST, Server
from ops.process import StartError, exists, say_nothing, spawn
from ops.state import write_secret

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

USER = "tallystick"
DATABASE = "tallystick"
INITDB_WITHIN_SECONDS = 120.0
MIB = 2**20


def buffers_mib(memory_bytes: int) -> int:
    """Return the size of the server's cache: a sixteenth of the machine's memory, 128 MiB to 1 GiB.

    The memory is taken as the cache fills. The indexes of ten million entries, touched by every transfer, take 600 MiB.
    """
    return min(max(memory_bytes // 16 // MIB, 128), 1024)


# These settings differ from PostgreSQL's defaults, for a machine of a few cores that is not ours alone.
OPTIONS: Mapping[str, str] = {
    # These are the defaults, written out because a ledger stands on them: an answered posting is on the disk.
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
    # Every process of ours keeps a pool of about ten.
    "max_connections": "100",
    "shared_buffers": f"{buffers_mib(os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES'))}MB",
    # Fewer checkpoints write fewer full pages into the log; recovery stays within seconds.
    "checkpoint_timeout": "15min",
    "max_wal_size": "2GB",
    # Compressing full pages costs a core that we do not have to spare.
    "wal_compression": "off",
    # Our statements are short; compiling them costs more than it saves.
    "jit": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_line_prefix": "%m [%p] %q%u@%d ",
    # TCP alone is used, because a socket's path may have about 100 characters, and a state directory may lie deep.
    "unix_socket_directories": "",
    "listen_addresses": HOST,
}
# The first Linux whose syncfs tells of a write that failed.
SYNCFS_TELLS = (5, 8)


def sync_method(system: str, release: str) -> str:
    """Return how the start after a crash brings all files to the disk: `fsync` one by one, or all at once by `syncfs`.

    A server with many partitions has thousands of files. PostgreSQL knows `syncfs` on Linux alone, from 14 on.
    """
    found = re.match(r"(\d+)\.(\d+)", release)
    tells = found is not None and (int(found[1]), int(found[2])) >= SYNCFS_TELLS
    return "syncfs" if system == "Linux" and tells else "fsync"


class Postgres(Server):
    """One embedded PostgreSQL server with a superuser and a database, both named tallystick."""

    # SIGINT rolls open transactions back and writes a checkpoint; SIGQUIT leaves that to the next start.
    stop_steps = ((signal.SIGINT, 30.0), (signal.SIGQUIT, 10.0))
    death_signal = signal.SIGINT

    def __init__(
        self,
        state: Path,
        *,
        port: int | None = None,
        options: Mapping[str, str] | None = None,
        say: Callable[[str], None] = say_nothing,
    ) -> None:
        """Prepare a server. The search for a port begins at `port` (None: anywhere); `options` override `OPTIONS`."""
        super().__init__(find_postgres(), state, port=port, say=say)
        method = {"recovery_init_sync_method": sync_method(os.uname().sysname, os.uname().release)}
        self._options = {**OPTIONS, **method, **(options or {})}

    def url(self, database: str = DATABASE) -> str:
        """Return the DSN of one database, password included."""
        return f"postgresql://{USER}:{quote(self.password)}@{HOST}:{self.port}/{database}"

    def _create(self) -> None:
        """Run initdb and create our database beside the data directory, and rename the result to it at the end."""
        fresh = self.home / "data.new"
        password = self.home / "password.new"
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(mode=0o700)
        self._own(fresh)
        try:
            write_secret(password, self.password)
            self._own(password)
            self._run(
                *(str(self.program.path.with_name("initdb")), "-D", str(fresh), "-U", USER),
                *("--auth-local=scram-sha-256", "--auth-host=scram-sha-256", f"--pwfile={password}"),
                *("--encoding=UTF8", "--locale=C"),
            )
        finally:
            password.unlink(missing_ok=True)
        # The single-user mode needs no port, no client library and no password.
        create = f"CREATE DATABASE {DATABASE}\n"
        self._run(str(self.program.path), "--single", "-D", str(fresh), "postgres", stdin=create)
        fresh.rename(self.data)

    def _run(self, *command: str, stdin: str = "") -> None:
        child = spawn(
            command,
            output=subprocess.PIPE,
            account=self.account,
            directory=self.home,
            environment=self.environment,
            stdin=subprocess.PIPE,
            death_signal=signal.SIGKILL,
        )
        try:
            output, _ = child.communicate(stdin.encode(), timeout=INITDB_WITHIN_SECONDS)
        except subprocess.TimeoutExpired:
            child.kill()
            output, _ = child.communicate()
        if child.returncode != 0:
            reason = output.decode(errors="replace")[-2000:]
            raise StartError(f"The database in {self.home} cannot be created:\n{reason}")

    def _launch(self) -> subprocess.Popen[bytes]:
        self._forget_stale_lock()
        options = [f"--{name}={value}" for name, value in self._options.items()]
        return self._spawn([str(self.program.path), "-D", str(self.data), "-p", str(self.port), *options])

    def _is_ready(self) -> bool:
        # Line 1 is the server's process id, line 8 its state; the lines of an unfinished file are not there yet.
        lines = self._lock_file()
        return len(lines) > 7 and lines[7].strip() == "ready" and lines[0] == str(self.pid)

    def _orphan(self) -> int | None:
        lines = self._lock_file()
        return int(lines[0]) if lines and lines[0].isdigit() else None

    def _forget_stale_lock(self) -> None:
        """Remove the lock file of a dead server whose process id belongs to someone else by now.

        The server only checks that a process has the id, which may be a zombie or any process of a container that
        started anew, and would refuse to start. `_end_orphan` has made sure that none of ours lives. A lock file whose
        process is gone is left for the server to judge.
        """
        pid = self._orphan()
        if pid is not None and exists(pid):
            (self.data / "postmaster.pid").unlink(missing_ok=True)

    def _lock_file(self) -> list[str]:
        try:
            return (self.data / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return []
