"""`tallystick migrate`."""

from __future__ import annotations

import asyncio

import click


@click.command()
@click.option(
    "--check",
    is_flag=True,
    help="Change nothing; exit with 1 if something is outstanding, or applied by a later version, and name it.",
)
def migrate(*, check: bool) -> int:
    """Bring the schema of the database at DATABASE_URL up to date.

    Safe to run from several machines at once: one of them works, the others wait for it. The login of DATABASE_URL must
    be allowed to create tables and roles.

    \b
    Examples:
      DATABASE_URL=postgresql://owner:secret@db:5432/tallystick tallystick migrate
      tallystick migrate --check
    """  # noqa: D301 - `\b` is how click is told not to wrap
    from core import migrations
    from ops.reach import reaching_database
    from ops.state import operator_settings

    url = operator_settings(redis_needed=False).database_url
    with reaching_database(url):
        if check:
            outstanding = asyncio.run(migrations.pending(url))
            for name in outstanding:
                click.echo(f"outstanding: {name}")
            unknown = asyncio.run(migrations.unknown(url))
            for name in unknown:
                click.echo(f"unknown to this version: {name}")
            return 1 if outstanding or unknown else 0
        applied = asyncio.run(
            migrations.migrate(url, on_progress=lambda name: click.echo(f"applying {name}"))
        )
    click.echo(f"{len(applied)} applied." if applied else "The schema is up to date.")
    return 0
