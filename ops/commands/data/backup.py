"""`tallystick backup`, `tallystick backup list` and `tallystick backup check`."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from pathlib import Path

    from core.settings import Settings
    from ops.backups.manifest import Manifest
    from ops.backups.places import Place

FAILED = 1
MIB = 1024 * 1024


@click.group(invoke_without_command=True)
@click.option("--to", "place", metavar="PLACE", help="A folder, or s3://bucket/folder. Default: BACKUP_TO.")
@click.option("--keep-last", type=click.IntRange(min=0), default=0, help="Keep so many of the newest.")
@click.option("--keep-daily", type=click.IntRange(min=0), default=0, help="Keep the newest of so many days.")
@click.option(
    "--keep-weekly", type=click.IntRange(min=0), default=0, help="Keep the newest of so many weeks."
)
@click.option("--keep-monthly", type=click.IntRange(min=0), default=0, help="... and of so many months.")
@click.option("--json", "as_json", is_flag=True, help="Print the manifest as JSON.")
@click.pass_context
def backup(context: click.Context, /, place: str | None, *, as_json: bool, **keep: int) -> None:
    """Back up the database beside the traffic: a dump in pg_dump's custom format, and a manifest with its contents.

    The backup shows one moment. It exists once its manifest is written, at the end: a run that is broken off leaves
    nothing behind. With one of the --keep options older backups of this database are then removed, but for those
    that an option names; the newest whole one always stays. Redis decides nothing and is not backed up.

    A backup holds all that the database does, and is not encrypted: keep the place as closed as the database. Secrets
    in it that are sealed need the service's SECRETS_KEYS again, which belong into another place.

    \b
    Examples:
      tallystick backup
      tallystick backup --to /backups --keep-daily 7 --keep-weekly 5 --keep-monthly 12
      tallystick backup --to s3://bucket/tallystick
      tallystick backup list
    """  # noqa: D301 - `\b` is how click is told not to wrap
    if context.invoked_subcommand is None:
        _take(place, keep, as_json=as_json)
    elif place is not None or any(keep.values()):
        raise click.UsageError(
            f"`backup {context.invoked_subcommand}` takes its own options, behind its name."
        )


@backup.command("list")
@click.option("--from", "place", metavar="PLACE", help="A folder, or s3://bucket/folder. Default: BACKUP_TO.")
@click.option("--json", "as_json", is_flag=True, help="Print the list as JSON.")
def list_(place: str | None, *, as_json: bool) -> None:
    """List the backups of a place, the newest first.

    \b
    Examples:
      tallystick backup list
      tallystick backup list --from s3://bucket/tallystick --json
    """  # noqa: D301 - `\b` is how click is told not to wrap
    from rich import box
    from rich.table import Table

    from ops.commands.printing import cell, console, print_json

    chosen, _ = _place(place)
    found = [_row(chosen, name) for name in reversed(chosen.names())]
    if as_json:
        print_json(found)
        return
    if not found:
        click.echo(f"No backup in {chosen.title}.")
        return
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for title in ("name", "age", "MiB", "transfers", "feed", "epoch", "version", "state"):
        table.add_column(title, justify="right" if title in {"age", "MiB", "transfers", "feed"} else "left")
    for row in found:
        table.add_row(*(cell(str(value)) for value in row.values()))
    console().print(table)


@backup.command()
@click.argument("source", metavar="[PLACE/]NAME")
def check(source: str) -> None:
    """Read a backup's dump and compare it with its manifest; exit with 1 if it is damaged.

    This proves that the bytes are those that were written. A restore into a database of its own proves more.

    \b
    Examples:
      tallystick backup check tallystick-20260131T030000Z
      tallystick backup check s3://bucket/tallystick/tallystick-20260131T030000Z
    """  # noqa: D301 - `\b` is how click is told not to wrap
    from ops.backups.manifest import check_dump
    from ops.backups.progress import Progress
    from ops.process import StartError

    place, name, staging = source_of(source)
    manifest, progress = place.manifest(name), Progress()
    progress.stage(f"Checking {name} of {place.title}")
    with place.fetched(name, staging, progress.bytes) as dump:
        if not dump.exists():
            raise StartError(f"The dump of backup {name} is gone from {place.title}.")
        check_dump(manifest, dump, lambda done: progress.bytes(done, manifest.bytes))
    progress.done()
    click.echo(f"{name} is whole: {manifest.bytes:,} bytes, SHA-256 {manifest.sha256}.")


def source_of(source: str) -> tuple[Place, str, Path]:
    """Return the place and name that a person has given, the configured place for a bare name, and a staging folder."""
    from ops.backups.places import split_source

    configured, staging = _place(None)
    if "/" in source:
        return *split_source(source), staging
    return configured, source.removesuffix(".dump").removesuffix(".json"), staging


def _take(named: str | None, keep: dict[str, int], *, as_json: bool) -> None:
    from ops.backups import taking
    from ops.backups.keeping import Keep
    from ops.backups.progress import Progress
    from ops.backups.tools import run_to_end
    from ops.commands.printing import print_json
    from ops.reach import reaching_database
    from ops.state import operator_settings

    place, staging = _place(named)
    url = operator_settings(redis_needed=False).database_url
    with reaching_database(url):
        manifest = run_to_end(taking.take(url, place, staging, Progress()))
        noted = run_to_end(taking.note(url, place, manifest))
    wanted = Keep(**{name.removeprefix("keep_"): number for name, number in keep.items()})
    removed = taking.prune(place, manifest, wanted)
    if as_json:
        print_json(manifest)
        return
    click.echo(f"{place.title}/{manifest.name}: {_words(manifest)}")
    if not noted:
        click.echo("The database could not be told, so `backup_age_seconds` does not know of it.", err=True)
    for name in removed:
        click.echo(f"removed {name}")


def _words(manifest: Manifest) -> str:
    transfers = manifest.picture.rows.get("transfers", 0)
    return (
        f"{transfers:,} transfers, feed to {manifest.picture.position:,}, {manifest.bytes / MIB:,.1f} MiB"
        f" in {manifest.seconds:.1f} s."
    )


def _place(named: str | None) -> tuple[Place, Path]:
    """Return the place that is named, else that of BACKUP_TO, and a folder for files on their way."""
    from core.settings import load_settings
    from ops.backups.places import place_of
    from ops.state import state_dir

    settings: Settings = load_settings()
    folder = state_dir(settings)
    return place_of(named or settings.backup_to or str(folder / "backups")), folder / "backups.staging"


def _row(place: Place, name: str) -> dict[str, Any]:
    """Return what a list shows of a backup. A manifest that cannot be read is a state and no failure."""
    from ops.process import StartError

    try:
        manifest = place.manifest(name)
    except StartError:
        return dict.fromkeys(("name", "age", "mib", "transfers", "position", "epoch", "version"), "") | {
            "name": name,
            "state": "manifest unreadable",
        }
    size = place.size(name)
    whole = size == manifest.bytes
    hours = (datetime.now(UTC) - manifest.taken_at).total_seconds() / 3600
    return {
        "name": name,
        "age": f"{hours:.1f} h" if hours < 48 else f"{hours / 24:.0f} d",
        "mib": round(manifest.bytes / MIB, 1),
        "transfers": manifest.picture.rows.get("transfers", 0),
        "position": manifest.picture.position,
        "epoch": manifest.epoch,
        "version": manifest.version,
        "state": "whole" if whole else "dump gone" if size is None else "dump has another size",
    }
