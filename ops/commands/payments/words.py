"""`tallystick payments list`, `refunds` and `resolve`: what waits for a person, and the person's word on it."""

from __future__ import annotations

import asyncio
import sys
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, TypeVar
from uuid import UUID

import click

from ops.commands.database import with_database
from ops.commands.keys import Duration
from ops.commands.printing import print_json, printable
from ops.commands.texts import Text

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from core.payments.flow import Payments

Result = TypeVar("Result")

# The states and the words as `core.payments` has them; `--help` imports nothing of it.
STATES = (
    "created",
    "pending",
    "processing",
    "unknown",
    "paid",
    "mismatched",
    "failed",
    "canceled",
    "expired",
)
WORDS = ("paid", "failed", "canceled", "expired", "accepted", "returned", "refunded")
ON_REFUNDS = {"done": True, "failed": False, "refunded": None}

_before = click.option(
    "--before", type=click.UUID, help="Only those before this id, which the last page ended with."
)
_limit = click.option("--limit", type=click.IntRange(1, 1000), default=50, show_default=True)
_json = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")


@click.command(name="list")
@click.option("--state", "states", type=click.Choice(STATES), multiple=True, help="Only those in this state.")
@click.option("--surface", help="Only those of this surface: orders, kaspi, orchestration, ...")
@click.option("--older-than", type=Duration(), help="Only those made longer ago than 30m, 12h, 90d, 8w.")
@_before
@_limit
@_json
def list_(
    states: tuple[str, ...],
    surface: str | None,
    older_than: timedelta | None,
    before: UUID | None,
    *,
    limit: int,
    as_json: bool,
) -> None:
    """List payments, newest first.

    Those that wait for a person are `unknown` for long, or `mismatched`; `tallystick payments resolve` says what became
    of them. A payment is unknown while one of its attempts is, and then the age is that attempt's: the alert
    PaymentsUnknown counts the same.

    \b
    Examples:
      tallystick payments list --state unknown --older-than 1h
      tallystick payments list --state mismatched --json
    """  # noqa: D301 - `\b` is how click is told not to wrap
    from core.payments.resolving import list_payments

    until = None if older_than is None else datetime.now(UTC) - older_than
    found = with_database(
        lambda database: list_payments(
            database, states=states or None, surface=surface, until=until, before=before, limit=limit
        )
    )
    if as_json:
        print_json([one._asdict() for one in found])
        return
    for one in found:
        amounts = f"{one.amount} {one.currency} (scale {one.scale}), paid {one.paid}, refunded {one.refunded}"
        key = f"{one.surface} {printable(one.caller)} {printable(one.request_id)}"
        click.echo(f"{one.id}  {one.created_at:%Y-%m-%d %H:%M:%S}  {one.state:<11}{amounts}  {key}")


@click.command()
@_before
@_limit
@_json
def refunds(before: UUID | None, *, limit: int, as_json: bool) -> None:
    """List refunds that wait for a person, newest first.

    Nobody knows the end of those that are `unknown`. Those that have `failed` were to give back money that came by card
    for a code that could not be paid any more.

    \b
    Example:
      tallystick payments refunds --json
    """  # noqa: D301 - `\b` is how click is told not to wrap
    from core.payments.resolving import list_refunds

    found = with_database(lambda database: list_refunds(database, before=before, limit=limit))
    if as_json:
        print_json([one._asdict() for one in found])
        return
    for one in found:
        click.echo(
            f"{one.id}  {one.created_at:%Y-%m-%d %H:%M:%S}  {one.state:<9}{one.amount} of payment {one.payment_id}"
            f"  {printable(one.request_id)}  {printable(one.error or '')}"
        )


