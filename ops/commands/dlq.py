"""`tallystick dlq`."""

from __future__ import annotations

import asyncio
import getpass
import sys
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import UUID

import click

from ops.commands.database import with_database
from ops.commands.keys import Duration
from ops.commands.printing import cell, console, print_json
from ops.commands.texts import Text

if TYPE_CHECKING:
    from collections.abc import Callable

    from core.database import Database
    from core.inbox.dead_letters import DeadLetter, Filter, Letter
    from core.inbox.replays import LetterReplay

Command = TypeVar("Command", bound="Callable[..., Any]")

# A replay is looked at this often. After STILL_SECONDS without progress a line says that no worker seems to run.
LOOK_SECONDS = 0.5
STILL_SECONDS = 10.0
# One list has at most so many letters.
MOST_LETTERS = 10_000


def _filters(command: Command) -> Command:
    for option in reversed(
        [
            click.option("--provider", help="Only letters of this provider."),
            click.option("--type", "event_type", help="Only letters of this type of event."),
            click.option("--reason", help="Only letters that were given up for this reason, a code."),
            click.option(
                "--since", type=Duration(), help="Only what was received within this time: 30m, 12h, 7d."
            ),
            click.option("--until", type=Duration(), help="Only what was received longer ago than this."),
        ]
    ):
        command = option(command)
    return command


@click.group()
def dlq() -> None:
    """Look at dead letters, replay or discard them. A dead letter is an event that was received and given up.

    The commands work on the database at DATABASE_URL, or else on that of the `tallystick up` that runs here.
    """


@dlq.command(name="list")
@_filters
@click.option(
    "--limit", type=click.IntRange(1, MOST_LETTERS), default=100, show_default=True, help="At most so many."
)
@click.option("--json", "as_json", is_flag=True, help="Print a JSON array instead of a table.")
def list_(*, limit: int, as_json: bool, **given: Any) -> None:
    """List dead letters, the newest first.

    \b
    Examples:
      tallystick dlq list
      tallystick dlq list --reason account_not_found --since 12h --json
    """  # noqa: D301 - `\b` is how click is told not to wrap
    from core.inbox import dead_letters

    wanted = _filter(**given)
    found = with_database(
        lambda database: dead_letters.list_page(database, wanted, before=dead_letters.NEWEST, limit=limit)
    )
    if as_json:
        print_json(found)
    else:
        _print_table(found)


@dlq.command()
@click.argument("letter", type=click.UUID)
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object.")
def show(letter: UUID, *, as_json: bool) -> None:
    """Show one letter: the reason, every attempt, the actions of people, and the payload.

    \b
    Example:
      tallystick dlq show 01938a5e-1c3b-7d42-9d6f-2f1f6c1f2a10
    """  # noqa: D301 - `\b` is how click is told not to wrap
    from core.inbox import dead_letters

    found = with_database(lambda database: dead_letters.find(database, letter))
    if as_json:
        print_json(found)
    else:
        _print_letter(found)


@dlq.command()
@click.argument("letter", type=click.UUID, required=False)
@_filters
@click.option("--all", "everything", is_flag=True, help="Every dead letter.")
@click.option(
    "--per-second", type=click.IntRange(1, 1_000), default=50, show_default=True, help="At most so many."
)
@click.option(
    "--wait/--no-wait", default=True, help="Follow a replay of many until it is done.  [default: wait]"
)
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object.")
def replay(
    letter: UUID | None, *, everything: bool, per_second: int, wait: bool, as_json: bool, **given: Any
) -> int:
    """Replay one letter, those that the filters choose, or all.

    A worker puts many letters back at a bounded rate. Interrupting this command does not stop the replay.

    \b
    Examples:
      tallystick dlq replay 01938a5e-1c3b-7d42-9d6f-2f1f6c1f2a10
      tallystick dlq replay --reason account_not_found --per-second 20
      tallystick dlq replay --all --no-wait
    """  # noqa: D301 - `\b` is how click is told not to wrap
    from core.inbox import dead_letters, replays
    from core.inbox.dead_letters import Filter

    wanted = _filter(**given)
    if sum((letter is not None, everything, wanted != Filter())) != 1:
        raise click.UsageError("Name one letter, or at least one filter, or --all.")
    if letter is not None:
        with_database(lambda database: dead_letters.replay(database, letter, actor=_actor()))
        _say({"id": letter, "state": "pending"}, f"{letter} is put back.", as_json=as_json)
        return 0

    async def run(database: Database) -> LetterReplay:
        begun = await replays.start(database, wanted, actor=_actor(), per_second=per_second)
        return await _follow(database, begun) if wait else begun

    ended = with_database(run)
    _say(
        ended,
        f"Replay {ended.id}: {ended.state}, {ended.replayed} of {ended.matched} put back.",
        as_json=as_json,
    )
    return 1 if ended.state == "stopped" else 0


