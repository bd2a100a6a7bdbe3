"""PostgreSQL's own programs: pg_dump and pg_restore of a version that fits the server, run with their progress told."""

from __future__ import annotations

import asyncio
import re
import shutil
import signal
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit, urlunsplit

from ops.embedded.programs import POSTGRES_FOLDERS, find_postgres
from ops.process import StartError, python_environment, spawn, stop

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator, Sequence

Result = TypeVar("Result")

# A program that fails says why in its last lines.
LAST_LINES = 12


class Tool(NamedTuple):
    """One program with its major version."""

    path: Path
    major: int


class Address(NamedTuple):
    """A database's address without its password: a child finds that in its environment, since anyone reads commands."""

    url: str
    password: str

    @classmethod
    def of(cls, url: str) -> Address:
        """Take the password out of a DSN, be it before the host or among the parameters."""
        parts = urlsplit(url)
        user, _, hosts = parts.netloc.rpartition("@")
        name, _, password = user.partition(":")
        query = parse_qsl(parts.query, keep_blank_values=True)
        password = unquote(password) or dict(query).get("password", "")
        rest = urlencode([pair for pair in query if pair[0] != "password"])
        return cls(
            urlunsplit(parts._replace(netloc=f"{name}@{hosts}" if name else hosts, query=rest)), password
        )


def find_tool(name: str, server_major: int) -> Tool:
    """Return the program for a server: of its own version if there is one, else the oldest that is newer.

    Newer programs write settings that older servers do not know, and older ones refuse newer servers. Looked for are
    PATH, the folders of distributions, and the embedded server's own programs. Raises StartError.
    """
    found = [tool for path in _paths(name) if (tool := _probe(path)) is not None]
    fitting = sorted((tool for tool in found if tool.major >= server_major), key=lambda tool: tool.major)
    if fitting:
        return fitting[0]
    seen = ", ".join(f"{tool.path} is of {tool.major}" for tool in found) or "none was found"
    raise StartError(
        f"{name} of PostgreSQL {server_major} or newer is needed ({seen}). Install your system's package"
        f" postgresql-client-{server_major}, or put the program on PATH."
    )


async def run_tool(tool: Tool, address: Address, *arguments: str, on_line: Callable[[str], None]) -> None:
    """Run a program on a database; `on_line` is told each line that it says. Raises StartError when it fails."""
    command = [str(tool.path), *arguments, "--no-password", "--verbose", f"--dbname={address.url}"]
    environment = python_environment(LC_ALL="C")
    if address.password:
        environment["PGPASSWORD"] = address.password
    await run(command, environment, on_line)


async def run(command: Sequence[str], environment: dict[str, str], on_line: Callable[[str], None]) -> None:
    """Run a command to its end, telling its lines; it ends with us, however we end. Raises StartError when it fails."""
    child = spawn(command, output=subprocess.PIPE, environment=environment, death_signal=signal.SIGTERM)
    said: list[str] = []

    def listen() -> int:
        if child.stdout is not None:
            for raw in child.stdout:
                line = raw.decode(errors="replace").rstrip()
                said.append(line)
                del said[:-LAST_LINES]
                on_line(line)
        return child.wait()

    try:
        code = await asyncio.to_thread(listen)
    except BaseException:
        stop(child, (signal.SIGTERM, 5.0))
        raise
    if code != 0:
        told = [line for line in said if "error:" in line or "FATAL:" in line] or said
        raise StartError(f"{Path(command[0]).name} failed with exit code {code}:\n" + "\n".join(told))


def run_to_end(work: Coroutine[Any, Any, Result]) -> Result:
    """Run `work`; on SIGTERM it cleans up as on Ctrl-C, and KeyboardInterrupt is raised."""

    async def terminable() -> Result:
        task = asyncio.ensure_future(work)
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        return await task

    try:
        return asyncio.run(terminable())
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None


def _paths(name: str) -> Iterator[Path]:
    if (on_path := shutil.which(name)) is not None:
        yield Path(on_path)
    for pattern in POSTGRES_FOLDERS:
        yield from sorted(Path("/").glob(f"{pattern[1:]}/{name}"))
    try:
        embedded = find_postgres().path.with_name(name)
    except StartError:
        return
    if embedded.exists():
        yield embedded


def _probe(path: Path) -> Tool | None:
    try:
        answer = subprocess.run([path, "--version"], check=False, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return None
    match = re.search(r"\(PostgreSQL\) (\d+)", answer.stdout)
    return Tool(path, int(match[1])) if answer.returncode == 0 and match is not None else None
