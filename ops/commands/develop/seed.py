"""`tallystick seed`: data to try merchants' orders with."""

from __future__ import annotations

import click

from ops.commands.database import with_database
from ops.commands.printing import print_line
from ops.commands.texts import NAME_CHARACTERS, Text


@click.group(invoke_without_command=True)
@click.pass_context
def seed(context: click.Context) -> None:
    """Make the providers and plans of merchants' orders; what is there already stays as it is.

    The commands work on the database at DATABASE_URL, as its owner, or else on that of the `tallystick up` that runs
    here.

    \b
    Examples:
      tallystick seed
      tallystick seed merchant --tokens 100
    """  # noqa: D301 - `\b` is how click is told not to wrap
    if context.invoked_subcommand is None:
        from core.payments.orders.merchants import seed as make

        with_database(lambda database: make(database, _said))


@seed.command()
@click.option(
    "--name", type=Text(NAME_CHARACTERS), help="The merchant's name. [default: Merchant and its number]"
)
@click.option(
    "--tokens",
    type=click.IntRange(0, 2**62),
    help="Payments that the merchant may ask for. [default: those of the plan Basic]",
)
@click.option("--json", "as_json", is_flag=True, help="Print one line of JSON, and no progress.")
def merchant(name: str | None, tokens: int | None, *, as_json: bool) -> None:
    """Make a new merchant with an API key and a subscription, and print them, the key this once.

    Providers and plans are made if they are missing.

    \b
    Examples:
      tallystick seed merchant --tokens 100 --json
      KEY=$(tallystick seed merchant --json | jq -r .api_key)
    """  # noqa: D301 - `\b` is how click is told not to wrap
    from core.payments.orders.merchants import seed_merchant

    made = with_database(
        lambda database: seed_merchant(database, tokens, name, _nothing if as_json else _said)
    )
    if as_json:
        print_line(made._asdict())
        return
    click.echo("Keep the key now: it is not shown again.", err=True)
    for field, value in made._asdict().items():
        click.echo(f"{field:<16} {value}")


def _said(line: str) -> None:
    click.echo(line, err=True)


def _nothing(_line: str) -> None:
    return
