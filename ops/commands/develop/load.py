"""`tallystick load`: the Locust suite against a running service."""

from __future__ import annotations

import os
import sys

import click

from ops.commands.develop.target import find_target, options


@click.command(context_settings={"ignore_unknown_options": True})
@options
@click.option(
    "--users", type=click.IntRange(min=1), default=50, show_default=True, help="Clients at the same time."
)
@click.option(
    "--seconds", type=click.IntRange(min=1), default=30, show_default=True, help="Length of the run."
)
@click.argument("locust_arguments", nargs=-1, type=click.UNPROCESSED)
def load(
    *,
    url: str | None,
    token: str | None,
    stripe_secret: str | None,
    users: int,
    seconds: int,
    locust_arguments: tuple[str, ...],
) -> None:
    """Load a running service with transfers and signed Stripe events, and hold it to loadtests/budgets.toml.

    Exits with 1 when a budget is breached. Other options go to Locust. The events are signed with the secret of the
    `tallystick up` that runs here; for a service elsewhere, set STRIPE_SIGNING_SECRET to its own.

    \b
    Examples:
      tallystick load --users 100 --seconds 60
      tallystick load --url https://pay.example.com --token tsk_... --stripe-secret whsec_...
    """  # noqa: D301 - `\b` is how click is told not to wrap
    from ops.process import PROJECT, python_environment

    target = find_target(url, token, stripe_secret)
    # The secrets go into the environment, because everybody on the machine can read a command line.
    environment = python_environment(
        TALLYSTICK_TOKEN=target.token, STRIPE_SIGNING_SECRET=target.stripe_secret
    )
    command = [
        sys.executable,
        "-m",
        "locust",
        "-f",
        str(PROJECT / "loadtests" / "locustfile.py"),
        "--headless",
    ]
    command += [
        "--only-summary",
        "--host",
        target.url,
        "-u",
        str(users),
        "-r",
        str(users),
        "-t",
        f"{seconds}s",
    ]
    sys.stdout.flush()
    # Locust replaces the sockets of its process, so it gets a process of its own.
    os.execve(command[0], [*command, *locust_arguments], environment)  # noqa: S606 - no shell is the point
