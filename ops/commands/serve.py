"""`tallystick serve`."""

from __future__ import annotations

from typing import Any

import click


@click.command()
@click.option(
    "--workers", type=click.IntRange(1, 256), help="Processes that share the port.  [default: SERVE_WORKERS]"
)
@click.option(
    "--worker", is_flag=True, hidden=True
)  # the service before took it everywhere, and ignored it here
def serve(*, workers: int | None, worker: bool) -> None:  # noqa: ARG001 - see above
    """Serve the HTTP API on APP_HOST and APP_PORT until SIGTERM or Ctrl-C.

    Outside of prod, without APP_PORT, a busy 8080 moves on to the first free port of 8065 to 8099.

    Every process is replaced if it dies or hangs. SIGHUP replaces them one by one, with the settings and the code as
    they are then, and no request fails meanwhile. At the end, requests in progress have SHUTDOWN_TIMEOUT_SECS to end.

    \b
    Examples:
      DATABASE_URL=postgresql://... REDIS_URL=redis://... tallystick serve --workers 4
      APP_HOST=127.0.0.1 APP_PORT=9000 tallystick serve
    """  # noqa: D301 - `\b` is how click is told not to wrap
    from ops.serving import serve_api
    from ops.state import operator_settings

    overrides: dict[str, Any] = {} if workers is None else {"serve_workers": workers}
    serve_api(operator_settings(**overrides))
