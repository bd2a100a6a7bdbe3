"""`tallystick worker`."""

from __future__ import annotations

import click


@click.command()
def worker() -> None:
    """Process what is due: events from the inbox, deliveries to receivers, expiring holds, the ledger's sealing.

    Any number of workers share the work, on any machine. A worker runs until SIGTERM or Ctrl-C and then finishes the
    work in hand, within SHUTDOWN_TIMEOUT_SECS.

    \b
    Example:
      DATABASE_URL=postgresql://... REDIS_URL=redis://... tallystick worker
    """  # noqa: D301 - `\b` is how click is told not to wrap
    from core import tracing
    from core.log import configure_logging
    from jobs.worker import run
    from ops.state import operator_settings

    settings = operator_settings()
    configure_logging(settings)
    tracing.start(settings, "worker")
    try:
        run(settings)
    finally:
        tracing.stop()
