"""`tallystick demo`."""

from __future__ import annotations

import asyncio

import click

from ops.commands.develop.target import find_target, options


@click.command()
@options
@click.option(
    "--payments", type=click.IntRange(2, 50), default=6, show_default=True, help="How many payments."
)
def demo(*, url: str | None, token: str | None, stripe_secret: str | None, payments: int) -> None:
    """Show an event's way: from a signed webhook through the ledger to a verified delivery.

    The command plays both neighbours of a running service: Stripe, which sends signed events, some of them twice and
    one forged; and a merchant's server on this machine, which checks the signature of every delivery. The exit code is
    1 when an answer, a delivery or a balance is wrong. A service on another machine cannot reach the receiver.

    \b
    Examples:
      tallystick up          in one terminal, and in another:
      tallystick demo
    """  # noqa: D301 - `\b` is how click is told not to wrap
    from ops.demo import Target, run_demo

    found = find_target(url, token, stripe_secret)
    if not asyncio.run(run_demo(Target(*found), payments=payments)):
        raise click.exceptions.Exit(1)
