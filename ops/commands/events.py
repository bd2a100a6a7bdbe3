"""`tallystick events` and `tallystick listen`."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import click

from ops.commands.database import with_database
from ops.commands.keys import Duration
from ops.commands.printing import cell, console, print_json, print_line, printable

if TYPE_CHECKING:
    from core.database import Database
    from core.inbox.reports import Arrived
    from core.inbox.story import Story

_json_lines = click.option("--json", "as_json", is_flag=True, help="Print a line of JSON for each.")


@click.group()
def events() -> None:
    """Look at the events that came in from providers and sources, and at what became of them.

    The commands work on the database at DATABASE_URL, or else on that of the `tallystick up` that runs here.
    """


@events.command(name="list")
@click.option("--provider", help="Only events of this provider: stripe, paypal, source:NAME.")
@click.option("--type", "event_type", help="Only events of this type.")
@click.option(
    "--state", type=click.Choice(["pending", "leased", "done", "dead"]), help="Only events in this state."
)
@click.option("--since", type=Duration(), help="Only what was received within this time: 30m, 12h, 7d.")
@click.option(
    "--limit", type=click.IntRange(1, 10_000), default=50, show_default=True, help="At most so many."
)
@click.option("--json", "as_json", is_flag=True, help="Print a JSON array instead of a table.")
def list_(*, since: timedelta | None, limit: int, as_json: bool, **given: Any) -> None:
    """List events, the newest first, with the state and the outcome of each.

    \b
    Examples:
      tallystick events list
      tallystick events list --provider stripe --state dead --since 12h --json
    """  # noqa: D301 - `\b` is how click is told not to wrap
    from core.inbox.reports import list_arrivals

    start = None if since is None else datetime.now(UTC) - since
    found = with_database(lambda database: list_arrivals(database, since=start, limit=limit, **given))
    if as_json:
        print_json(found)
    else:
        _print_table(found)


@events.command()
@click.argument("event")
@click.option("--provider", help="The provider, where several use the same id.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")
def show(event: str, *, provider: str | None, as_json: bool) -> None:
    """Tell the story of EVENT: how it came, why it was believed, every attempt, its transfers and our deliveries.

    EVENT is the provider's id, ours, or the id of an event that we sent (msg_...).

    \b
    Example:
      tallystick events show evt_1PqX
    """  # noqa: D301 - `\b` is how click is told not to wrap
    from core.inbox import story

    told = with_database(lambda database: story.tell(database, event, provider=provider))
    if as_json:
        print_json(told)
    else:
        _print_story(told)


@events.command()
@click.option("--lines", type=click.IntRange(0, 1_000), default=10, show_default=True, help="So many before.")
@_json_lines
def tail(*, lines: int, as_json: bool) -> None:
    """Show the newest events, and then each one as it arrives, until Ctrl-C.

    \b
    Example:
      tallystick events tail --lines 0 --json
    """  # noqa: D301 - `\b` is how click is told not to wrap
    _watch(lines=lines, follow=False, as_json=as_json)


@click.command()
@_json_lines
def listen(*, as_json: bool) -> None:
    """Show each event as it arrives and what becomes of it, live, until Ctrl-C.

    The command reads the database at DATABASE_URL, or else that of the `tallystick up` that runs here. An event is told
    when it is stored, when a worker has applied, ignored or given it up, and when our own events about it have been
    delivered.

    \b
    Examples:
      tallystick listen            in one terminal, and in another:
      tallystick trigger stripe payment_intent.succeeded --account customer:1
    """  # noqa: D301 - `\b` is how click is told not to wrap
    _watch(lines=0, follow=True, as_json=as_json)


def _watch(*, lines: int, follow: bool, as_json: bool) -> None:
    from core.inbox.reports import list_arrivals
    from ops.watching import Watch

    async def watch(database: Database) -> None:
        eye = Watch(database, follow=follow)
        await eye.remember()
        for event in reversed(await list_arrivals(database, limit=lines) if lines else []):
            _tell(event, as_json=as_json)
        click.echo("Listening. Ctrl-C stops.", err=True)
        async for news in eye.news():
            _tell(news, as_json=as_json)

    # Ctrl-C is the way to end these commands, and no failure.
    with suppress(KeyboardInterrupt):
        with_database(watch)


def _tell(news: Any, *, as_json: bool) -> None:
    from core.inbox.reports import Fate
    from ops.watching import fate_of, line

    if as_json:
        print_line(
            {"event": news.event, "fate": fate_of(news)} if isinstance(news, Fate) else {"event": news}
        )
    elif isinstance(news, Fate):
        click.echo(line(news.event, fate_of(news)))
    else:
        click.echo(line(news, "received"))


def _print_table(found: list[Arrived]) -> None:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD)
    for column in ("received", "provider", "event id", "type", "state", "outcome", "attempts", "last error"):
        table.add_column(column.upper(), no_wrap=column in {"received", "event id"})
    for event in found:
        table.add_row(
            f"{event.received_at:%Y-%m-%d %H:%M:%S}",
            event.provider,
            cell(event.event_id),
            cell(event.type),
            event.state,
            event.outcome or "-",
            str(event.attempts),
            cell(event.last_error or ""),
            style="red" if event.state == "dead" else None,
        )
    console().print(table)


def _print_story(told: Story) -> None:
    if (arrival := told.receipt) is not None:
        click.echo(f"{arrival.provider} {printable(arrival.event_id)} ({printable(arrival.type)})")
        click.echo(f"  received    {arrival.received_at:%Y-%m-%d %H:%M:%S} UTC as {arrival.id}")
    if told.verification is not None:
        click.echo(f"  believed    by the {told.verification.by}")
    if (work := told.processing) is not None:
        why = f": {printable(work.last_error)}" if work.last_error else ""
        click.echo(f"  state       {work.state}, {work.outcome or 'no outcome yet'}{why}")
        for failure in reversed(work.failures):
            moment = f"{failure.failed_at:%Y-%m-%d %H:%M:%S}"
            click.echo(f"  attempt {failure.attempt}   {moment}: {printable(failure.error)}")
    for transfer in told.transfers:
        legs = ", ".join(f"{printable(entry.account)} {entry.amount:+d}" for entry in transfer.entries)
        click.echo(f"  transfer    {transfer.id}: {legs}")
    for ours in told.emitted:
        click.echo(f"  told        {ours.type} as {ours.message_id}")
        for delivery in ours.deliveries:
            answer = delivery.last_status or printable(delivery.last_error or "no answer yet")
            click.echo(f"    delivery  {delivery.state} to {printable(delivery.url or '?')}: {answer}")
    if (arrival := told.receipt) is not None:
        click.echo("".join(mark if mark.isprintable() or mark in "\n\t" else " " for mark in arrival.payload))
