"""`tallystick simulator`."""

from __future__ import annotations

import click

# The port of the old services' simulator.
PORT = 8002


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Where it listens.")
@click.option("--port", default=PORT, show_default=True, type=click.IntRange(1, 65535), help="Its port.")
def simulator(*, host: str, port: int) -> None:
    """Run a payment provider that charges nobody and fails as it is told to, until Ctrl-C.

    SIMULATOR_URL is its address for the service; its webhooks go to SIMULATOR_WEBHOOK_URL, signed with
    SIMULATOR_WEBHOOK_SECRET. An order's metadata.simulate names faults; PUT /faults sets them for a share of all calls.

    \b
    Examples:
      tallystick simulator
      curl -X PUT http://127.0.0.1:8002/faults -d '{"rules": [{"fault": "create:timeout", "share": 0.2}]}'
    """  # noqa: D301 - `\b` is how click is told not to wrap
    from aiohttp import web

    from core.settings import load_settings
    from handlers.simulator.site import Simulator

    settings = load_settings()
    if settings.env == "prod":
        raise click.UsageError("the simulator takes no money, so ENV=prod does not run it")
    click.echo(f"The simulator listens on http://{host}:{port}")
    web.run_app(Simulator.of(settings).application(), host=host, port=port, print=None)
