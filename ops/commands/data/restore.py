"""`tallystick restore` and `tallystick recovered`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from ops.commands.texts import Text

if TYPE_CHECKING:
    from ops.backups.restoring import Restored

FAILED = 1


@click.command()
@click.argument("source", metavar="[PLACE/]NAME")
@click.option(
    "--into",
    required=True,
    metavar="URL",
    help="The database to restore into; the word DATABASE_URL means that of the settings.",
)
@click.option(
    "-j", "--jobs", type=click.IntRange(1, 64), default=2, show_default=True, help="Tables at once."
)
@click.option(
    "--replace", is_flag=True, help="Set the schema that is there aside, under another name, and restore."
)
def restore(source: str, into: str, jobs: int, *, replace: bool) -> int:
    """Restore a backup into an empty database, compare it with its manifest, verify it, and begin a new epoch.

    The login must own the database. Until the end the service refuses to open it, so that nobody works on a half of a
    restore. The new epoch makes Redis forget what it knew of the lost part of the history, and tells readers of the
    feed where to go on. Exit codes: 0 restored and verified, 1 not.

    \b
    Examples:
      tallystick restore tallystick-20260131T030000Z --into postgresql://owner@db:5432/restored
      tallystick restore s3://bucket/tallystick/tallystick-20260131T030000Z --into DATABASE_URL --replace -j 4
    """  # noqa: D301 - `\b` is how click is told not to wrap
    from core.settings import load_settings
    from ops.backups import restoring
    from ops.backups.progress import Progress
    from ops.backups.tools import run_to_end
    from ops.commands.data.backup import source_of
    from ops.commands.verify import STATEMENT_TIMEOUT_MS
    from ops.reach import reaching_database
    from ops.state import operator_settings

    if not into.strip():
        # An empty address would mean the server of PGHOST, which nobody has named here.
        raise click.UsageError("--into is empty. It takes the address of a database.")
    place, name, staging = source_of(source)
    bounds: dict[str, Any] = {"database_statement_timeout_ms": STATEMENT_TIMEOUT_MS, "log_level": "warning"}
    if into == "DATABASE_URL":
        settings = operator_settings(redis_needed=False, **bounds)
    else:
        settings = load_settings(database_url=into, database_direct_url="", database_pooler="", **bounds)
        settings.database_url.given_as = "--into"
    options = restoring.Options(jobs, replace, staging)
    with reaching_database(settings.database_url):
        try:
            done = run_to_end(restoring.restore(settings, place, name, options, Progress()))
        except Exception as error:
            raise restoring.explain(error, settings.database_url) from error
    if done.aside:
        click.echo(f"The schema that was there is kept as {done.aside}.")
    return _told(done)


@click.command()
@click.option(
    "--reason",
    type=Text(),
    required=True,
    help="The event, for the record: `point in time 2026-01-31 03:00`.",
)
def recovered(reason: str) -> int:
    """Verify a database that PostgreSQL itself has taken back to an earlier moment, and begin a new epoch in it.

    Say this after a recovery to a point in time, and after a standby was promoted that may have lacked transactions,
    before the service is started. A standby that was synchronous has lost nothing and needs no new epoch.

    \b
    Examples:
      tallystick recovered --reason "point in time 2026-01-31 03:00"
    """  # noqa: D301 - `\b` is how click is told not to wrap
    from ops.backups import restoring
    from ops.backups.progress import Progress
    from ops.backups.tools import run_to_end
    from ops.commands.verify import STATEMENT_TIMEOUT_MS
    from ops.reach import reaching_database
    from ops.state import operator_settings

    settings = operator_settings(
        redis_needed=False, database_statement_timeout_ms=STATEMENT_TIMEOUT_MS, log_level="warning"
    )
    with reaching_database(settings.database_url):
        try:
            done = run_to_end(restoring.recovered(settings, reason, Progress()))
        except Exception as error:
            raise restoring.explain(error, settings.database_url) from error
    return _told(done)


def _told(done: Restored) -> int:
    from core.ledger.verify import CHECKS

    for file in done.migrated:
        click.echo(f"applied {file}")
    if done.epoch is None:
        for finding in done.findings:
            click.echo(f"{finding.check}: {CHECKS[finding.check]}; not so for {finding.count:,}.")
            click.echo(f"  First: {finding.subject}: {finding.detail}.")
        click.echo(
            "The records do not agree, so no epoch was begun and the service is not to use this database."
        )
        return FAILED
    click.echo(f"All records agree. Epoch {done.epoch.name} begins behind position {done.epoch.position:,}.")
    return 0
