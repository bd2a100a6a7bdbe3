"""Child processes: they die with their launcher, stop within a bound, and listen on ports that are free."""

from __future__ import annotations

import errno
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING

from ops import launch

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

# The folder that holds our packages: the checkout, or the site-packages of an installation.
PROJECT = Path(__file__).resolve().parent.parent
# A busy port moves on by so many at most; more busy ports mean that something else is wrong.
PORTS_TO_TRY = 100
# The API goes there from a busy default port. The inbox before this one chose among the same, and left out the ports
# that developers' tools take.
API_PORTS = tuple(port for port in range(8065, 8100) if port not in {8080, 9000})
# A server without a port of its own gets one of these, above the ports that programs are known by.
SERVERS_PORTS = (20_000, 32_768)
# Two processes that choose at the same time shall not choose the same port; the choice is no secret.
_drawn = random.SystemRandom()
# The ports that this process has taken, with the socket by which others see that; None where the system has no such.
_taken: dict[tuple[str, int], socket.socket | None] = {}
# A longer log is set aside. One predecessor is kept, so that the disk use is bounded.
LOG_LIMIT_BYTES = 20 * 1024 * 1024
# Logs hold addresses and ids; metrics tell the business. Both are their owner's alone.
PRIVATE = 0o600
PRIVATE_UMASK = 0o077


class StartError(Exception):
    """A program could not be started or stopped; the text is a sentence for the person at the terminal."""


def say_nothing(_text: str) -> None:
    """The default listener, which ignores every message."""


@dataclass(frozen=True, slots=True)
class Account:
    """The user that a program runs as: our own, another one to change to, or one made by the `prefix` command."""

    uid: int | None = None
    gid: int | None = None
    prefix: tuple[str, ...] = ()


OURSELVES = Account()


def spawn(  # noqa: PLR0913 - each with a name, most with a default
    command: Sequence[str],
    *,
    output: int | IO[bytes],
    account: Account = OURSELVES,
    directory: Path | None = None,
    environment: Mapping[str, str] | None = None,
    stdin: int = subprocess.DEVNULL,
    death_signal: signal.Signals = signal.SIGTERM,
    pass_fds: Sequence[int] = (),
    umask: int = -1,
) -> subprocess.Popen[bytes]:
    """Start `command` in a session of its own, so that Ctrl-C reaches only us and we choose the order of the stop.

    On Linux the child gets `death_signal` when the *thread* that called this ends: call it from a thread that lives as
    long as the child shall. `environment` replaces ours.
    """
    uid = "-" if account.uid is None else str(account.uid)
    gid = "-" if account.gid is None else str(account.gid)
    launcher = [
        sys.executable,
        "-I",
        "-S",
        launch.__file__,
        str(os.getpid()),
        str(int(death_signal)),
        uid,
        gid,
    ]
    return subprocess.Popen(
        [*launcher, str(directory) if directory else "-", *account.prefix, *command],
        stdin=stdin,
        stdout=output,
        stderr=subprocess.STDOUT,
        env=environment,
        start_new_session=True,
        pass_fds=pass_fds,
        umask=umask,
    )


def python_environment(**extra: str) -> dict[str, str]:
    """Return the environment of a Python child of ours: our own, with this checkout importable from anywhere.

    A value in `extra` replaces the file of that secret, since settings refuse to have both.
    """
    paths = [str(PROJECT), *filter(None, [os.environ.get("PYTHONPATH")])]
    kept = {name: text for name, text in os.environ.items() if name.removesuffix("_FILE") not in extra}
    return {**kept, "PYTHONPATH": os.pathsep.join(paths), **extra}


def stop(process: subprocess.Popen[bytes], *steps: tuple[signal.Signals, float]) -> int:
    """Send each signal in turn and wait its seconds for the end, then send SIGKILL. Return the exit code."""
    for number, seconds in steps:
        if process.poll() is not None:
            break
        process.send_signal(number)
        try:
            return process.wait(seconds)
        except subprocess.TimeoutExpired:
            continue
    process.kill()
    return process.wait()


def children_of(pid: int) -> list[int]:
    """Return the processes that a process has started, as far as the kernel tells."""
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def is_free(host: str, port: int) -> bool:
    """Whether nothing listens on the port, not even a socket that would share it with us."""
    family, kind, _, _, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    with socket.socket(family, kind) as probe:
        # An earlier server's connections in TIME_WAIT do not matter; a listener does.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(address)
            probe.listen(1)
        except OSError:
            return False
        return True


