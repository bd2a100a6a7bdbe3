"""`tallystick orders`: the merchants whose orders are paid through providers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from ops.commands.database import with_database
from ops.commands.printing import cell, console, print_json

if TYPE_CHECKING:
    from core.payments.orders.operating import Merchant


@click.group()
def orders() -> None:
    """Look at merchants of orders, give them keys and addresses.

    The commands work on the database at DATABASE_URL, as its owner, or else on that of the `tallystick up` that runs
    here. `tallystick seed merchant` makes a merchant to try with.
    """


@orders.command(name="list")
@click.option("--after", type=click.IntRange(0), default=0, help="Begin behind the merchant of this number.")
@click.option(
    "--limit", type=click.IntRange(1, 1_000), default=100, show_default=True, help="How many merchants."
)
@click.option("--json", "as_json", is_flag=True, help="Print a JSON array instead of a table.")
def list_(after: int, limit: int, *, as_json: bool) -> None:
    """List merchants with their subscriptions and the tokens that are left.

    \b
    Example:
      tallystick orders list --json
    """  # noqa: D301 - `\b` is how click is told not to wrap
    from core.payments.orders.operating import merchants

    found = with_database(lambda database: merchants(database, after, limit))
    if as_json:
        print_json([one._asdict() for one in found])
    else:
        _print_table(found)


@orders.command()
@click.argument("merchant", type=click.IntRange(1))
@click.option("--only", is_flag=True, help="End all other keys of the merchant.")
def key(merchant: int, *, only: bool) -> None:
    """Give MERCHANT, a number, another API key and print it, this once.

    \b
    Example:
      KEY=$(tallystick orders key 1 --only)
    """  # noqa: D301 - `\b` is how click is told not to wrap
    from core.payments.orders.operating import new_key

    made = with_database(lambda database: new_key(database, merchant, only=only))
    click.echo("Keep the key now: it is not shown again.", err=True)
    click.echo(made)


@orders.command()
@click.argument("merchant", type=click.IntRange(1))
@click.argument("url", required=False)
def address(merchant: int, url: str | None) -> None:
    """Let notifications for MERCHANT, a number, go to URL; without a URL to MERCHANT_CALLBACK_URL.

    \b
    Example:
      tallystick orders address 1 https://shop.example/payments
    """  # noqa: D301 - `\b` is how click is told not to wrap
    from core.payments.orders.operating import set_address

    with_database(lambda database: set_address(database, merchant, url))
    click.echo(f"Merchant {merchant} is told at {url or 'MERCHANT_CALLBACK_URL'}.")


def _print_table(found: list[Merchant]) -> None:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD)
    for column in ("MERCHANT", "NAME", "STATE", "PLAN", "TOKENS LEFT", "ADDRESS"):
        table.add_column(column)
    for one in found:
        table.add_row(
            str(one.merchant_id),
            cell(one.name),
            "active" if one.active else "inactive",
            "" if one.subscription_id is None else f"{one.subscription_id} {cell(one.plan or '')}",
            "" if one.tokens_left is None else str(one.tokens_left),
            cell(one.callback_url or ""),
        )
    console().print(table)
