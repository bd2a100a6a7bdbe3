"""`tallystick chaos`: faults under load, and the accounts afterwards."""

from __future__ import annotations

from pathlib import Path

import click

# So many events have to come between two faults.
EVENTS_A_KILL = 20


@click.command()
@click.option("--seed", type=int, default=1, show_default=True, help="What everything is drawn from.")
@click.option(
    "--events", type=click.IntRange(10, 10_000_000), default=20_000, show_default=True, help="How many."
)
@click.option(
    "--kills",
    type=click.IntRange(1, 10_000),
    default=50,
    show_default=True,
    help="How often something is killed; half as many other faults come on top.",
)
@click.option(
    "--rate", type=click.FloatRange(1, 10_000), default=200, show_default=True, help="New events a second."
)
@click.option(
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Where the JSON goes; loadtests/results/<date>-<commit>-chaos-<seed>.json.",
)
def chaos(*, seed: int, events: int, kills: int, rate: float, output: Path | None) -> None:
    """Kill, pause, restart and wipe the parts of a service under load; exit with 1 if anything was lost or doubled.

    Starts PostgreSQL, Valkey, the API, two workers and a receiver in a state folder of its own, and streams signed
    Stripe events through them, each sent until it is acknowledged, some of them twice or again later. At the end
    every acknowledged event must be in the ledger exactly once, every emitted event delivered under one id, and the
    ledger verified. The seed fixes the faults, their order and the events; the state that they meet differs from run to
    run. In full it takes about ten minutes. docs/webhooks.md says how to read the report.

    \b
    Examples:
      tallystick chaos
      tallystick chaos --seed 7 --events 2000 --kills 10
    """  # noqa: D301 - `\b` is how click is told not to wrap
    from loadtests.chaos.command import main

    if events < EVENTS_A_KILL * kills:
        raise click.UsageError(
            f"give at least {EVENTS_A_KILL} events a kill: without a stream nothing can go wrong"
        )
    main(seed=seed, events=events, kills=kills, rate=rate, output=output)
