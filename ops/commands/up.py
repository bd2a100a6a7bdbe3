"""`tallystick up`."""

from __future__ import annotations

from typing import Any

import click


@click.command()
@click.option("--workers", type=click.IntRange(1, 256), help="API processes.  [default: SERVE_WORKERS]")
@click.option("--verbose", "-v", is_flag=True, help="Show the logs of all parts here, too.")
def up(*, workers: int | None, verbose: bool) -> None:
    """Run everything on this machine, from nothing: PostgreSQL, Redis, migrations, API and worker.

    The servers are embedded ones, unless DATABASE_URL or REDIS_URL name others. Data, logs and the development key stay
    in STATE_DIR, so that the next start goes on where this one ended. Ctrl-C stops everything. The API listens on
    127.0.0.1 unless APP_HOST says otherwise; without APP_PORT it takes 8080 or, where that is busy, the first free port
    of 8065 to 8099. Outside of production a simulator of a payment provider runs beside it, unless SIMULATOR_URL names
    one.

    \b
    Examples:
      tallystick up
      APP_PORT=9000 STATE_DIR=/tmp/trial tallystick up --verbose
    """  # noqa: D301 - `\b` is how click is told not to wrap
    from core.settings import load_settings
    from ops.up import run_everything

    overrides: dict[str, Any] = {} if workers is None else {"serve_workers": workers}
    run_everything(load_settings(**overrides), verbose=verbose)
