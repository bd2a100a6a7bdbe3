"""One master process that keeps others running: respawn, rolling reload, and a stop that lets requests finish.

The master serves nothing and holds no thread and no event loop; its processes are fresh interpreters, not forks. The
reasons against gunicorn are in docs/adr/0001-serving.md.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from ops.process import PRIVATE_UMASK, StartError, open_log, python_environment, spawn, trim_log

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path
    from types import FrameType

    from ops.listening import Listeners

# A process that lives this long has started well: its next crash is the first again, and is mended at once.
SETTLED_SECONDS = 10.0
# The wait before the second try in a row, doubled with each further one.
BACKOFF_SECONDS = 0.5
BACKOFF_LIMIT_SECONDS = 15.0
# A successor that is not ready by then is given up, and its predecessor goes on.
READY_WITHIN_SECONDS = 60.0
# The time beyond the requests' own bound: for closing pools, the last flush of metrics, a busy machine.
STOP_MARGIN_SECONDS = 5.0
# The loop looks up so often when nothing happens.
TICK_SECONDS = 0.5
# A process that serves says so once a second; one that is silent for this long hangs, however busy the machine is.
SILENCE_LIMIT_SECONDS = 15.0
# More bytes than a child writes between two looks; the next look reads the rest.
READ_BYTES = 4096


class Report(Protocol):
    """A function that the supervisor tells events: by name and fields."""

    def __call__(self, event: str, **fields: object) -> object:
        """Tell one event."""


@dataclass(frozen=True, slots=True)
class Program:
    """A command line that is kept running as `count` processes.

    A process that `serves` is started with `--ready-fd` and, for each port, `--listen-fd <setting>=<socket>`. It writes
    a byte to the former when it accepts connections and once a second from then on; after `silence_limit` seconds
    without one it is killed. `stop_within` is how many seconds it may take to end after SIGTERM. Its output goes to
    `log`, or where ours goes.
    """

    name: str
    command: tuple[str, ...]
    count: int = 1
    serves: bool = False
    stop_within: float = 10.0
    silence_limit: float = SILENCE_LIMIT_SECONDS
    log: Path | None = None
    # The signal that a process gets when the master dies, since nobody is left to see that it ends.
    death_signal: signal.Signals = signal.SIGKILL


@dataclass(slots=True)
class Child:
    """One process that was started."""

    process: subprocess.Popen[bytes]
    started_at: float
    # The pipe on which the child says that it is ready, and from then on that it lives; None where nobody asked it to.
    ready_fd: int | None
    ready: bool
    kill_at: float | None = None
    # The time in which the child has said nothing while we listened.
    silent_seconds: float = 0.0


@dataclass(slots=True)
class Slot:
    """One place among a program's processes, and who fills it."""

    program: Program
    number: int
    current: Child | None = None
    successor: Child | None = None
    failures: int = 0
    start_at: float = 0.0
    # A process that ends because we asked it to is not a failure.
    leaving: bool = False

    @property
    def children(self) -> list[Child]:
        """Return the child that fills the slot, and the one that is to."""
        return [child for child in (self.current, self.successor) if child is not None]


