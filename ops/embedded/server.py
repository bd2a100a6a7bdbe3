"""The common part of the embedded servers: start until ready, stop, kill, clear up after a dead launcher."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import subprocess
import time
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Self

from ops.embedded.account import choose_account
from ops.process import (
    OURSELVES,
    StartError,
    children_of,
    choose_port,
    command_line_of,
    open_log,
    spawn,
    stop,
)
from ops.state import write_secret

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from ops.embedded.programs import Program

HOST = "127.0.0.1"
# Recovery after a crash reads at most `max_wal_size` of log: seconds on any disk, a minute on a very slow one.
READY_WITHIN_SECONDS = 120.0
READY_POLL_SECONDS = 0.01
# The orphan of a dead launcher is asked to end, and killed after this.
ORPHAN_ENDS_WITHIN_SECONDS = 30.0
# A start is repeated when the port was taken meanwhile, or a predecessor's memory is still attached.
START_ATTEMPTS = 20
START_PAUSE_SECONDS = 0.25


class Server(ABC):
    """One embedded server on loopback, with its data, its password and its log in a state directory."""

    # These signals end the server in good order, each within its seconds; SIGKILL follows.
    stop_steps: tuple[tuple[signal.Signals, float], ...]
    # The kernel sends this signal to the server when its launcher dies.
    death_signal: signal.Signals

    def __init__(
        self, program: Program, state: Path, *, port: int | None, say: Callable[[str], None]
    ) -> None:
        """Choose the server's user and folders. Raises StartError if no user can run the server here."""
        self.title = program.name
        # The folder's name has the major version, because no version reads another's files.
        self.home = state / f"{program.name}-{program.major}"
        self.home.mkdir(parents=True, exist_ok=True)
        self.data = self.home / "data"
        self.log = state / "logs" / f"{program.name}.log"
        self.account, self.program = choose_account(program, self.data)
        self.password = self._password()
        self._say = say
        self._wanted_port = port
        self._port: int | None = None
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def port(self) -> int:
        """The server's port, which stays the same from the first start on."""
        if self._port is None:
            raise StartError(f"The embedded {self.title} server has not been started yet.")
        return self._port

    @property
    def pid(self) -> int | None:
        """The server's process id, or None where it does not run."""
        running = self._process is not None and self._process.poll() is None
        return self._process.pid if self._process is not None and running else None

    def start(self) -> None:
        """Start the server and return when it accepts connections. Raises StartError with the end of its log.

        A running server stays as it is. The thread that calls this must live as long as the server.
        """
        if self.pid is not None:
            return
        self._end_orphan()
        if not self.data.exists():
            self._create()
        first = self._port is None
        if first:
            self._port = choose_port(self._wanted_port)
            if self._wanted_port not in (None, self._port):
                self._say(f"Port {self._wanted_port} is busy; {self.title} uses {self._port}.")
        reason = ""
        for _ in range(START_ATTEMPTS):
            if not (reason := self._start_once()):
                return
            if "Address already in use" in reason and first:
                self._port = choose_port(None if self._wanted_port is None else self.port + 1)
            elif "Address already in use" not in reason and "shared memory block" not in reason:
                break
            time.sleep(START_PAUSE_SECONDS)
        raise StartError(f"The embedded {self.title} server did not start; the end of {self.log}:\n{reason}")

    def stop(self) -> None:
        """End the server in good order, or by force where that takes too long."""
        if self._process is not None:
            self._go_on()
            stop(self._process, *self.stop_steps)
            self._process = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    def kill(self) -> None:
        """End the server at once, as a crash would."""
        if self._process is not None:
            stop(self._process)
            self._process = None

    def _go_on(self) -> None:
        """Wake a server that somebody froze (SIGSTOP), which else could not end and would leave its children behind."""
        if (pid := self.pid) is not None:
            for number in (pid, *children_of(pid)):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(number, signal.SIGCONT)

    def restart(self) -> None:
        """Stop in good order and start again on the same port."""
        self.stop()
        self.start()

    @abstractmethod
    def _create(self) -> None:
        """Create the data directory, wholly or not at all."""

    @abstractmethod
    def _launch(self) -> subprocess.Popen[bytes]:
        """Start the server's process."""

    @abstractmethod
    def _is_ready(self) -> bool:
        """Whether the launched server accepts connections."""

    @abstractmethod
    def _orphan(self) -> int | None:
        """The process id that an earlier server noted in the data directory."""

    def _start_once(self) -> str:
        """Start the process and return an empty text when it is ready, else the end of its log."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        before = self.log.stat().st_size if self.log.exists() else 0
        self._process = process = self._launch()
        give_up_at = time.monotonic() + READY_WITHIN_SECONDS
        while process.poll() is None and time.monotonic() < give_up_at:
            if self._is_ready():
                return ""
            time.sleep(READY_POLL_SECONDS)
        stop(process)
        self._process = None
        logged = self.log.read_bytes()
        said = logged[before if before <= len(logged) else 0 :].decode(errors="replace")[-2000:].strip()
        return said or f"nothing in {READY_WITHIN_SECONDS:.0f} s"

    def _spawn(self, command: Sequence[str], *, stdin: int = subprocess.DEVNULL) -> subprocess.Popen[bytes]:
        with open_log(self.log) as log:
            return spawn(
                command,
                output=log,
                account=self.account,
                directory=self.home,
                environment=self.environment,
                stdin=stdin,
                death_signal=self.death_signal,
            )

    @property
    def environment(self) -> Mapping[str, str]:
        """The server's environment, without our settings and secrets."""
        return {"PATH": os.defpath, "HOME": str(self.home), "LC_ALL": "C"}

    def _password(self) -> str:
        path = self.home / "password"
        if path.exists():
            return path.read_text()
        password = secrets.token_urlsafe(24)
        write_secret(path, password)
        return password

    def _own(self, path: Path) -> None:
        """Give a path of ours to the server's user."""
        if self.account.uid is not None and self.account != OURSELVES:
            os.chown(path, self.account.uid, self.account.gid or 0)

    def _end_orphan(self) -> None:
        """End a server that outlived its launcher. We hold the state directory's lock, so no other launcher uses it."""
        give_up_at = time.monotonic() + ORPHAN_ENDS_WITHIN_SECONDS
        asked = False
        while (pid := self._orphan()) is not None and str(self.home) in command_line_of(pid):
            late = time.monotonic() > give_up_at
            if not asked or late:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL if late else self.stop_steps[0][0])
                asked = True
            time.sleep(READY_POLL_SECONDS)
