"""The database of a command that needs no other part of the service, and `tallystick pooler`."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, TypeVar

import click

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from core.database import Database

Result = TypeVar("Result")


def with_database(work: Callable[[Database], Awaitable[Result]]) -> Result:
    """Do `work` with the database that the settings name or that runs here, and return its result.

    The connection has the login role of the address and not the serving role, which has fewer rights than operators
    need. Raises StartError when the database cannot be reached, and any error of `work`.
    """
    from core.database import open_database
    from core.log import configure_logging
    from ops.reach import reaching_database
    from ops.state import operator_settings

    settings = operator_settings(redis_needed=False, log_level="warning")
    # Standard output is for the result.
    configure_logging(settings, sys.stderr.buffer)

    async def run() -> Result:
        database = await open_database(settings, role=None, size=1)
        try:
            return await work(database)
        finally:
            await database.close()

    with reaching_database(settings.database_url):
        return asyncio.run(run())


@click.command()
@click.argument("login")
def pooler(login: str) -> None:
    """Print the statements after which LOGIN can serve through a pooler in transaction mode.

    Such a pooler lends a session for one transaction, so nothing can be set for a session. PostgreSQL sets what we need
    at the start of each session of LOGIN. The values are those of the settings; run the statements again when
    DATABASE_STATEMENT_TIMEOUT_MS or DATABASE_LOCK_TIMEOUT_MS changes, as the owner, and then RECONNECT the pooler.

    \b
    Examples:
      tallystick pooler tallystick_pooled
      tallystick pooler tallystick_pooled | psql "$DATABASE_DIRECT_URL"
    """  # noqa: D301 - `\b` is how click is told not to wrap
    from core.database import SERVING_ROLE, session_settings
    from core.settings import load_settings

    quoted = '"' + login.replace('"', '""') + '"'
    click.echo(f'GRANT "{SERVING_ROLE}" TO {quoted};')
    for name, value in {"role": SERVING_ROLE, **session_settings(load_settings(), SERVING_ROLE)}.items():
        click.echo(f"ALTER ROLE {quoted} SET {name} = '{value}';")
