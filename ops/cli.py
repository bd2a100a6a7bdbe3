"""The command line `tallystick`. Subcommands are imported when they are run, so that `--help` is quick."""

from __future__ import annotations

import importlib
import os
import sys

import click

from ops.commands.table import COMMANDS, GROUPS

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
        for title, group in GROUPS.items():
            with formatter.section(title):
                formatter.write_dl([(name, about) for name, (_, about) in group.items()])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command that is named, or refuse with the nearest names, which click cannot know of."""
        try:
            return super().resolve_command(ctx, args)
        except click.NoSuchCommand as missing:
            known = self.list_commands(ctx)
            raise click.NoSuchCommand(missing.command_name, possibilities=known, ctx=ctx) from None


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option("--debug", is_flag=True, help="Show where in the program a failure came from.")
@click.option("--worker", is_flag=True, hidden=True)  # the service before took it in front of its jobs, too
@click.pass_context
def cli(context: click.Context, *, debug: bool, worker: bool) -> None:  # noqa: ARG001 - `main` reads `debug`
    """Tallystick: a durable double-entry ledger, a webhook inbox and an outbox, as one service.

    \b
    Start here:
      tallystick up                    everything, on this machine
      tallystick listen                each event that comes in, live
      tallystick keys create --help    a key for a program of yours

    Settings come from the environment and from the file .env; .env.example lists them all.
    """  # noqa: D301 - `\b` is how click is told not to wrap
    context.obj = {"worker": worker}


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
    from ops.reach import schema_problem
    from ops.state import MissingServerError

    if isinstance(error, SettingsError | MissingServerError):
        return USAGE, str(error)
    if isinstance(error, Refusal):
        return FAILURE, error.detail
    if isinstance(error, StartError):
        return FAILURE, str(error)
    if isinstance(error, asyncpg.PostgresError):
        return FAILURE, schema_problem(error) or f"PostgreSQL answers: {error}."
    if isinstance(error, OSError):
        return FAILURE, f"{error.strerror or error}{f' ({error.filename})' if error.filename else ''}."
    return (
        FAILURE,
        f"unexpected {type(error).__name__}: {error}. `tallystick --debug ...` shows where it came from.",
    )


if __name__ == "__main__":
    sys.exit(main())
