"""`tallystick payments`: how a payment through a provider stands, and everything that has happened to it; reports."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import UUID

import click

from ops.commands.database import with_database
from ops.commands.payments.jobs import expire, reconcile
from ops.commands.payments.reports import match, settle
from ops.commands.payments.words import list_, refunds, resolve
from ops.commands.printing import print_json, printable

if TYPE_CHECKING:
    from core.database import Database
    from core.outbox.callbacks import Dispatch, Standing
    from core.payments.payments import Payment, Step


@click.group()
def payments() -> None:
    """Look at payments through providers, say what only a person knows, ask providers, read their reports.

    The commands work on the database at DATABASE_URL, or else on that of the `tallystick up` that runs here.
    """


for command in (list_, refunds, resolve, reconcile, expire, match, settle):
    payments.add_command(command)


@payments.command()
@click.argument("payment", type=click.UUID)
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")
def show(payment: UUID, *, as_json: bool) -> None:
    """Tell how PAYMENT, an id, stands: its attempts, and its timeline with the money that each step has moved.

    \b
    Example:
      tallystick payments show 01a22930-bac5-7480-925e-18318d9cd8c9
    """  # noqa: D301 - `\b` is how click is told not to wrap
    from core.outbox.callbacks import dispatches_of, standings_of
    from core.payments.payments import find, timeline

    async def read(database: Database) -> tuple[Payment, list[Step], Standing, list[Dispatch]]:
        known = await find(database, payment)
        name = str(payment)
        standing = (await standings_of(database, known.surface, [name]))[name]
        sent = await dispatches_of(database, known.surface, name)
        return known, await timeline(database, payment), standing, sent

    found, steps, standing, sent = with_database(read)
    if as_json:
        print_json(
            _as_json(found, steps)
            | {"callback": standing._asdict(), "callbacks": [_dispatch(one) for one in sent]}
        )
    else:
        _print(found, steps)
        _print_callbacks(standing, sent)


def _dispatch(sent: Dispatch) -> dict[str, Any]:
    """Return an attempt at a callback without its body, which shows what the payment does."""
    return {
        name: value for name, value in sent._asdict().items() if name not in {"body", "is_last", "is_over"}
    }


def _print_callbacks(standing: Standing, sent: list[Dispatch]) -> None:
    word = {1: "pending", 10: "success", 20: "failed"}.get(standing.state)
    if word is None:
        return
    error = f": {printable(standing.last_error)}" if standing.last_error else ""
    click.echo(f"  callback    {word} after {standing.attempts} attempts{error}")
    for one in sent:
        told = printable(one.error) if one.error else f"status {one.status}"
        click.echo(f"       {one.at:%Y-%m-%d %H:%M:%S}  {one.kind} {one.number}: {told}")


def _as_json(payment: Payment, steps: list[Step]) -> dict[str, Any]:
    """Return what is shown: neither the customer nor the phone, which are personal data."""
    from core.payments.telling import shown

    return {
        **shown(payment),
        "surface": payment.surface,
        "caller": payment.caller,
        "wish": payment.wish,
        "created_at": payment.created_at,
        "updated_at": payment.updated_at,
        "attempts": [
            {
                "id": one.id,
                "provider": one.provider,
                "provider_id": one.provider_id,
                "state": one.state,
                **{name: value for name, value in one.facts._asdict().items() if name != "state"},
                "word": one.word,
                "error": one.error,
                "looks": one.looks,
                "next_look_at": one.next_look_at,
            }
            for one in payment.attempts
        ],
        "timeline": [step._asdict() for step in steps],
    }


def _print(payment: Payment, steps: list[Step]) -> None:
    told = payment.details
    click.echo(f"{payment.id}  {payment.state}{f', to be given up ({payment.wish})' if payment.wish else ''}")
    click.echo(
        f"  asked       {_money(payment.amount, payment.scale)} {payment.currency} for {printable(told.title)!r}"
        f" ({printable(told.reference)}) by {payment.surface} {printable(payment.caller)},"
        f" {printable(payment.request_id)}"
    )
    click.echo(
        f"  money       paid {_money(payment.paid, payment.scale)}, refunded"
        f" {_money(payment.refunded, payment.scale)}, disputed {_money(payment.disputed, payment.scale)}"
        f" -> {printable(payment.account or 'collected')}"
    )
    for one in payment.attempts:
        error = f": {printable(one.error)}" if one.error else ""
        click.echo(
            f"  attempt {one.number}   {one.provider} {printable(one.provider_id or '?')} {one.state}{error}"
        )
    for step in steps:
        click.echo(
            f"  {step.no:>3}  {step.recorded_at:%Y-%m-%d %H:%M:%S}  {step.state:<11}{step.kind} by {step.actor}"
        )
        for name in ("error", "note", "reason"):
            if name in step.data:
                click.echo(f"       {name}: {printable(step.data[name])}")
        for posting in step.data.get("postings", ()):
            pairs = ", ".join(posting.get("pairs", [f"to the suspense account: {posting.get('suspended')}"]))
            click.echo(f"       {posting['kind']}  {pairs}")


def _money(amount: int, scale: int) -> str:
    """Write an amount of units of 10 ** -`scale` with all its digits."""
    sign, digits = "-" if amount < 0 else "", f"{abs(amount):0{scale + 1}}"
    return f"{sign}{digits[: len(digits) - scale]}{'.' * bool(scale)}{digits[len(digits) - scale :]}"