def take_port(host: str, port: int) -> bool:
    """Take a free port for this process, until it ends or lets the port go; False where another one has it.

    Between a look whether a port is free and its use another Tallystick could do the same, and both would listen: so
    the port is taken first. The sign of it is a name that the kernel gives to one process alone.
    """
    if (host, port) in _taken:
        return is_free(host, port)
    sign = None
    if sys.platform == "linux":
        sign = socket.socket(socket.AF_UNIX)
        try:
            sign.bind(f"\0tallystick:{host}:{port}")
        except OSError:
            sign.close()
            return False
    _taken[host, port] = sign
    if is_free(host, port):
        return True
    release_port(host, port)
    return False


def release_port(host: str, port: int) -> None:
    """Let a port go that was taken."""
    sign = _taken.pop((host, port), None)
    if sign is not None:
        sign.close()


def take_next_port(host: str, preferred: int, avoided: Collection[int] = ()) -> int:
    """Take the first port from `preferred` upwards that is free and none of `avoided`. Raises StartError."""
    port = preferred
    while port in avoided or not take_port(host, port):
        port = choose_port(port + 1, host)
    return port


def take_api_port(host: str, preferred: int, avoided: Collection[int] = ()) -> int:
    """Take the first port that is free and none of `avoided`: `preferred`, those of API_PORTS, and what comes after."""
    for port in (preferred, *API_PORTS):
        if port not in avoided and take_port(host, port):
            return port
    return take_next_port(host, API_PORTS[-1] + 1, avoided)


def choose_port(preferred: int | None, host: str = "127.0.0.1") -> int:
    """Return the first free port from `preferred` upwards, or any free port for None.

    Another program may take a port between the choice and its use. Below 32768 only servers do; from there on the
    system draws the ports of outgoing connections, of which there are thousands.
    """
    if preferred is None:
        for _ in range(PORTS_TO_TRY):
            port = _drawn.randrange(*SERVERS_PORTS)
            if is_free(host, port):
                return port
        with socket.socket() as probe:
            probe.bind((host, 0))
            return int(probe.getsockname()[1])
    for port in range(preferred, min(preferred + PORTS_TO_TRY, 65536)):
        if is_free(host, port):
            return port
    raise StartError(f"No port from {preferred} to {preferred + PORTS_TO_TRY - 1} is free on {host}.")


def open_log(path: Path) -> IO[bytes]:
    """Open a log for appending, readable for its owner alone; a log that is too long becomes `<name>.1` first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists() and path.stat().st_size > LOG_LIMIT_BYTES:
        path.replace(path.with_name(path.name + ".1"))
    handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, PRIVATE)
    os.fchmod(handle, PRIVATE)  # it may be that of an earlier version
    return os.fdopen(handle, "ab")


def trim_log(path: Path) -> None:
    """Set a log that is too long aside while its process writes on, as `<name>.1`; lines of that moment may be lost."""
    try:
        if path.stat().st_size <= LOG_LIMIT_BYTES:
            return
        aside = path.with_name(path.name + ".1")
        aside.unlink(missing_ok=True)
        with (
            path.open("rb") as log,
            os.fdopen(os.open(aside, os.O_WRONLY | os.O_CREAT, PRIVATE), "wb") as copy,
        ):
            shutil.copyfileobj(log, copy)
        # The process appends, so its next line is the first of the empty file.
        os.truncate(path, 0)
    except OSError:
        return  # no log yet, or no room for a copy: the next look tries again


def exists(pid: int) -> bool:
    """Whether there is a process with this id, be it ours, another user's or a zombie."""
    try:
        os.kill(pid, 0)
    except OSError as error:
        return error.errno == errno.EPERM
    return True


def command_line_of(pid: int) -> str:
    """Return the command line of a running process, or an empty text where there is none or a zombie."""
    try:
        if Path("/proc/self/cmdline").exists():
            return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        command = ["/bin/ps", "-o", "command=", "-p", str(pid)]
        return subprocess.run(command, check=False, capture_output=True, text=True).stdout
    except OSError:
        return ""