@click.command()
@click.argument("payment_id", type=click.UUID)
@click.option("--as", "word", type=click.Choice((*WORDS, "done")), required=True, help="What became of it.")
@click.option("--by", type=Text(), required=True, help="Your name, which the timeline and the audit keep.")
@click.option(
    "--reason", type=Text(), required=True, help="How you know it: a ticket, a line of a bank statement."
)
@click.option("--attempt", type=click.IntRange(1), help="The number of the attempt, where several fit.")
@click.option(
    "--amount", type=click.IntRange(1), help="With paid: what has come, if it is not what was asked for."
)
@click.option("--provider-id", help="With paid: the payment's id at the provider.")
@click.option(
    "--refund",
    "refund_id",
    help="The request id of a refund: the word, done, failed or refunded, is about that.",
)
@_json
def resolve(  # noqa: PLR0913 - the options of a command
    payment_id: UUID,
    word: str,
    by: str,
    reason: str,
    attempt: int | None,
    amount: int | None,
    provider_id: str | None,
    refund_id: str | None,
    *,
    as_json: bool,
) -> None:
    """Say what became of PAYMENT_ID, where nobody else knows.

    \b
    An attempt that is unknown:
      paid, failed, canceled, expired   what the provider's own pages, or a bank statement, say
    Money in suspense (mismatched, or more than was asked for):
      accepted   the merchant gets it, as if it had been asked for
      refunded   the provider is asked to give it back
      returned   it was given back by hand, at the provider
    A refund that is unknown, with --refund:
      done, failed
    A refund of money that came by card for a code, and that has failed, with --refund:
      refunded   the provider is asked again

    The word goes the way of everything that is seen: state, postings, events, callbacks and timeline change in one
    transaction, with your name and reason. A provider that tells something else later is believed as ever.

    \b
    Examples:
      tallystick payments resolve 01a22930-... --as failed --by "Ann Lee" --reason "not in the bank's list, OPS-17"
      tallystick payments resolve 01a22930-... --as accepted --by "Ann Lee" --reason "the merchant agrees, OPS-18"
      tallystick payments resolve 01a22930-... --refund r-7 --as done --by "Ann Lee" --reason "statement of May 3"
    """  # noqa: D301 - `\b` is how click is told not to wrap
    from core.payments.resolving import Said, Word, ask_again, resolve_refund
    from core.payments.resolving import resolve as say
    from core.payments.telling import shown

    if (refund_id is None and word == "done") or (refund_id is not None and word not in ON_REFUNDS):
        raise click.UsageError("--refund takes --as done, failed or refunded, and done is about a refund.")
    if word != "paid" and (amount or provider_id):
        raise click.UsageError("--amount and --provider-id say what was paid: they go with --as paid.")
    if refund_id is not None:
        done = ON_REFUNDS[word]
        refund = _with_payments(
            lambda payments: (
                ask_again(payments, payment_id, refund_id, by, reason)
                if done is None
                else resolve_refund(payments, payment_id, refund_id, by, reason, done=done)
            )
        )
        if as_json:
            print_json(refund._asdict())
        else:
            click.echo(f"The refund {printable(refund.request_id)} is {refund.state}.")
        return
    said = Said(Word(word), by, reason, attempt, amount, provider_id)
    payment = _with_payments(lambda payments: say(payments, payment_id, said))
    if as_json:
        print_json(shown(payment))
        return
    left = sum(max(0, one.facts.on_suspense) for one in payment.attempts)
    rest = f" {left} lie in suspense; `tallystick payments show` tells why." if left else ""
    click.echo(f"The payment is {payment.state}, paid {payment.paid}, refunded {payment.refunded}.{rest}")


def _with_payments(work: Callable[[Payments], Awaitable[Result]]) -> Result:
    """Do `work` with the payments of the service that the settings name or that runs here."""
    from core.log import configure_logging
    from core.payments.router import open_engine
    from core.platform import open_platform
    from core.service import open_service
    from ops.state import operator_settings

    settings = operator_settings(log_level="warning")
    configure_logging(settings, sys.stderr.buffer)

    async def run() -> Result:
        async with (
            open_service(settings) as service,
            open_platform(service) as platform,
            open_engine(service, platform.waker) as payments,
        ):
            return await work(payments)

    return asyncio.run(run())
