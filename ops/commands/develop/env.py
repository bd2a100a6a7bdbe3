"""`tallystick env`."""

from __future__ import annotations

import shlex

import click


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object instead of lines for a shell.")
def env(*, as_json: bool) -> None:
    """Print TALLYSTICK_URL and TALLYSTICK_TOKEN of the `tallystick up` that runs here, for a shell to read.

    Every example, client and command asks these two where the service is and what to say to it: the address, and what
    follows `Bearer`, which is an API key or the token of somebody who has signed in.

    \b
    Example:
      eval "$(tallystick env)"
    """  # noqa: D301 - `\b` is how click is told not to wrap
    from core.settings import load_settings
    from ops.commands.printing import print_json
    from ops.state import MissingServerError, find_running, nobody_runs, state_dir

    folder = state_dir(load_settings())
    running = find_running(folder)
    if running is None:
        raise MissingServerError(nobody_runs(folder))
    told = {"TALLYSTICK_URL": running.url, "TALLYSTICK_TOKEN": running.api_key}
    if as_json:
        print_json(told)
        return
    for name, value in told.items():
        # In production no key is made for development, and an older one must not stay in its place.
        click.echo(f"export {name}={shlex.quote(value)}" if value else f"unset {name}")
