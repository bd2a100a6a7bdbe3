"""`tallystick bench`: the side-by-side benchmark."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from loadtests.bench.plan import GROUPS

FOLDER = click.Path(file_okay=False, path_type=Path)
FILE = click.Path(dir_okay=False, path_type=Path)


def connection_numbers(
    _context: click.Context, _parameter: click.Parameter, value: str | None
) -> tuple[int, ...] | None:
    """Read "64,256": each at least 1 and at most 1,000, the descriptors that a process may usually have open."""
    if value is None:
        return None
    numbers = tuple(int(part) if part.strip().isdecimal() else 0 for part in value.split(","))
    if not all(1 <= number <= 1000 for number in numbers):
        raise click.BadParameter("give whole numbers from 1 to 1000, separated by commas")
    return numbers


@click.command(
    "bench", epilog="Groups: " + "; ".join(f"{name}: {text}" for name, text in GROUPS.items()) + "."
)
@click.option(
    "--quick", is_flag=True, help="A minute on small ledgers: shows that it works, says nothing of speed."
)
@click.option(
    "--only", multiple=True, type=click.Choice(list(GROUPS)), metavar="GROUP", help="Only this; repeatable."
)
@click.option("--seconds", type=click.IntRange(1, 3600), help="Length of each measurement; 10, quick 2.")
@click.option("--rounds", type=click.IntRange(1, 100), help="How often each is taken, in turns; 3, quick 1.")
@click.option(
    "--connections", callback=connection_numbers, metavar="N,...", help="Of the single transfers; 64,256."
)
@click.option("--entries", type=click.IntRange(min=2), help="Entries of the large ledger; 10 million.")
@click.option(
    "--backlog", type=click.IntRange(min=10), help="Events that the pipeline works off at once; 10,000."
)
@click.option(
    "--events", type=click.IntRange(min=1), help="Events that the grown database is filled with; 1 million."
)
@click.option(
    "--memory-seconds", type=click.IntRange(min=2), help="Length of the run that watches the memory; 600."
)
@click.option("--client", type=click.Choice(["wrk", "raw"]), help="The load client; wrk where it is on PATH.")
@click.option(
    "--keep", type=FOLDER, help="Keep the filled ledgers in this folder, and use them if they are there."
)
@click.option("--output", type=FILE, help="Where the JSON goes; loadtests/results/<date>-<commit>.json.")
@click.option("--check", is_flag=True, help="Exit with 1 when a target is missed or was not measured.")
def bench(**options: Any) -> None:
    """Measure Tallystick beside the floors it stands on, in one run on this machine.

    Starts PostgreSQL (fsync and synchronous_commit on), Valkey, the API and the worker in a state folder of its own. In
    full it takes more than an hour and 15 GB of disk. Nothing else should run meanwhile; the report tells the load of
    the rest of the machine. docs/benchmarks.md says what is measured and how to read the report.

    \b
    Examples:
      tallystick bench --quick
      tallystick bench --only singles --seconds 20 --keep /var/tmp/bench
    """  # noqa: D301 - `\b` is how click is told not to wrap
    from loadtests.bench.command import main

    main(**options)