@dlq.command()
@click.argument("letter", type=click.UUID)
@click.option(
    "--reason", type=Text(), required=True, help="Why it shall have no effect; kept for whoever asks."
)
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object.")
def discard(letter: UUID, *, reason: str, as_json: bool) -> None:
    """Discard one letter: the event is done without an effect.

    \b
    Example:
      tallystick dlq discard 01938a5e-1c3b-7d42-9d6f-2f1f6c1f2a10 --reason "a test of the provider"
    """  # noqa: D301 - `\b` is how click is told not to wrap
    from core.inbox import dead_letters

    with_database(lambda database: dead_letters.discard(database, letter, actor=_actor(), reason=reason))
    _say({"id": letter, "state": "discarded"}, f"{letter} is discarded.", as_json=as_json)


async def _follow(database: Database, replay: LetterReplay) -> LetterReplay:
    """Show a replay's progress on standard error until it has ended."""
    from rich.console import Console
    from rich.progress import Progress

    from core.inbox import replays

    console = Console(stderr=True)
    loop = asyncio.get_running_loop()
    moved_at = loop.time()
    with Progress(console=console, disable=not sys.stderr.isatty()) as bars:
        bar = bars.add_task("put back", total=replay.matched)
        while replay.state == "running":
            await asyncio.sleep(LOOK_SECONDS)
            before, replay = replay.replayed, await replays.find(database, replay.id)
            bars.update(bar, completed=replay.replayed)
            if replay.replayed != before:
                moved_at = loop.time()
            elif loop.time() - moved_at > STILL_SECONDS:
                console.print("It stands still: is a worker running? The replay goes on as soon as one is.")
                moved_at = loop.time()
    return replay


def _filter(
    provider: str | None,
    event_type: str | None,
    reason: str | None,
    since: timedelta | None,
    until: timedelta | None,
) -> Filter:
    from core.inbox.dead_letters import Filter

    now = datetime.now(UTC)
    return Filter(
        provider=provider,
        event_type=event_type,
        reason=reason,
        received_from=now - since if since else None,
        received_before=now - until if until else None,
    )


def _actor() -> str:
    try:
        return f"command line: {getpass.getuser()}"[:200]
    except (KeyError, OSError):  # a container's user may have no name
        return "command line"


def _say(value: Any, sentence: str, *, as_json: bool) -> None:
    if as_json:
        print_json(value)
    else:
        click.echo(sentence)


def _print_table(found: list[DeadLetter]) -> None:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD)
    for column in ("id", "provider", "event id", "type", "reason", "attempts", "received", "last error"):
        table.add_column(column.upper(), no_wrap=column == "id")
    for letter in found:
        table.add_row(
            str(letter.id),
            letter.provider,
            cell(letter.event_id),
            cell(letter.type),
            letter.reason,
            str(letter.attempts),
            f"{letter.received_at:%Y-%m-%d %H:%M:%S}",
            cell(letter.last_error or ""),
        )
    console().print(table)


def _print_letter(letter: Letter) -> None:
    click.echo(
        f"{letter.provider} {letter.event_id} ({letter.type}), received {letter.received_at:%Y-%m-%d %H:%M:%S} UTC"
    )
    click.echo(f"given up {letter.dead_at:%Y-%m-%d %H:%M:%S} UTC: {letter.reason}")
    for failure in reversed(letter.failures):
        click.echo(f"  attempt {failure.attempt}, {failure.failed_at:%Y-%m-%d %H:%M:%S}: {failure.error}")
    for action in reversed(letter.actions):
        because = f": {action.reason}" if action.reason else ""
        click.echo(f"  {action.action} {action.done_at:%Y-%m-%d %H:%M:%S} by {action.actor}{because}")
    # Anybody may have written the payload, so it must not speak to the terminal.
    click.echo(
        "".join(mark if mark.isprintable() or mark in "\n\t" else repr(mark)[1:-1] for mark in letter.payload)
    )
