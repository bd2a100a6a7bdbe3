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
def migrate(*, check: bool, show_plan: bool, online_only: bool) -> int:
    """Bring the schema of the database up to date: that of DATABASE_DIRECT_URL, or else of DATABASE_URL.

    Safe to run from several machines at once: one of them works, the others wait for it. The login must be allowed to
    create tables and roles. Locks are taken within a moment or given up and tried again, so that traffic never queues.

    \b
    Examples:
      DATABASE_URL=postgresql://owner:secret@db:5432/tallystick tallystick migrate
      tallystick migrate --check
      tallystick migrate --plan
    """  # noqa: D301 - `\b` is how click is told not to wrap
    from core import migrations
    from ops.reach import reaching_database
    from ops.state import operator_settings

    settings = operator_settings(redis_needed=False)
    if settings.database_pooler:
        raise click.UsageError(
            "DATABASE_POOLER is set: migrations need DATABASE_DIRECT_URL, past the pooler."
        )
    url = settings.database_url
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
    click.echo(f"{len(applied)} applied." if applied else "The schema is up to date." if not left else "")
    if left:
        click.echo(
            f"{left[0]} is not online, and stays outstanding with what follows it: {len(left)} in all."
        )
    return NOT_ONLINE if left else 0


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
