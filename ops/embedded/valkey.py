"""An embedded Valkey (or Redis), with an append-only file and a password, on loopback only."""

from __future__ import annotations

import contextlib
import signal
import socket
import subprocess
from typing import TYPE_CHECKING

from ops.embedded.programs import find_valkey
from ops.embedded.server import HOST, Server
from ops.process import say_nothing

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

ANSWER_WITHIN_SECONDS = 1.0


class Valkey(Server):
    """One embedded Valkey server."""

    # A server whose directory has vanished cannot save and then ignores SIGTERM; SIGKILL follows.
    stop_steps = ((signal.SIGTERM, 5.0),)
    # A kill loses nothing, because the append-only file is written before each answer, and it always works.
    death_signal = signal.SIGKILL

    def __init__(
        self,
        state: Path,
        *,
        port: int | None = None,
        databases: int = 16,
        say: Callable[[str], None] = say_nothing,
    ) -> None:
        """Prepare a server with so many `databases`; the search for a free port begins at `port` (None: anywhere)."""
        super().__init__(find_valkey(), state, port=port, say=say)
        self._databases = databases

    def url(self, database: int = 0) -> str:
        """Return the URL of one numbered database, password included."""
        return f"redis://:{self.password}@{HOST}:{self.port}/{database}"

    def _create(self) -> None:
        self.data.mkdir(mode=0o700)
        self._own(self.data)

    def _launch(self) -> subprocess.Popen[bytes]:
        # The settings go in on standard input, because anyone could read the password on the command line.
        process = self._spawn([str(self.program.path), "-"], stdin=subprocess.PIPE)
        if process.stdin is not None:
            # The log tells about a server that has ended already.
            with contextlib.suppress(BrokenPipeError), process.stdin as settings:
                settings.write(self._settings().encode())
        return process

    def _settings(self) -> str:
        lines = (
            f"bind {HOST}",
            f"port {self.port}",
            f"requirepass {self.password}",
            f"databases {self._databases}",
            f'dir "{self.data}"',
            f'pidfile "{self.data / "server.pid"}"',
            "appendonly yes",
            "appendfsync everysec",
            # Snapshots would only cost a fork, because the append-only file is enough.
            'save ""',
            # A full memory refuses writes, which we survive; eviction would silently forget marks in flight.
            "maxmemory-policy noeviction",
            # The process's title holds the data directory, by which the next launcher knows an orphan.
            f'proc-title-template "{{title}} {{listen-addr}} {self.data}"',
        )
        return "\n".join(lines) + "\n"

    def _is_ready(self) -> bool:
        try:
            with socket.create_connection((HOST, self.port), timeout=ANSWER_WITHIN_SECONDS) as connection:
                connection.sendall(f"AUTH {self.password}\r\nPING\r\n".encode())
                answer = b""
                while answer.count(b"\r\n") < 2 and (chunk := connection.recv(4096)):
                    answer += chunk
                # A server that reads its file back answers -LOADING; a stranger on our port refuses the password.
                return answer == b"+OK\r\n+PONG\r\n"
        except OSError:
            return False

    def _orphan(self) -> int | None:
        try:
            return int((self.data / "server.pid").read_text())
        except (FileNotFoundError, ValueError):
            return None
