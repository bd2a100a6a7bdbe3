"""`tallystick demo`."""

from __future__ import annotations

import asyncio

import click


@click.command()
@click.option("--url", help="Where the service is.  [default: the one that `tallystick up` runs here]")
@click.option("--api-key", envvar="TALLYSTICK_API_KEY", help="A key with all scopes.  [default: that one's]")
@click.option(
    "--stripe-secret",
    help="What the service checks Stripe's signatures with.  [default: STRIPE_SIGNING_SECRET, or that one's]",
)
@click.option(
    "--payments", type=click.IntRange(2, 50), default=6, show_default=True, help="How many payments."
)
def demo(*, url: str | None, api_key: str | None, stripe_secret: str | None, payments: int) -> None:
    """Show an event's way: from a signed webhook over the ledger to a verified delivery.

    Plays both neighbours of a running service: Stripe, which sends signed events, some of them twice and one forged;
    and a merchant's server on this machine, which checks the signature of every delivery. Exits with 1 when an answer,
    a delivery or a balance is not what it should be. A service on another machine cannot reach the receiver.

    \b
    Examples:
      tallystick up          in one terminal, and in another:
      tallystick demo
    """  # noqa: D301 - `\b` is how click is told not to wrap
    from core.settings import load_settings
    from ops.demo import Target, run_demo
    from ops.state import find_running, state_dir

    settings = load_settings()
    running = find_running(state_dir(settings))
    url = url or (running.url if running else None)
    api_key = api_key or (running.api_key if running else None)
    if not url or not api_key:
        raise click.UsageError("no `tallystick up` runs here: start that first, or give --url and --api-key")
    configured = next(iter(settings.stripe_signing_secrets), "")
    secret = stripe_secret or str(configured) or (running.stripe_signing_secret if running else "")
    if not secret:
        raise click.UsageError("the service's STRIPE_SIGNING_SECRET is not known: give --stripe-secret")
    if not asyncio.run(run_demo(Target(url.rstrip("/"), api_key, secret), payments=payments)):
        raise click.exceptions.Exit(1)
