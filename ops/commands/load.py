"""`tallystick load`: the Locust suite against a running service."""

from __future__ import annotations

import os
import sys

import click


@click.command(context_settings={"ignore_unknown_options": True})
@click.option("--url", help="Where the service is.  [default: the one that `tallystick up` runs here]")
@click.option("--api-key", envvar="TALLYSTICK_API_KEY", help="A key with all scopes.  [default: that one's]")
@click.option(
    "--users", type=click.IntRange(min=1), default=50, show_default=True, help="Clients at the same time."
)
@click.option(
    "--seconds", type=click.IntRange(min=1), default=30, show_default=True, help="Length of the run."
)
@click.argument("locust_arguments", nargs=-1, type=click.UNPROCESSED)
def load(
    *, url: str | None, api_key: str | None, users: int, seconds: int, locust_arguments: tuple[str, ...]
) -> None:
    """Load a running service with transfers and signed Stripe events, and hold it to loadtests/budgets.toml.

    Exits with 1 when a budget is breached. Other options go to Locust. The service must know the secret that the events
    are signed with: set STRIPE_SIGNING_SECRET for both.

    \b
    Examples:
      STRIPE_SIGNING_SECRET=whsec_demo tallystick up
      STRIPE_SIGNING_SECRET=whsec_demo tallystick load --users 100 --seconds 60
    """  # noqa: D301 - `\b` is how click is told not to wrap
    from core.settings import load_settings
    from ops.process import PROJECT, python_environment
    from ops.state import find_running, state_dir

    settings = load_settings()
    running = find_running(state_dir(settings))
    url = url or (running.url if running else None)
    api_key = api_key or (running.api_key if running else None)
    if not url or not api_key:
        raise click.UsageError("no `tallystick up` runs here: start that first, or give --url and --api-key")
    if not settings.stripe_signing_secrets:
        raise click.UsageError(
            "STRIPE_SIGNING_SECRET is unset: set it to the service's, so that events can be signed"
        )
    secret = settings.stripe_signing_secrets[0]
    # In the environment: what stands on a command line, everybody on the machine can read.
    environment = python_environment(TALLYSTICK_API_KEY=api_key, STRIPE_SIGNING_SECRET=str(secret))
    command = [
        sys.executable,
        "-m",
        "locust",
        "-f",
        str(PROJECT / "loadtests" / "locustfile.py"),
        "--headless",
    ]
    command += ["--only-summary", "--host", url, "-u", str(users), "-r", str(users), "-t", f"{seconds}s"]
    sys.stdout.flush()
    # Locust replaces the sockets of its process, so it gets one of its own.
    os.execve(command[0], [*command, *locust_arguments], environment)  # noqa: S606 - no shell is the point
