"""Facts about the machine and its load for the results file, CPU shares and memory from /proc.

Where /proc is missing (macOS) the affected values are absent, not zero.
"""

import os
import platform
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

PROC = Path("/proc")
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
REPOSITORY = Path(__file__).resolve().parents[2]


def facts() -> dict[str, Any]:
    """The machine as far as it explains a figure: processor, cores this process may use, memory, versions."""
    return {
        "cpu": _first_match("cpuinfo", r"model name\s*:\s*(.+)")
        or platform.processor()
        or platform.machine(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_mb": int(_first_match("meminfo", r"MemTotal:\s*(\d+)") or 0) // 1024 or None,
        "system": platform.platform(),
        "python": sys.version.split()[0],
    }


def filesystem(path: Path) -> str | None:
    """The kind of file system below a path: on a tmpfs, fsync costs nothing and the figures mean something else."""
    try:
        mounts = [line.split() for line in (PROC / "mounts").read_text().splitlines()]
    except OSError:
        return None
    holders = [(target, kind) for _, target, kind, *_ in mounts if path.resolve().is_relative_to(target)]
    return max(holders, key=lambda holder: len(holder[0]), default=("", None))[1]


def commit() -> str:
    """The short commit measured, with "-dirty" when the tree differs from it; "unknown" outside a repository."""
    head = _git("rev-parse", "--short=10", "HEAD")
    if head is None:
        return "unknown"
    return f"{head}-dirty" if _git("status", "--porcelain", "--untracked-files=no") else head


class CpuTimes(NamedTuple):
    """CPU seconds since boot over all cores, as the kernel counts them."""

    busy: float
    steal: float
    total: float


def cpu_times() -> CpuTimes | None:
    """The machine's CPU seconds so far, None where /proc/stat is missing."""
    try:
        fields = (PROC / "stat").read_text().split("\n", 1)[0].split()[1:]
    except OSError:
        return None
    user, nice, system, idle, io_wait, irq, soft_irq, steal = (
        int(field) / TICKS_PER_SECOND for field in fields[:8]
    )
    busy = user + nice + system + irq + soft_irq
    return CpuTimes(busy, steal, busy + steal + idle + io_wait)


class Process(NamedTuple):
    """One line of the process table. `cpu` includes the children already waited for."""

    pid: int
    parent: int
    cpu: float
    resident_mb: float


def process_table() -> dict[int, Process]:
    """Every process that /proc shows; empty where there is none."""
    table = {}
    for path in PROC.glob("[0-9]*/stat"):
        try:
            text = path.read_text()
        except OSError:
            continue  # It ended while we were looking.
        # The command name stands in brackets and may hold spaces and brackets itself: fields start after the last one.
        fields = text.rpartition(")")[2].split()
        ticks = sum(int(field) for field in fields[11:15])
        pid = int(path.parent.name)
        table[pid] = Process(
            pid, int(fields[1]), ticks / TICKS_PER_SECOND, int(fields[21]) * PAGE_BYTES / 2**20
        )
    return table


def tree(root: int, table: Mapping[int, Process]) -> list[Process]:
    """The process and its living descendants, the root first; empty when it is gone."""
    found = [table[root]] if root in table else []
    for process in found:
        found.extend(child for child in table.values() if child.parent == process.pid)
    return found


def cpu_seconds(roots: Iterable[int]) -> float:
    """CPU seconds used so far by these processes and all below them."""
    table = process_table()
    return sum(process.cpu for root in roots for process in tree(root, table))


def largest_resident_mb(root: int) -> float | None:
    """The resident size of the largest process at or below `root`, None when none is left or /proc is missing."""
    return max((process.resident_mb for process in tree(root, process_table())), default=None)


class Watch:
    """Measures who used the processors between its making and `read()`."""

    def __init__(self, roles: Mapping[str, Iterable[int]]) -> None:
        self._roles = {role: tuple(pids) for role, pids in roles.items()}
        self._before = {role: cpu_seconds(pids) for role, pids in self._roles.items()}
        self._machine, self._started = cpu_times(), time.perf_counter()

    def read(self, client_cpu_seconds: float) -> tuple[dict[str, float], float | None]:
        """Cores used on average by role, "client" and "other"; and the share of all processor time stolen, if known."""
        machine, seconds = cpu_times(), time.perf_counter() - self._started
        used = {"client": client_cpu_seconds}
        if machine is None or self._machine is None:
            return {"client": round(client_cpu_seconds / seconds, 3)}, None
        used |= {role: cpu_seconds(pids) - self._before[role] for role, pids in self._roles.items()}
        used["other"] = max(machine.busy - self._machine.busy - sum(used.values()), 0.0)
        elapsed = machine.total - self._machine.total
        stolen = (machine.steal - self._machine.steal) / elapsed if elapsed else 0.0
        return {role: round(value / seconds, 3) for role, value in used.items()}, round(stolen, 4)


def load_average() -> float | None:
    """The one-minute load average, None where the system has none."""
    try:
        return round(os.getloadavg()[0], 2)
    except OSError:
        return None


def _first_match(name: str, pattern: str) -> str | None:
    try:
        found = re.search(pattern, (PROC / name).read_text())
    except OSError:
        return None
    return found.group(1).strip() if found else None


def _git(*arguments: str) -> str | None:
    git = shutil.which("git")
    if git is None:
        return None
    done = subprocess.run(
        [git, "-C", str(REPOSITORY), *arguments], capture_output=True, text=True, check=False
    )
    return done.stdout.strip() if done.returncode == 0 else None
