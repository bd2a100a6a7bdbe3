"""`tallystick backfill`."""

from __future__ import annotations

import asyncio
import sys
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import click

from ops.commands.keys import Duration

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from core.inbox.backfill import Fetched
    from core.settings import Settings

    Fetch = Callable[..., Awaitable[Fetched]]


_since = click.option(
    "--since", type=Duration(), default="3d", show_default=True, help="How far back: 12h, 3d, 4w."
)
_json = click.option("--json", "as_json", is_flag=True, help="Print a JSON object.")


@click.group()
def backfill() -> None:
    """Fetch events that a provider could not deliver, and take them in. A known event is not stored again."""


@backfill.command()
@_since
@_json
def stripe(*, since: timedelta, as_json: bool) -> None:
    """Ask Stripe, with STRIPE_SECRET_KEY, for the events that it could not deliver. It keeps them for 30 days.

    A worker applies them afterwards. With that key set, a worker asks once an hour by itself.

    \b
    Example:
      tallystick backfill stripe --since 12h
    """  # noqa: D301 - `\b` is how click is told not to wrap
    from core.inbox.backfill import backfill_stripe

    _fetch(backfill_stripe, since, as_json=as_json)


@backfill.command()
@_since
@_json
def paypal(*, since: timedelta, as_json: bool) -> None:
    """Ask PayPal, with PAYPAL_CLIENT_ID and PAYPAL_CLIENT_SECRET, for its events, delivered or not.

    A worker applies them afterwards. With these set, a worker asks once an hour by itself.

    \b
    Example:
      tallystick backfill paypal --since 3d
    """  # noqa: D301 - `\b` is how click is told not to wrap
    from core.inbox.backfill import backfill_paypal

    _fetch(backfill_paypal, since, as_json=as_json)


def _fetch(fetch: Fetch, since: timedelta, *, as_json: bool) -> None:
    from core.log import configure_logging
    from ops.state import operator_settings

    settings = operator_settings(log_level="warning")
    # Standard output is for the result.
    configure_logging(settings, sys.stderr.buffer)
    found = asyncio.run(_run(settings, fetch, datetime.now(UTC) - since))
    if as_json:
        import msgspec

        click.echo(msgspec.json.encode(found._asdict()))
    else:
        click.echo(f"{found.listed} listed, {found.new} of them new, {found.unreadable} unreadable.")


async def _run(settings: Settings, fetch: Fetch, since: datetime) -> Fetched:
    from core.inbox.intake import Intake
    from core.service import open_service
    from core.work.wakeup import Waker

    async with open_service(settings) as service:
        waker = Waker(service.redis, service.epoch)
        intake = Intake(service.database, waker)
        try:
            return await fetch(
                settings,
                intake,
                since,
                on_page=lambda found: click.echo(f"{found.listed} listed, {found.new} new", err=True),
            )
        finally:
            await intake.close()
            await waker.close()
