"""`tallystick chaos`: faults under load, and the accounts afterwards."""

from __future__ import annotations

from pathlib import Path

import click

# So many events have to come between two faults.
EVENTS_A_KILL = 20
FULL_KILLS, SMALL_KILLS = 1_000, 50


@click.command()
@click.option("--seed", type=int, default=12, show_default=True, help="What everything is drawn from.")
@click.option(
    "--kills",
    type=click.IntRange(1, 10_000),
    help="How often something is killed: 1,000, and 50 with --events or --payments. Other faults come on top.",
)
@click.option("--step", type=click.IntRange(1), default=1, help="Begin with this step of the seed's script.")
@click.option("--seconds", type=click.FloatRange(1), help="Begin no further step after so long.")
@click.option("--events", type=click.IntRange(10, 10_000_000), help="Instead: so many events alone.")
@click.option(
    "--rate",
    type=click.FloatRange(1, 10_000),
    default=200,
    show_default=True,
    help="With --events: new ones a second.",
)
@click.option(
    "--payments",
    type=click.IntRange(10, 100_000),
    help="Instead: so many payments alone, through a provider that loses answers and events.",
)
@click.option("--untold", is_flag=True, help="With --payments: no event of the provider ever comes.")
@click.option(
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Where the JSON goes; loadtests/results/<date>-<commit>-chaos-full-<seed>.json.",
)
def chaos(  # noqa: PLR0913 - an option each
    *,
    seed: int,
    kills: int | None,
    step: int,
    seconds: float | None,
    events: int | None,
    rate: float,
    payments: int | None,
    untold: bool,
    output: Path | None,
) -> None:
    """Kill, cut, fill, move and wipe the parts of a service under load; exit with 1 if anything was lost or doubled.

    Starts PostgreSQL, Valkey, the API, two workers, two tills, a provider and a receiver in a state folder of its own,
    and lets signed events, transfers, holds and payments flow through them, each repeated until it is answered.
    Processes are killed; links to PostgreSQL, Valkey, the receiver and the provider lose, cut and delay; the database's
    disk fills up and its clock is moved. At the end every acknowledged write must be in the ledger exactly once, every
    event delivered under one id, every payment stand as at the provider, and the books verified. The seed fixes the
    faults and their order; the state that they meet differs from run to run. In full it takes about 40 minutes.
    docs/chaos.md says how to read the report.

    Ctrl-C or SIGTERM ends a full run after the step at hand, with audit and report; a second one stops it at once.

    With --events or --payments only one of the loads flows, and only processes are killed and paused.

    \b
    Examples:
      tallystick chaos
      tallystick chaos --seed 7 --kills 50
      tallystick chaos --events 2000 --kills 10
      tallystick chaos --payments 2000 --kills 30
    """  # noqa: D301 - `\b` is how click is told not to wrap
    from loadtests.chaos.command import main, pay
    from loadtests.chaos.full.command import main as full
    from loadtests.chaos.full.plan import Plan as FullPlan
    from loadtests.chaos.payments.buyers import Plan

    if payments is not None:
        pay(Plan(seed=seed, payments=payments, kills=kills or SMALL_KILLS, told=not untold), output)
        return
    if events is None:
        full(FullPlan(seed=seed, kills=kills or FULL_KILLS, first_step=step, seconds=seconds), output)
        return
    kills = kills or SMALL_KILLS
    if events < EVENTS_A_KILL * kills:
        raise click.UsageError(
            f"give at least {EVENTS_A_KILL} events a kill: without a stream nothing can go wrong"
        )
    main(seed=seed, events=events, kills=kills, rate=rate, output=output)
