"""`tallystick sources`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from ops.commands.database import with_database
from ops.commands.keys import Duration
from ops.commands.printing import console, print_json
from ops.commands.texts import Text

if TYPE_CHECKING:
    from datetime import timedelta

    from core.database import Database
    from core.inbox.sources import Source


@click.group()
def sources() -> None:
    """Register sources, which are senders of webhooks, and change their secrets.

    A webhook that a source posts to /webhooks/in/NAME is verified and stored. Every process knows a change within 1 s.

    The commands work on the database at DATABASE_URL, as its owner, or else on that of the `tallystick up` that runs
    here.
    """


@sources.command()
@click.argument("name")
@click.option("--principal", required=True, help="The owner of the source; `keys create` makes principals.")
@click.option(
    "--kind",
    type=click.Choice(["standard", "standard_ed25519", "hmac"]),
    default="standard",
    show_default=True,
    help="How it signs: Standard Webhooks v1 or v1a, or an HMAC of the body in one header.",
)
@click.option(
    "--description", type=Text(optional=True), default="", help="The purpose of the source, for the list."
)
@click.option(
    "--secret-from-stdin", is_flag=True, help="Read the secret from standard input. [default: make one]"
)
@click.option("--header", help="hmac: the header of the signature, such as X-Hub-Signature-256.")
@click.option(
    "--algorithm", type=click.Choice(["sha256", "sha512"]), default="sha256", help="hmac: the hash."
)
@click.option("--encoding", type=click.Choice(["hex", "base64"]), default="hex", help="hmac: the encoding.")
@click.option("--prefix", default="", help="hmac: the text before the signature, such as sha256=.")
@click.option(
    "--event-id", multiple=True, help="hmac: where the event's id stands; repeat it to join several."
)
@click.option("--event-type", default="/type", show_default=True, help="Where the event's type stands.")
@click.option("--object-id", help="Where the id of the event's object stands.")
@click.option("--occurred-at", help="Where the sender's time stands.")
def create(name: str, principal: str, *, secret_from_stdin: bool, **given: Any) -> None:
    """Register the source NAME and print its secret, once.

    The secret alone goes to standard output, so that a script can capture it. A place is header:X-Name or a JSON
    pointer into the body, such as /data/id.

    \b
    Examples:
      tallystick sources create billing --principal shop
      tallystick sources create github --principal shop --kind hmac --header X-Hub-Signature-256 --prefix sha256= \\
        --event-id header:X-GitHub-Delivery --event-type header:X-GitHub-Event --secret-from-stdin < secret
    """  # noqa: D301 - `\b` is how click is told not to wrap
    from core.inbox import sources as registry
    from core.inbox.plain_hmac import Scheme
    from core.vault import Vault
    from ops.state import operator_settings

    header = given["header"]
    options = registry.Options(
        signature=Scheme(header, given["algorithm"], given["encoding"], given["prefix"]) if header else None,
        event_id=given["event_id"],
        event_type=given["event_type"],
        object_id=given["object_id"],
        occurred_at=given["occurred_at"],
    )
    secret = _read_secret() if secret_from_stdin else None
    vault = Vault.of(operator_settings(redis_needed=False))

    async def work(database: Database) -> tuple[Source, str]:
        return await registry.create(
            database,
            vault,
            principal_id=await registry.principal_named(database, principal),
            name=name,
            kind=given["kind"],
            options=options,
            description=given["description"],
            secret=secret,
        )

    source, chosen = with_database(work)
    click.echo(
        f"Its address is /webhooks/in/{source.name}. Keep the secret now: it is not shown again.", err=True
    )
    click.echo(chosen)


@sources.command(name="list")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON array instead of a table.")
def list_(*, as_json: bool) -> None:
    """List all sources by name. Secrets are not shown.

    \b
    Example:
      tallystick sources list --json
    """  # noqa: D301 - `\b` is how click is told not to wrap
    from rich import box
    from rich.table import Table
    from rich.text import Text

    from core.inbox import sources as registry

    found = with_database(registry.list_all)
    if as_json:
        print_json([{"principal": principal} | source._asdict() for principal, source in found])
        return
    table = Table(box=box.SIMPLE_HEAD)
    for column in ("name", "principal", "kind", "state", "created", "description"):
        table.add_column(column.upper(), no_wrap=column != "description")
    for principal, source in found:
        table.add_row(
            source.name,
            Text(principal),
            source.kind,
            "enabled" if source.enabled else "disabled",
            f"{source.created_at:%Y-%m-%d %H:%M}",
            Text(source.description),
            style=None if source.enabled else "dim",
        )
    console().print(table)


@sources.command()
@click.argument("name")
@click.option("--overlap", type=Duration(), help="How long the secret before it stays good. [default: 1d]")
@click.option("--now", "at_once", is_flag=True, help="The secret before it ends at once: it has leaked.")
@click.option(
    "--secret-from-stdin", is_flag=True, help="Read the secret from standard input. [default: make one]"
)
def rotate(name: str, overlap: timedelta | None, *, at_once: bool, secret_from_stdin: bool) -> None:
    """Give the source NAME a new secret and print it, once.

    \b
    Examples:
      tallystick sources rotate billing --overlap 2d
      tallystick sources rotate billing --now
    """  # noqa: D301 - `\b` is how click is told not to wrap
    from core.inbox import sources as registry
    from core.vault import Vault
    from ops.state import operator_settings

    if at_once and overlap is not None:
        raise click.UsageError("--overlap and --now exclude each other.")
    seconds = 86_400 if overlap is None else int(overlap.total_seconds())
    if seconds > registry.MAX_OVERLAP_SECONDS:
        raise click.UsageError("The secret before it stays good for a week at most.")
    secret = _read_secret() if secret_from_stdin else None
    vault = Vault.of(operator_settings(redis_needed=False))

    async def work(database: Database) -> str:
        principal_id, source = await registry.find_by_name(database, name)
        _, chosen = await registry.rotate(
            database,
            vault,
            principal_id=principal_id,
            source_id=source.id,
            secret=secret,
            overlap_seconds=0 if at_once else seconds,
        )
        return chosen

    click.echo(with_database(work))


@sources.command()
@click.argument("name")
def enable(name: str) -> None:
    """Switch the source NAME on again."""
    _switch(name, on=True)


@sources.command()
@click.argument("name")
def disable(name: str) -> None:
    """Switch the source NAME off: its sender gets 404."""
    _switch(name, on=False)


@sources.command()
@click.argument("name")
def delete(name: str) -> None:
    """Delete the source NAME and its secrets; its events stay, and its name stays taken."""
    from core.inbox import sources as registry

    async def work(database: Database) -> None:
        principal_id, source = await registry.find_by_name(database, name)
        await registry.delete(database, principal_id=principal_id, source_id=source.id)

    with_database(work)
    click.echo(f"Deleted {name}.")


def _switch(name: str, *, on: bool) -> None:
    from core.inbox import sources as registry

    async def work(database: Database) -> None:
        principal_id, source = await registry.find_by_name(database, name)
        await registry.update(database, principal_id=principal_id, source_id=source.id, enabled=on)

    with_database(work)
    click.echo(f"{name} is {'enabled' if on else 'disabled'}.")


def _read_secret() -> str:
    return sys.stdin.readline().rstrip("\r\n")
