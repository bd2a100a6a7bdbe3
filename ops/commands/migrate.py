"""`tallystick migrate`."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from core.migrations.plan import Step

# The exit code where a migration that is not online was left outstanding.
NOT_ONLINE = 3


@click.command()
@click.option(
    "--check",
    is_flag=True,
    help="Change nothing; exit with 1 and name what is outstanding, altered, or applied by a later version.",
)
@click.option(
    "--plan",
    "show_plan",
    is_flag=True,
    help="Change nothing; show what would run: whether traffic goes on beside it, its locks, the functions made anew.",
)
@click.option(
    "--online",
    "online_only",
    is_flag=True,
    help="Stop before the first migration that traffic cannot go on beside; exit with 3 if there is one.",
)
@click.option(
    "--login-file",
    type=click.Path(),
    help="Then let the login of the address in this file (postgresql://name:password@...) serve; make it if needed.",
)
def migrate(*, check: bool, show_plan: bool, online_only: bool, login_file: str | None) -> int:
    """Bring the schema of the database up to date: that of DATABASE_DIRECT_URL, or else of DATABASE_URL.

    Safe to run from several machines at once: one of them works, the others wait for it. The login must be allowed to
    create tables and roles. Locks are taken within a moment or given up and tried again, so that traffic never queues.

    \b
    Examples:
      DATABASE_URL=postgresql://owner:secret@db:5432/tallystick tallystick migrate
      tallystick migrate --check
      tallystick migrate --plan
      tallystick migrate --login-file /run/secrets/service_database_url
    """  # noqa: D301 - `\b` is how click is told not to wrap
    from core import migrations
    from core.access.login import let_in
    from ops.reach import reaching_database
    from ops.state import operator_settings

    settings = operator_settings(redis_needed=False)
    if settings.database_pooler:
        raise click.UsageError(
            "DATABASE_POOLER is set: migrations need DATABASE_DIRECT_URL, past the pooler."
        )
    if login_file is not None and (check or show_plan):
        raise click.UsageError("--login-file makes a login, and --check and --plan change nothing.")
    url, login = settings.database_url, None if login_file is None else _address_in(login_file)
    with reaching_database(url):
        if check:
            return asyncio.run(_check(url))
        if show_plan:
            _show(asyncio.run(migrations.planned(url)))
            return 0
        applied = asyncio.run(
            migrations.migrate(
                url,
                on_progress=lambda name: click.echo(f"applying {name}"),
                on_wait=lambda name: click.echo(f"  {name} gives way to the traffic and is tried again"),
                online_only=online_only,
            )
        )
        left = asyncio.run(migrations.pending(url)) if online_only else []
        name = None if login is None else asyncio.run(let_in(url, login))
    click.echo(f"{len(applied)} applied." if applied else "The schema is up to date." if not left else "")
    if name is not None:
        click.echo(f"The login {name} may serve.")
    if left:
        click.echo(
            f"{left[0]} is not online, and stays outstanding with what follows it: {len(left)} in all."
        )
    return NOT_ONLINE if left else 0


def _address_in(path: str) -> str:
    from core.settings.files import bytes_in

    try:
        return bytes_in(path).decode("utf-8-sig").strip()
    except UnicodeDecodeError:
        raise click.UsageError(f"{path} is no text in UTF-8.") from None
    except OSError as error:
        raise click.UsageError(f"{path} cannot be used: {error.strerror}.") from None


async def _check(url: str) -> int:
    from core import migrations

    altered = await migrations.altered(url)
    outstanding = [] if altered else await migrations.pending(url)
    unknown = await migrations.unknown(url)
    for word, names in (
        ("altered", altered),
        ("outstanding", outstanding),
        ("unknown to this version", unknown),
    ):
        for name in names:
            click.echo(f"{word}: {name}")
    return 1 if altered or outstanding or unknown else 0


def _show(steps: list[Step]) -> None:
    for step in steps:
        click.echo(f"{step.name}: {'online' if step.online.yes else 'NOT ONLINE'}, {step.online.why}")
        for table, mode in step.locks.items():
            click.echo(f"  lock: {table} {mode}")
        if step.functions:
            click.echo(f"  functions: {', '.join(step.functions)}")
    offline = sum(not step.online.yes for step in steps)
    click.echo(
        f"{len(steps)} outstanding, {offline} of them not online." if steps else "The schema is up to date."
    )
