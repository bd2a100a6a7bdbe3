"""`tallystick archive`."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING

import click

from ops.commands.database import with_database

if TYPE_CHECKING:
    from core.database import Database
    from core.partitions.restoring import Partition
    from core.settings import Settings
    from core.work.progress import Progress


@click.group(invoke_without_command=True)
@click.option("--once", is_flag=True, help="Do one partition and not all that are old.")
@click.option("--without-copy", is_flag=True, help="Drop without a copy, though others have one.")
@click.pass_context
def archive(context: click.Context, *, once: bool, without_copy: bool) -> None:
    """Take off partitions of which every row is old, copy them to ARCHIVE_URL, and drop them.

    A partition is dropped only after its copy was read back whole. Without ARCHIVE_URL it is dropped without a copy;
    where others lie in an archive, this wants --without-copy, since a shell may lack the worker's settings.
    The worker does the same each night. An interrupted run is gone on with by the next one.

    \b
    Examples:
      ARCHIVE_URL=s3://bucket/tallystick tallystick archive
      tallystick archive list
      tallystick archive restore audit_events_20260101
    """  # noqa: D301 - `\b` is how click is told not to wrap
    if context.invoked_subcommand is not None:
        return
    from core.log import configure_logging
    from ops.state import operator_settings

    settings = operator_settings(log_level="warning")
    # Standard output is for the result.
    configure_logging(settings, sys.stderr.buffer)
    if not settings.archive_url and not without_copy and any(p.location for p in with_database(_listed)):
        raise click.UsageError(
            "ARCHIVE_URL is not set, and partitions lie in an archive. Set it as the worker has it, or say"
            " --without-copy."
        )
    done = asyncio.run(_run(settings, once=once))
    where = (
        f"copied to {settings.archive_url} and dropped" if settings.archive_url else "dropped without a copy"
    )
    click.echo(f"{done.done} partitions {where}.")


@archive.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")
def list_(*, as_json: bool) -> None:
    """List the partitions that there are or were, with their place in the archive.

    \b
    Example:
      tallystick archive list --json
    """  # noqa: D301 - `\b` is how click is told not to wrap
    from core.partitions.restoring import list_partitions
    from ops.commands.printing import print_json

    found = with_database(list_partitions)
    if as_json:
        print_json([part._asdict() for part in found])
        return
    for part in found:
        click.echo(_line(part))


@archive.command()
@click.argument("name")
@click.option("--beside", is_flag=True, help="Leave the rows in a table of their own.")
def restore(name: str, *, beside: bool) -> None:
    """Bring the archived partition NAME back, so that its table has its rows again, until it is forgotten.

    \b
    Example:
      tallystick archive restore audit_events_20260101
    """  # noqa: D301 - `\b` is how click is told not to wrap
    from core.partitions.restoring import restore as restore_one

    rows = with_database(
        lambda database: restore_one(
            database, name, attach=not beside, on_page=lambda rows: click.echo(f"{rows} rows read", err=True)
        )
    )
    click.echo(f"{rows} rows are back{', in a table of that name' if beside else ''}.")


@archive.command()
@click.argument("name")
def forget(name: str) -> None:
    """Remove the partition NAME, which was brought back, from the database again; it stays in the archive.

    \b
    Example:
      tallystick archive forget audit_events_20260101
    """  # noqa: D301 - `\b` is how click is told not to wrap
    from core.partitions.restoring import forget as forget_one

    with_database(lambda database: forget_one(database, name))
    click.echo(f"{name} is in the archive alone.")


def _line(part: Partition) -> str:
    from_at, to_at = (None if at is None else at.isoformat() for at in (part.from_at, part.to_at))
    span = "what no other takes" if to_at is None else f"{from_at or 'the beginning'} to {to_at}"
    rows = "" if part.row_count is None else f", {part.row_count} rows"
    return f"{part.name}: {part.state}, {span}{rows}{'' if part.location is None else f', {part.location}'}"


async def _listed(database: Database) -> list[Partition]:
    from core.partitions.restoring import list_partitions

    return await list_partitions(database)


async def _run(settings: Settings, *, once: bool) -> Progress:
    from core.partitions.archiving import step
    from core.service import open_migrated
    from core.work.progress import Progress

    total = Progress()
    database, epoch = await open_migrated(settings, size=2)
    try:
        while (done := await step(database, settings, epoch)).any:
            total = total.and_then(done)
            click.echo(f"{total.done} done", err=True)
            if once:
                break
        return total
    finally:
        await database.close()
