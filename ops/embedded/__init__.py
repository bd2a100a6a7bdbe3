"""PostgreSQL and Valkey without an installation, from the wheels that we depend on, in a directory of our own."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ops.embedded.postgres import Postgres
from ops.embedded.valkey import Valkey
from ops.process import say_nothing
from ops.state import state_lock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

__all__ = ["EmbeddedServers", "Postgres", "Valkey", "embedded_servers"]


@dataclass(frozen=True, slots=True)
class EmbeddedServers:
    """Both running servers. Each can be stopped, killed and started again, and keeps its port and data."""

    postgres: Postgres
    valkey: Valkey

    @property
    def database_url(self) -> str:
        """The DSN of the database `tallystick`, password included."""
        return self.postgres.url()

    @property
    def redis_url(self) -> str:
        """The URL of the server's database 0, password included."""
        return self.valkey.url()


@contextmanager
def embedded_servers(
    state_dir: Path,
    postgres_port: int | None = None,
    redis_port: int | None = None,
    *,
    postgres_options: Mapping[str, str] | None = None,
    redis_databases: int = 16,
    say: Callable[[str], None] = say_nothing,
) -> Iterator[EmbeddedServers]:
    """Run both servers on `state_dir` for the length of the block; `say` gets messages for a person.

    The search for a free port begins at the given one; None takes any. On Linux the servers end with the thread that
    entered the block, however it ends. Raises StartError if the directory is in use or a server cannot be started.
    """
    with (
        state_lock(state_dir),
        Postgres(state_dir, port=postgres_port, options=postgres_options, say=say) as postgres,
        Valkey(state_dir, port=redis_port, databases=redis_databases, say=say) as valkey,
    ):
        yield EmbeddedServers(postgres, valkey)
