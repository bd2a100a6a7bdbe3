"""Commands of `tallystick` for tests, each in a process of its own.

The imports of a command take most of its second. One process a session does them once and forks for every command,
whose environment, streams and exit code are its own. Test files about the start itself (tests/ops/test_cli.py) and
commands that serve or work start a fresh interpreter.
"""

import asyncio
import gc
import importlib
import json
import os
import pkgutil
import select
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from ops.process import python_environment

TIMEOUT_SECONDS = 120.0
READY = b"ready\n"
STREAMS = ("in", "out", "err")

_forker: "Forker | None" = None


class Forker:
    """The process that forks, seen from the tests; it ends when its standard input does."""

    def __init__(self) -> None:
        self.folder = tempfile.TemporaryDirectory(prefix="tallystick-commands-")
        self.socket = Path(self.folder.name) / "socket"
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.commands", str(self.socket)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=python_environment(),
        )  # fmt: skip
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == READY

    def run(
        self, arguments: Sequence[str], typed: str, folder: Path, environment: dict[str, str]
    ) -> subprocess.CompletedProcess[str]:
        with (
            tempfile.TemporaryDirectory(dir=self.folder.name) as name,
            socket.socket(socket.AF_UNIX) as connection,
        ):
            files = [Path(name) / stream for stream in STREAMS]
            files[0].write_text(typed)
            connection.settimeout(TIMEOUT_SECONDS)
            connection.connect(str(self.socket))
            asked = [*arguments], [str(file) for file in files], environment, str(folder)
            connection.sendall(json.dumps(asked).encode())
            connection.shutdown(socket.SHUT_WR)
            with connection.makefile() as told:
                pid = int(told.readline())
                try:
                    code = int(told.readline())
                except TimeoutError:
                    os.kill(pid, signal.SIGKILL)
                    raise
            return subprocess.CompletedProcess(arguments, code, files[1].read_text(), files[2].read_text())

    def end(self) -> None:
        self.process.communicate()
        self.folder.cleanup()


async def tallystick(*arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    """Run a command to its end; `environment` is added to the test's own."""
    return await perform(arguments, environment)


async def perform(
    arguments: Sequence[str], environment: Mapping[str, str], *, typed: str = "", folder: Path | None = None
) -> "subprocess.CompletedProcess[str]":
    """Run a command to its end, in a folder of the caller's choice, with the text that a person types there."""
    global _forker  # noqa: PLW0603 - one a session
    _forker = _forker or Forker()
    return await asyncio.to_thread(
        _forker.run, arguments, typed, folder or Path.cwd(), python_environment(**environment)
    )


def end() -> None:
    """End the process that forks, at the end of the session."""
    if _forker is not None:
        _forker.end()


def _serve(path: str) -> int:
    """Fork for each connection until standard input ends. A process of several threads must not fork: this has one."""
    for package in ("core", "jobs", "ops.commands"):
        for module in pkgutil.walk_packages(importlib.import_module(package).__path__, f"{package}."):
            if not module.name.endswith("__main__"):
                importlib.import_module(module.name)
    gc.collect()
    gc.freeze()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen(64)
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        os.write(1, READY)
        while True:
            ready, _, _ = select.select([0, listener.fileno()], [], [])
            if 0 in ready:
                return 0
            connection, _ = listener.accept()
            with connection:
                if os.fork() == 0:
                    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                    listener.close()
                    return _attend(connection)


def _attend(connection: socket.socket) -> int:
    """Run one command as a child; tell its process id, then its exit code."""
    asked = b"".join(iter(lambda: connection.recv(65536), b""))
    child = os.fork()
    if child == 0:
        connection.close()
        _become(*json.loads(asked))
    connection.sendall(b"%d\n" % child)
    _, status = os.waitpid(child, 0)
    connection.sendall(b"%d\n" % os.waitstatus_to_exitcode(status))
    # The command has done already what Python does at its end.
    os._exit(0)


def _become(arguments: list[str], files: list[str], environment: dict[str, str], folder: str) -> NoReturn:
    from ops.cli import main  # noqa: PLC0415 - as late as what it imports

    for number, file in enumerate(files):
        opened = os.open(file, os.O_RDONLY if number == 0 else os.O_WRONLY | os.O_CREAT, 0o600)
        os.dup2(opened, number)
        os.close(opened)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    sys.argv = ["tallystick", *arguments]
    sys.exit(main())


if __name__ == "__main__":
    sys.exit(_serve(sys.argv[1]))
