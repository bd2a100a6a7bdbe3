"""`tallystick callbacks`: who is called back about payments, with which secret, and sending what is due."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import UUID

import click

from ops.commands.database import with_database
from ops.commands.payments.jobs import dispatch
from ops.commands.printing import print_json, printable

if TYPE_CHECKING:
    from core.database import Database


@click.group()
@click.option("--worker", is_flag=True, hidden=True)
def callbacks(*, worker: bool) -> None:
    """Look at the receivers of callbacks, show or renew the secret that signs theirs, and send what is due.

    A callback tells of one payment, to an address of its own: the status callbacks of orchestration, and merchants'
    notifications of orders. `tallystick payments show` tells how those of a payment stand.
    """


callbacks.add_command(dispatch)


@callbacks.command(name="list")
@click.option("--after", type=click.UUID, help="Only those behind this id, which the last page ended with.")
@click.option("--limit", type=click.IntRange(1, 1000), default=100, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of lines.")
def list_(after: UUID | None, *, limit: int, as_json: bool) -> None:
    """List receivers: their surface, owner and origin (scheme, host and port), the oldest first.

    \b
    Example:
      tallystick callbacks list --json
    """  # noqa: D301 - `\b` is how click is told not to wrap
    from core.outbox.callbacks import NOWHERE, receivers

    found = with_database(lambda database: receivers(database, after=after, limit=limit))
    if as_json:
        print_json([one._asdict() for one in found])
        return
    for one in found:
        origin = "no address that can be sent to" if one.origin == NOWHERE else printable(one.origin)
        click.echo(f"{one.id}  {one.surface:<14}{printable(one.owner)}  {origin}")


@callbacks.command()
@click.argument("surface", type=click.Choice(["orchestration", "orders"]))
@click.argument("owner")
@click.argument("url")
@click.option("--new", is_flag=True, help="Make a new secret first. The old one ends at once.")
def secret(surface: str, owner: str, url: str, *, new: bool) -> None:
    """Print the secret that signs the callbacks to OWNER at URL, for its receiver; it is made if there is none.

    OWNER is a merchant's id in orders, or `all` for those without an address of their own; in orchestration it is the
    name of a service. The path of URL does not count: receivers of one owner at one scheme, host and port share a
    secret. Signatures are those of Standard Webhooks.

    \b
    Examples:
      tallystick callbacks secret orchestration payments-gateway https://gateway.example.com
      tallystick callbacks secret orders 42 https://shop.example.com --new
    """  # noqa: D301 - `\b` is how click is told not to wrap
    from core.audit import audited, record
    from core.outbox.callbacks import ORDERS, is_known, objection_to, secret_of
    from core.vault import Vault
    from ops.state import operator_settings

    if objection := objection_to(url):
        raise click.UsageError(objection)
    vault = Vault.of(operator_settings(redis_needed=False))

    async def read(database: Database) -> str:
        async with database.transaction() as connection:
            if not await is_known(connection, surface, owner):
                if surface == ORDERS:
                    raise click.UsageError(f"There is no merchant {printable(owner)}.")
                # An auth service of the operator's own may know services that have not called yet.
                click.echo(f"No service {printable(owner)} has a key here or has called yet.", err=True)
            found = await secret_of(connection, vault, surface, owner, url, new=new)
            done = audited(
                "callbacks.secret_renewed" if new else "callbacks.secret_shown",
                "admin",
                {"surface": surface, "owner": owner},
            )
            await record(connection, done)
            return found

    click.echo(with_database(read))