@dataclass(slots=True)
class Supervisor:
    """Keeps `programs` running from `run` until SIGTERM or SIGINT; SIGHUP replaces each process, one by one."""

    programs: Sequence[Program]
    listeners: Sequence[Listeners]
    report: Report
    environment: dict[str, str] = field(default_factory=dict)
    # Called with the process id of each child that ended.
    on_exit: Callable[[int], object] = lambda _pid: None
    # Called about twice a second, for what else its caller looks after.
    on_tick: Callable[[], object] = lambda: None
    # Called once, when every process of the first start is ready.
    on_ready: Callable[[], object] = lambda: None
    # SIGHUP replaces each process (True), or stops all (False).
    hangup_reloads: bool = True
    # So long the processes that serve say that they will stop, and go on serving, before they are stopped.
    drain_seconds: float = 0.0
    stopping: bool = False
    _stop_at: float | None = None
    _slots: list[Slot] = field(default_factory=list)
    _signals: deque[int] = field(default_factory=deque)
    _reload: deque[Slot] = field(default_factory=deque)

    def run(self) -> None:
        """Start everything, and return when everything has ended."""
        wake_reader, wake_writer = os.pipe()
        for fd in (wake_reader, wake_writer):
            os.set_blocking(fd, False)
        watched = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)
        earlier_fd = signal.set_wakeup_fd(wake_writer, warn_on_full_buffer=False)
        earlier = {number: signal.signal(number, self._note_signal) for number in watched}
        try:
            self._slots = [Slot(program, n) for program in self.programs for n in range(program.count)]
            self._supervise(wake_reader)
        finally:
            for slot in self._slots:
                for child in slot.children:  # children are left only after an unexpected error
                    child.process.kill()
                    child.process.wait()
            for number, handler in earlier.items():
                signal.signal(number, handler)
            signal.set_wakeup_fd(earlier_fd)
            os.close(wake_reader)
            os.close(wake_writer)

    def _note_signal(self, number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGHUP and not self.hangup_reloads:
            number = signal.SIGTERM
        self._signals.append(number)
        if number in {signal.SIGTERM, signal.SIGINT}:
            self.stopping = True  # at once, for `on_ready`, which may be waiting

    def _supervise(self, wake_reader: int) -> None:
        told_ready = asked_to_stop = False
        looked_at = time.monotonic()
        while True:
            # Children may have been held up while this process was (a paused container, `on_ready`).
            listened = min(time.monotonic() - looked_at, 2 * TICK_SECONDS)
            looked_at = time.monotonic()
            while self._signals:
                number = self._signals.popleft()
                if number in {signal.SIGTERM, signal.SIGINT}:
                    if self.drain_seconds and not asked_to_stop and self._stop_at is None:
                        self._drain()
                        continue
                    self._stop_all(at_once=asked_to_stop)
                    asked_to_stop = True
                elif number == signal.SIGHUP and not self.stopping:
                    self._begin_reload()
            if self._stop_at is not None and time.monotonic() >= self._stop_at and not asked_to_stop:
                self._stop_all(at_once=False)
                asked_to_stop = True
            for slot in self._slots:
                self._look_after(slot, listened)
            if asked_to_stop and not any(slot.children for slot in self._slots):
                return
            self._advance_reload()
            if (
                not told_ready
                and not self.stopping
                and all(slot.current and slot.current.ready for slot in self._slots)
            ):
                told_ready = True
                self.on_ready()
            for log in {program.log for program in self.programs if program.log is not None}:
                trim_log(log)
            self.on_tick()
            self._wait(wake_reader)

    def _wait(self, wake_reader: int) -> None:
        """Sleep until a signal, word from a child, or the next thing that is due."""
        if self._signals:
            return
        now = time.monotonic()
        due = [] if self._stop_at is None else [self._stop_at - now]
        due += [slot.start_at - now for slot in self._slots if slot.current is None and not self.stopping]
        due += [
            child.kill_at - now
            for slot in self._slots
            for child in slot.children
            if child.kill_at is not None
        ]
        pipes = [
            child.ready_fd for slot in self._slots for child in slot.children if child.ready_fd is not None
        ]
        readable, _, _ = select.select([wake_reader, *pipes], [], [], max(0.0, min([TICK_SECONDS, *due])))
        if wake_reader in readable:
            os.read(wake_reader, 4096)

    def _look_after(self, slot: Slot, listened: float) -> None:
        """Look at a slot's processes, and start one that is due."""
        now = time.monotonic()
        for child in slot.children:
            self._hear(child, listened)
            # A child has nothing to say before it is ready, and once it is to end `kill_at` bounds its time.
            watched = child.ready and child.ready_fd is not None and child.kill_at is None
            if watched and child.silent_seconds > slot.program.silence_limit:
                self._end_hung(slot, child)
            if child.kill_at is not None and now >= child.kill_at:
                self.report("process.killed", process=slot.program.name, pid=child.process.pid)
                child.process.kill()
                child.kill_at = None
            if child.process.poll() is not None:
                self._mourn(slot, child, now)
        if slot.current is None and not self.stopping and now >= slot.start_at:
            slot.current = self._try_to_start(slot)

    def _hear(self, child: Child, listened: float) -> None:
        """Note whether a child has said that it lives; a pipe that ends is that of a dead child."""
        if child.ready_fd is None:
            return
        if not select.select([child.ready_fd], [], [], 0)[0]:
            child.silent_seconds += listened
        elif os.read(child.ready_fd, READ_BYTES):
            child.ready, child.silent_seconds = True, 0.0
        else:
            os.close(child.ready_fd)
            child.ready_fd = None

    def _end_hung(self, slot: Slot, child: Child) -> None:
        """Kill a process that accepts connections and answers none; it would not hear SIGTERM either."""
        silent_seconds = round(child.silent_seconds, 1)
        self.report(
            "process.hung", process=slot.program.name, pid=child.process.pid, silent_seconds=silent_seconds
        )
        child.process.kill()
        child.kill_at = (
            time.monotonic() + STOP_MARGIN_SECONDS
        )  # told once; a process in the kernel's hands may linger

    def _mourn(self, slot: Slot, child: Child, now: float) -> None:
        """Clear up after a child that ended, and decide when its place is filled again."""
        if child.ready_fd is not None:
            os.close(child.ready_fd)
        pid, code = child.process.pid, child.process.returncode
        self.on_exit(pid)
        if child is slot.successor:
            slot.successor = None
            if not self.stopping:
                self._reload.clear()
                self.report("reload.failed", process=slot.program.name, pid=pid, exit_code=code)
            return
        slot.current, slot.successor = slot.successor, None
        if slot.leaving or self.stopping:
            slot.leaving = False
            self.report("process.ended", process=slot.program.name, pid=pid, exit_code=code)
            return
        slot.failures = 1 if now - child.started_at > SETTLED_SECONDS else slot.failures + 1
        wait = (
            0.0
            if slot.failures == 1
            else min(BACKOFF_LIMIT_SECONDS, BACKOFF_SECONDS * 2 ** (slot.failures - 2))
        )
        slot.start_at = now + wait
        if wait and slot.program.serves:
            for listeners in self.listeners:
                # Neighbours serve meanwhile the connections that would wait here.
                listeners.close(slot.number)
        self.report(
            "process.died", process=slot.program.name, pid=pid, exit_code=code, restart_in_seconds=wait
        )

    def _try_to_start(self, slot: Slot) -> Child | None:
        try:
            return self._start(slot)
        except (OSError, StartError) as error:  # no process, no file, or no port to be had for now
            slot.start_at = time.monotonic() + BACKOFF_LIMIT_SECONDS
            self._reload.clear()
            self.report("process.not_started", process=slot.program.name, reason=str(error))
            return None

    def _start(self, slot: Slot) -> Child:
        program = slot.program
        command = list(program.command)
        reader: int | None = None
        pass_fds: tuple[int, ...] = ()
        if program.serves:
            reader, writer = os.pipe()
            # A master that is held up must not hold its children up.
            os.set_blocking(writer, False)
            sockets = {each.setting: each.open(slot.number).fileno() for each in self.listeners}
            pass_fds = (*sockets.values(), writer)
            command += ["--ready-fd", str(writer)]
            for setting, fd in sockets.items():
                command += ["--listen-fd", f"{setting}={fd}"]
        output = open_log(program.log) if program.log is not None else None
        try:
            process = spawn(
                command,
                output=output or sys.stdout.fileno(),
                environment=python_environment(**self.environment),
                pass_fds=pass_fds,
                death_signal=program.death_signal,
                umask=PRIVATE_UMASK,
            )
        finally:
            if output is not None:
                output.close()
            if pass_fds:
                os.close(pass_fds[-1])
        self.report("process.started", process=program.name, pid=process.pid)
        return Child(process, time.monotonic(), reader, ready=reader is None)

    def _drain(self) -> None:
        """Let the processes that serve say that they will stop: load balancers hear it, and go elsewhere."""
        self.report("draining", seconds=self.drain_seconds)
        self._reload.clear()
        self._stop_at = time.monotonic() + self.drain_seconds
        for slot in self._slots:
            if slot.program.serves:
                for child in slot.children:
                    child.process.send_signal(signal.SIGUSR1)

    def _stop_all(self, *, at_once: bool) -> None:
        """Ask every process to end; when asked a second time, make it."""
        self.report("stopping", at_once=at_once)
        self._reload.clear()
        for listeners in self.listeners:
            listeners.close_all()
        for slot in self._slots:
            for child in slot.children:
                self._ask_to_end(slot, child, at_once=at_once)

    def _ask_to_end(self, slot: Slot, child: Child, *, at_once: bool = False) -> None:
        if child.process.poll() is None:
            child.process.send_signal(signal.SIGKILL if at_once else signal.SIGTERM)
            child.kill_at = child.kill_at or time.monotonic() + slot.program.stop_within + STOP_MARGIN_SECONDS

    def _begin_reload(self) -> None:
        self.report("reload.started")
        self._reload = deque(self._slots)

    def _advance_reload(self) -> None:
        """Take the reload one step on: at any time one process at most is being replaced."""
        if not self._reload:
            return
        slot = self._reload[0]
        if slot.current is None:
            self._reload.popleft()  # the slot starts anew anyway
        elif slot.leaving:
            return
        elif not slot.program.serves:
            slot.leaving = True
            self._ask_to_end(slot, slot.current)
            self._reload.popleft()
        elif slot.successor is None:
            slot.successor = self._try_to_start(slot)
        elif slot.successor.ready:
            slot.leaving = True
            self._ask_to_end(slot, slot.current)
            self._reload.popleft()
        elif time.monotonic() - slot.successor.started_at > READY_WITHIN_SECONDS:
            slot.successor.process.kill()
        if not self._reload:
            self.report("reload.finished")
