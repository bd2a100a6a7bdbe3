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
    "--payments",
    type=click.IntRange(10, 100_000),
    help="Instead of events: so many payments through a provider that loses answers and events.",
)
@click.option("--untold", is_flag=True, help="With --payments: no event of the provider ever comes.")
@click.option(
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Where the JSON goes; loadtests/results/<date>-<commit>-chaos-<seed>.json.",
)
def chaos(
    *,
    seed: int,
    events: int,
    kills: int,
    rate: float,
    payments: int | None,
    untold: bool,
    output: Path | None,
) -> None:
    """Kill, pause, restart and wipe the parts of a service under load; exit with 1 if anything was lost or doubled.

    Starts PostgreSQL, Valkey, the API, two workers and a receiver in a state folder of its own, and streams signed
    Stripe events through them, each sent until it is acknowledged, some of them twice or again later. At the end
    every acknowledged event must be in the ledger exactly once, every emitted event delivered under one id, and the
    ledger verified. The seed fixes the faults, their order and the events; the state that they meet differs from run to
    run. In full it takes about ten minutes. docs/webhooks.md says how to read the report.

    With --payments, tills create payments at the simulator while they, the API, the workers and the servers are killed.
    The simulator loses a fifth of its answers after the charge, and doubles, drops and shuffles its events. At the end
    every payment must stand as in its book, and the ledger agree with it to the unit.

    \b
    Examples:
      tallystick chaos
      tallystick chaos --payments 2000 --kills 30
      tallystick chaos --seed 7 --events 2000 --kills 10
    """  # noqa: D301 - `\b` is how click is told not to wrap
    from loadtests.chaos.command import main, pay
    from loadtests.chaos.payments.buyers import Plan

    if payments is not None:
        pay(Plan(seed=seed, payments=payments, kills=kills, told=not untold), output)
        return
    if events < EVENTS_A_KILL * kills:
        raise click.UsageError(
            f"give at least {EVENTS_A_KILL} events a kill: without a stream nothing can go wrong"
        )
    main(seed=seed, events=events, kills=kills, rate=rate, output=output)
