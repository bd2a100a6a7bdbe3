"""`tallystick deliveries`."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from uuid import UUID

import click

from ops.commands.database import with_database
from ops.commands.keys import Duration
from ops.commands.printing import cell, console, print_json
from ops.commands.settlement import Moment

if TYPE_CHECKING:
    from core.database import Database
    from core.outbox.deliveries import Attempt, Delivery, Filter, Replayed


@click.group()
def deliveries() -> None:
    """Look at deliveries of webhooks, and send them again.

    The commands work on the database at DATABASE_URL, as its owner, or else on that of the `tallystick up` that runs
    here. The workers do the sending.
    """


@deliveries.command(name="list")
@click.option("--endpoint", type=click.UUID, help="Only those to this endpoint.")
@click.option("--event", help="Only those of this event: its webhook-id, msg_...")
@click.option(
    "--state",
    type=click.Choice(["waiting", "pending", "sending", "delivered", "failed"]),
    help="Only those in this state.",
)
@click.option("--type", "event_type", help="Only those of this type of event.")
@click.option("--within", type=Duration(), help="Only those made within the last 30m, 12h, 90d, 8w.")
@click.option("--limit", type=click.IntRange(1, 1000), default=50, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print a JSON array instead of a table.")
def list_(
    endpoint: UUID | None,
    event: str | None,
    state: str | None,
    event_type: str | None,
    within: timedelta | None,
    *,
    limit: int,
    as_json: bool,
) -> None:
    """List deliveries, newest first.

    \b
    Examples:
      tallystick deliveries list --state failed --within 12h
      tallystick deliveries list --endpoint 0199... --json
    """  # noqa: D301 - `\b` is how click is told not to wrap
    from core.outbox.deliveries import Filter, list_deliveries

    wanted = Filter(
        principal_id=None,
        endpoint_id=endpoint,
        event_id=None if event is None else _event_id(event),
        states=None if state is None else (state,),
        types=None if event_type is None else (event_type,),
        since=None if within is None else datetime.now(UTC) - within,
    )
    found = with_database(lambda database: list_deliveries(database, wanted, before=None, limit=limit))
    if as_json:
        print_json(found)
    else:
        _print_list(found)


@deliveries.command()
@click.argument("delivery_id", type=click.UUID)
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")
def show(delivery_id: UUID, *, as_json: bool) -> None:
    """Show the delivery DELIVERY_ID with its attempts: the answer, the time and the duration of each.

    \b
    Example:
      tallystick deliveries show 0199a3b2-...
    """  # noqa: D301 - `\b` is how click is told not to wrap
    from core.outbox.deliveries import find_delivery

    delivery, attempts = with_database(
        lambda database: find_delivery(database, principal_id=None, delivery_id=delivery_id)
    )
    if as_json:
        print_json({"delivery": delivery, "attempts": attempts})
    else:
        _print_delivery(delivery, attempts)


@deliveries.command()
@click.argument("delivery_ids", type=click.UUID, nargs=-1, required=True)
def resend(delivery_ids: tuple[UUID, ...]) -> None:
    """Send the deliveries DELIVERY_IDS again, delivered or not, with the same ids and bytes.

    \b
    Example:
      tallystick deliveries resend 0199a3b2-...
    """  # noqa: D301 - `\b` is how click is told not to wrap
    from core.outbox.deliveries import resend as resend_one

    async def work(database: Database) -> None:
        for delivery_id in delivery_ids:
            await resend_one(database, principal_id=None, delivery_id=delivery_id)

    with_database(work)
    click.echo(f"Due again: {len(delivery_ids)}.")


@deliveries.command()
@click.argument("endpoint_id", type=click.UUID)
@click.option(
    "--since",
    required=True,
    type=Moment(),
    help="When they failed, at the earliest; in UTC unless it has an offset.",
)
def recover(endpoint_id: UUID, since: datetime) -> None:
    """Send all deliveries again that have failed at the endpoint ENDPOINT_ID since a time.

    The command goes in batches and shows its progress. After an interruption the same command does the rest.

    \b
    Example:
      tallystick deliveries recover 0199a3b2-... --since 2026-01-31T12:00
    """  # noqa: D301 - `\b` is how click is told not to wrap
    from core.errors import Refusal
    from core.outbox.deliveries import Filter
    from core.outbox.endpoints import find

    wanted = Filter(
        principal_id=None,
        endpoint_id=endpoint_id,
        states=("failed",),
        failed_since=since,
    )

    async def work(database: Database) -> int:
        endpoint = await find(database, principal_id=None, endpoint_id=endpoint_id)
        if endpoint.disabled_at is not None:
            raise Refusal("endpoint_disabled", "This endpoint is switched off. Its owner enables it first.")
        return await _replay_all(database, wanted)

    click.echo(f"Due again: {with_database(work)}.")


@click.command()
@click.option("--endpoint-id", type=click.UUID, help="Only those to this endpoint.")
@click.option(
    "--status",
    type=click.Choice(["failed", "pending"]),
    default="failed",
    show_default=True,
    help="Only those.",
)
def requeue(endpoint_id: UUID | None, status: str) -> None:
    """Make deliveries due again, with all attempts before them; deliveries of endpoints that are off stay as they are.

    The command takes its options from the wallet contract. `tallystick deliveries` can choose more finely.

    \b
    Examples:
      tallystick requeue
      tallystick requeue --endpoint-id 0199... --status pending
    """  # noqa: D301 - `\b` is how click is told not to wrap
    from core.outbox.deliveries import Filter

    wanted = Filter(principal_id=None, endpoint_id=endpoint_id, states=(status,))
    count = with_database(lambda database: _replay_all(database, wanted))
    click.echo(f"Requeued {count} deliveries from status '{status}'.")


async def _replay_all(database: Database, wanted: Filter) -> int:
    from core.outbox.deliveries import replay

    total, before = 0, None
    while True:
        progress: Replayed = await replay(database, wanted, before=before)
        total += progress.replayed
        if progress.next is None:
            return total
        click.echo(f"Due again so far: {total}.", err=True)
        before = progress.next


def _event_id(text: str) -> UUID:
    try:
        return UUID(text.removeprefix("msg_"))
    except ValueError:
        raise click.BadParameter(
            f"{text!r} is no webhook-id like msg_0199...", param_hint="--event"
        ) from None


def _print_list(found: list[Delivery]) -> None:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD)
    for column in ("delivery", "endpoint", "type", "state", "attempts", "made", "last error"):
        table.add_column(column.upper(), no_wrap=column in {"delivery", "state"})
    for delivery in found:
        table.add_row(
            str(delivery.id),
            str(delivery.endpoint),
            delivery.type,
            delivery.state,
            str(delivery.attempts),
            f"{delivery.created_at:%Y-%m-%d %H:%M:%S}",
            cell(delivery.last_error or ""),
            style="red" if delivery.state == "failed" else None,
        )
    console().print(table)


def _print_delivery(delivery: Delivery, attempts: list[Attempt]) -> None:
    from rich import box
    from rich.table import Table

    screen = console()
    for name in delivery.__struct_fields__:
        value = getattr(delivery, name)
        shown = f"{value:%Y-%m-%d %H:%M:%S}" if isinstance(value, datetime) else str(value or "-")
        screen.print(f"{name.replace('_', ' '):>16}  {cell(shown)}", markup=False)
    table = Table(box=box.SIMPLE_HEAD)
    for column in ("at", "status", "ms", "answer"):
        table.add_column(column.upper(), no_wrap=column == "at")
    for attempt in attempts:
        table.add_row(
            f"{attempt.at:%Y-%m-%d %H:%M:%S.%f}"[:-3],
            "-" if attempt.status is None else str(attempt.status),
            str(attempt.latency_ms),
            cell(attempt.error or attempt.excerpt),
        )
    screen.print(table)
