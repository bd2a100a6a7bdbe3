"""`tallystick agents`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import UUID

import click

from ops.commands.database import with_database
from ops.commands.printing import cell, console, print_json
from ops.commands.texts import Text

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from core.database import Database
    from core.wallets.agents import Agent

ACTOR = "admin"
# A list is read in pages of so many.
PAGE = 500


class Bound(click.ParamType[int]):
    """A bound in minor units, or `none`, which takes it away."""

    name = "minor units"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Read the text; 0 stands for none."""
        if value == "none":
            return 0
        text = str(value)
        if not text.isascii() or not text.isdigit() or not 0 < int(text) < 2**62:
            self.fail(
                f"{value!r} is neither a number of minor units above zero nor the word none.", param, ctx
            )
        return int(text)


def _bounds(command: Callable[..., Any]) -> Callable[..., Any]:
    for name, about in (
        ("--float-max", "The most that the agent's wallet holds after cash was paid out."),
        ("--day-max", "The most that leaves the agent's wallet on a UTC day when cash is taken in."),
        ("--request-max", "The most of one cash request."),
    ):
        command = click.option(name, type=Bound(), help=f"{about} `none` takes the bound away.")(command)
    return command


_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.group()
def agents() -> None:
    """Appoint, suspend, bound and list cash agents, each named by phone or by user id.

    The commands work on the database at DATABASE_URL, as its owner, or else on that of the `tallystick up` that runs
    here. Each act leaves an audit record.
    """


@agents.command()
@click.argument("user")
@_bounds
@_json
def appoint(user: str, *, as_json: bool, **bounds: int | None) -> None:
    """Make USER a cash agent, or end the suspension of one. Bounds that are not given stay as they are.

    \b
    Examples:
      tallystick agents appoint +963944123456
      tallystick agents appoint +963944123456 --request-max 5000000 --float-max 100000000
    """  # noqa: D301 - `\b` is how click is told not to wrap
    from core.wallets.agents import appoint as act

    _do(
        user, lambda database, user_id: act(database, user_id, _changes(bounds), actor=ACTOR), as_json=as_json
    )


@agents.command()
@click.argument("user")
@click.option("--reason", type=Text(), required=True, help="Why; it is kept in the audit.")
@_json
def suspend(user: str, *, reason: str, as_json: bool) -> None:
    """Suspend USER, who completes no further cash request.

    \b
    Example:
      tallystick agents suspend +963944123456 --reason "lost the till"
    """  # noqa: D301 - `\b` is how click is told not to wrap
    from core.wallets.agents import suspend as act

    _do(user, lambda database, user_id: act(database, user_id, reason=reason, actor=ACTOR), as_json=as_json)


@agents.command()
@click.argument("user")
@_bounds
@_json
def limits(user: str, *, as_json: bool, **bounds: int | None) -> None:
    """Change the bounds of USER.

    \b
    Example:
      tallystick agents limits +963944123456 --day-max 20000000 --float-max none
    """  # noqa: D301 - `\b` is how click is told not to wrap
    from core.wallets.agents import set_bounds

    changes = _changes(bounds)
    if not changes:
        raise click.UsageError("Name at least one bound.")
    _do(user, lambda database, user_id: set_bounds(database, user_id, changes, actor=ACTOR), as_json=as_json)


@agents.command(name="list")
@click.option("--state", type=click.Choice(["active", "suspended"]), help="Only agents in this state.")
@_json
def list_(state: str | None, *, as_json: bool) -> None:
    """List cash agents with their bounds in minor units.

    \b
    Examples:
      tallystick agents list
      tallystick agents list --state suspended --json
    """  # noqa: D301 - `\b` is how click is told not to wrap
    found = with_database(lambda database: _all(database, state))
    if as_json:
        print_json([_plain(agent) for agent in found])
    else:
        _print_table(found)


async def _all(database: Database, state: str | None) -> list[Agent]:
    from core.wallets.agents import list_agents

    found: list[Agent] = []
    after = UUID(int=0)
    while page := await list_agents(database, after=after, limit=PAGE, state=state):
        found += page
        after = page[-1].user_id
    return found


def _changes(bounds: dict[str, int | None]) -> dict[str, int | None]:
    """Return the bounds that were given; 0 takes one away."""
    return {name: value or None for name, value in bounds.items() if value is not None}


def _do(user: str, act: Callable[[Database, UUID], Awaitable[Agent]], *, as_json: bool) -> None:
    async def run(database: Database) -> Agent:
        from core.wallets.agents import user_of_phone

        try:
            user_id = UUID(user)
        except ValueError:
            user_id = await user_of_phone(database, user)
        return await act(database, user_id)

    agent = with_database(run)
    if as_json:
        print_json(_plain(agent))
    else:
        _print_table([agent])


def _plain(agent: Agent) -> dict[str, Any]:
    values = {**agent._asdict(), **agent.bounds._asdict()}
    del values["bounds"]
    return values


def _print_table(found: list[Agent]) -> None:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD)
    for column in ("user id", "phone", "name", "state", "request max", "day max", "float max", "appointed"):
        table.add_column(column.upper(), no_wrap=column in {"user id", "phone"})
    for agent in found:
        table.add_row(
            str(agent.user_id),
            cell(agent.phone),
            cell(agent.name or ""),
            agent.state,
            *("" if bound is None else f"{bound:,}" for bound in agent.bounds),
            f"{agent.appointed_at:%Y-%m-%d %H:%M}",
            style=None if agent.state == "active" else "dim",
        )
    console().print(table)
