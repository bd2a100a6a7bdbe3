"""`tallystick load`: the Locust suites, held to their budgets."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ops.commands.develop.target import TOKEN_VARIABLES, URL_VARIABLES

if TYPE_CHECKING:
    from loadtests.runs.service import Service

FILE = click.Path(dir_okay=False, exists=True, path_type=Path)
FOLDER = click.Path(file_okay=False, path_type=Path)
# The names stand here too, so that help imports nothing; a test compares them.
SUITES = ("transfers", "wallets", "qr", "webhooks", "payments", "mixed")
ALL = "all"
NOBODY = "http://127.0.0.1:9/status"


@click.command(context_settings={"ignore_unknown_options": True})
@click.option(
    "--suite",
    "suites",
    multiple=True,
    type=click.Choice((*SUITES, ALL)),
    help="What is loaded; repeatable.  [default: mixed]",
)
@click.option(
    "--users", type=click.IntRange(1, 1000), help="Clients at once.  [default: 50; --step begins at 10]"
)
@click.option(
    "--seconds", type=click.IntRange(1, 86400), help="Length of the load.  [default: 30; of a step 10]"
)
@click.option(
    "--step", is_flag=True, help="Raise the users step by step to find the knee, and say what limits."
)
@click.option("--smoke", is_flag=True, help="3 users make each request once; only errors count.")
@click.option("--budgets", type=FILE, help="File of the budgets.  [default: loadtests/budgets.toml]")
@click.option("--output", type=FOLDER, help="Folder of the reports.  [default: build/load]")
@click.option(
    "--workers", type=click.IntRange(1, 256), default=1, help="API processes of the service that is started."
)
@click.option(
    "--url",
    "--host",
    "url",
    envvar=URL_VARIABLES[0],
    help="A service that runs.  [default: TALLYSTICK_URL, or one that is started for the run]",
)
@click.option("--token", "--api-key", "token", envvar=TOKEN_VARIABLES, help="Its key with all scopes.")
@click.option("--stripe-secret", help="Its secret of Stripe's signatures.  [default: STRIPE_SIGNING_SECRET]")
@click.option("--orders-key", envvar="TALLYSTICK_ORDERS_KEY", help="Its key of a merchant, for payments.")
@click.option("--service-key", envvar="TALLYSTICK_SERVICE_KEY", help="Its key of a service, for payments.")
@click.option("--service-name", default="load", show_default=True, help="The service that the key is of.")
@click.option(
    "--callback-url", help="Where it tells that service about payments.  [default: where nobody listens]"
)
@click.argument("locust_arguments", nargs=-1, type=click.UNPROCESSED)
def load(  # noqa: PLR0913 - the options of the command, by name
    *,
    suites: tuple[str, ...],
    users: int | None,
    seconds: int | None,
    step: bool,
    smoke: bool,
    budgets: Path | None,
    output: Path | None,
    workers: int,
    url: str | None,
    locust_arguments: tuple[str, ...],
    **keys: str | None,
) -> None:
    """Put a load on the service and hold it to the budgets of loadtests/budgets.toml.

    Without --url or TALLYSTICK_URL, a service of its own is started on a fresh state folder, and ended. Its data is
    made before the load begins. The end is a table of budgets against measurements, what the processors did, and
    reports as HTML, CSV and JSON; docs/load.md explains them. Other options go to Locust, behind --.

    Exit codes: 0 all budgets kept, 1 one breached, 2 the run itself failed.

    \b
    Examples:
      tallystick load --suite transfers --users 20
      tallystick load --suite qr --step
      tallystick load --suite all --smoke
      tallystick load --url https://pay.example.com --token tsk_... --stripe-secret whsec_...
    """  # noqa: D301 - `\b` is how click is told not to wrap
    if step and smoke:
        raise click.UsageError("--step looks for the knee and --smoke for errors: choose one.")
    from loadtests.runs import command

    chosen: dict[str, Any] = {"budgets": budgets, "folder": output}
    if url is not None:
        chosen["service"] = _service(url, **keys)
    plan = command.Plan(
        SUITES if ALL in suites else tuple(dict.fromkeys(suites)) or ("mixed",),
        users or (command.SMOKE_USERS if smoke else command.FIRST_STEP if step else command.USERS),
        seconds or (command.SMOKE_SECONDS if smoke else command.STEP_SECONDS if step else command.SECONDS),
        step=step,
        smoke=smoke,
        api_processes=workers,
        options=locust_arguments,
        **{name: value for name, value in chosen.items() if value is not None},
    )
    sys.stdout.flush()
    if code := command.main(plan):
        raise click.exceptions.Exit(code)


def _service(
    url: str,
    *,
    token: str | None,
    stripe_secret: str | None,
    orders_key: str | None,
    service_key: str | None,
    service_name: str | None,
    callback_url: str | None,
) -> Service:
    """Return a service that runs, with its database where it is the `tallystick up` that runs here."""
    from core.settings import load_settings
    from loadtests.runs.service import Service
    from ops.commands.develop.target import find_target, same_service
    from ops.state import find_running, state_dir

    target = find_target(url, token, stripe_secret)
    running = find_running(state_dir(load_settings()))
    here = running is not None and same_service(target.url, running.url)
    return Service(
        target.url,
        target.token,
        target.stripe_secret,
        running.database_url if here and running is not None else "",
        orders_key=orders_key or "",
        service_key=service_key or "",
        service=service_name or "",
        callback_url=callback_url or NOBODY,
    )
