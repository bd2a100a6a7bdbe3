"""The command line `tallystick`. Subcommands are imported when they are run, so that `--help` is quick."""

from __future__ import annotations

import importlib
import os
import sys
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from collections.abc import Mapping

# The commands with a line each; the lines stand here so that the overview imports no command.
COMMANDS: Mapping[str, tuple[str, str]] = {
    "up": ("ops.commands.up:up", "Run everything on this machine: PostgreSQL, Redis, API and worker."),
    "serve": ("ops.commands.serve:serve", "Serve the HTTP API, in one process or several."),
    "worker": ("ops.commands.worker:worker", "Process events, deliveries and everything else that is due."),
    "migrate": ("ops.commands.migrate:migrate", "Bring the database's schema up to date."),
    "verify": ("ops.commands.verify:verify", "Check that the ledger's records agree with each other."),
    "reconcile": (
        "ops.commands.reconcile:reconcile",
        "Compare wallets' balances with their entries; correct them if asked.",
    ),
    "settlement": ("ops.commands.settlement:settlement", "Write the sales of each merchant as CSV."),
    "closing": ("ops.commands.settlement:closing", "Show and move the closed dates of currencies."),
    "keys": ("ops.commands.keys:keys", "Create, list and revoke API keys."),
    "sources": ("ops.commands.sources:sources", "Register sources of webhooks, change their secrets."),
    "deliveries": ("ops.commands.deliveries:deliveries", "Look at deliveries of webhooks, send them again."),
    "dlq": ("ops.commands.dlq:dlq", "Look at dead letters, replay or discard them."),
    "backfill": ("ops.commands.backfill:backfill", "Fetch events that a provider could not deliver."),
    "autopay": ("ops.commands.wallet_jobs:autopay", "Pay due invoices that a mandate covers."),
    "charge": ("ops.commands.wallet_jobs:charge", "Charge subscriptions that are due."),
    "expire": ("ops.commands.wallet_jobs:expire", "End payables whose time is over, give back holds."),
    "settle": ("ops.commands.wallet_jobs:settle", "Report the sales of the day before to merchants."),
    "retain": ("ops.commands.wallet_jobs:retain", "Remove audit records and sign-ins whose time is over."),
    "requeue": ("ops.commands.deliveries:requeue", "Make deliveries of webhooks due again, all at once."),
    "pos": ("ops.commands.pos:pos", "Be a till: show QR codes, wait for their payment, ask a customer."),
    "demo": ("ops.commands.demo:demo", "Show an event's way from a signed webhook to a verified delivery."),
    "chaos": (
        "ops.commands.chaos:chaos",
        "Kill and pause the parts of a service under load, then check the books.",
    ),
    "bench": ("ops.commands.bench:bench", "Measure the speed, beside the floors that bound it."),
    "load": ("ops.commands.load:load", "Load a running service and hold it to its latency budgets."),
    "version": ("ops.commands.version:version", "Show the version of this program."),
}

USAGE, FAILURE, INTERRUPTED = 2, 1, 130


class Commands(click.Group):
    """The group of all commands; it imports a command when it is run."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """Return the names of the commands in the order in which a newcomer meets them."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Import one command."""
        if cmd_name not in COMMANDS:
            return None
        module, attribute = COMMANDS[cmd_name][0].split(":")
        found = getattr(importlib.import_module(module), attribute)
        assert isinstance(found, click.Command)  # noqa: S101 - the table above is ours
        return found

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """Write the overview without importing anything."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, about) for name, (_, about) in COMMANDS.items()])


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option("--debug", is_flag=True, help="Show where in the program a failure came from.")
def cli(*, debug: bool) -> None:  # `main` reads it
    """Tallystick: a durable double-entry ledger, a webhook inbox and an outbox, as one service.

    \b
    Start here:
      tallystick up                    everything, on this machine
      tallystick keys create --help    a key for a program of yours

    Settings come from the environment and from the file .env; .env.example lists them all.
    """  # noqa: D301 - `\b` is how click is told not to wrap


def main() -> int:
    """Run the command line. Exit codes: 0 done, 1 failed, 2 wrong usage or settings, 130 interrupted."""
    try:
        return int(cli.main(prog_name="tallystick", standalone_mode=False) or 0)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        return INTERRUPTED
    except BrokenPipeError:  # `tallystick keys list | head` reads no further, which is no failure of ours
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILURE
    except Exception as error:
        if "--debug" in sys.argv[1:]:
            raise
        code, text = _explain(error)
        click.echo(f"tallystick: {text}", err=True)
        return code


def _explain(error: Exception) -> tuple[int, str]:
    """Return the exit code of a failure, and a sentence about it."""
    import asyncpg

    from core.errors import Refusal
    from core.settings import SettingsError
    from ops.process import StartError
    from ops.state import MissingServerError

    if isinstance(error, SettingsError | MissingServerError):
        return USAGE, str(error)
    if isinstance(error, Refusal):
        return FAILURE, error.detail
    if isinstance(error, StartError):
        return FAILURE, str(error)
    if isinstance(error, asyncpg.PostgresError):
        return FAILURE, f"PostgreSQL answers: {error}."
    if isinstance(error, OSError):
        return FAILURE, f"{error.strerror or error}{f' ({error.filename})' if error.filename else ''}."
    return (
        FAILURE,
        f"unexpected {type(error).__name__}: {error}. `tallystick --debug ...` shows where it came from.",
    )


if __name__ == "__main__":
    sys.exit(main())
