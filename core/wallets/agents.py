"""Cash agents: an administrator appoints and suspends them, and bounds what they take in and pay out.

A suspended agent completes no request that begins after the suspension; what was completed before stays. Each act is
one transaction with its audit record.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Final, NamedTuple
from uuid import UUID

from core.audit import audited, by_user, record
from core.database import queries
from core.errors import Refusal
from core.phones import spellings

if TYPE_CHECKING:
    from collections.abc import Mapping

    from core.database import Connection, Database, Row
    from core.platform import Platform
    from core.wallets.users import User

_sql = queries(__name__)

ACTIVE: Final = "active"
SUSPENDED: Final = "suspended"


class Bounds(NamedTuple):
    """Bounds of an agent in minor units, None for none.

    `request_max` bounds one cash request, `day_max` what leaves the agent's wallet on a UTC day when cash is taken in,
    `float_max` what the wallet holds after cash was paid out.
    """

    request_max: int | None = None
    day_max: int | None = None
    float_max: int | None = None


class Agent(NamedTuple):
    """An agent; the state is `active` or `suspended`."""

    user_id: UUID
    phone: str
    name: str | None
    state: str
    bounds: Bounds
    appointed_at: datetime


async def appoint(
    database: Database, user_id: UUID, changes: Mapping[str, int | None], *, actor: str
) -> Agent:
    """Make a user an agent, or end the suspension of one; `changes` are those bounds that shall change.

    Raises Refusal `user_not_found`.
    """
    return await _change(database, user_id, ACTIVE, changes, "agents.appoint", {}, actor)


async def suspend(database: Database, user_id: UUID, *, reason: str, actor: str) -> Agent:
    """Suspend an agent. Raises Refusal `user_not_found`, `agent_not_found` for a user who never was one."""
    return await _change(database, user_id, SUSPENDED, {}, "agents.suspend", {"reason": reason}, actor)


async def set_bounds(
    database: Database, user_id: UUID, changes: Mapping[str, int | None], *, actor: str
) -> Agent:
    """Change the bounds of an agent in any state. Raises Refusal `user_not_found`, `agent_not_found`."""
    return await _change(database, user_id, None, changes, "agents.limits", {}, actor)


async def list_agents(
    database: Database, *, after: UUID, limit: int, state: str | None = None
) -> list[Agent]:
    """Return up to `limit` agents behind the user id `after`, oldest user first."""
    rows = await database.fetch(_sql.agents, after, limit, state)
    return [_agent(row) for row in rows]


async def user_of_phone(database: Database, phone: str) -> UUID:
    """Return the id of the user of a phone in any spelling. Raises Refusal `user_not_found`."""
    found: UUID | None = await database.fetchval(_sql.user_of_phone, [*spellings(phone)])
    if found is None:
        raise Refusal("user_not_found", "There is no such user.")
    return found


async def become_agent(platform: Platform, user: User) -> None:
    """Make the caller an agent. Raises Refusal `not_allowed` outside development, and for a suspended agent."""
    if platform.settings.env != "dev":
        raise Refusal("not_allowed", "Agents are appointed by an administrator.")
    if user.is_agent:
        return
    async with platform.database.transaction() as connection:
        row = await connection.fetchrow(_sql.lock_agent, user.id)
        if row is not None and row["state"] == SUSPENDED:
            raise Refusal("not_allowed", "This agent was suspended.")
        await _put(connection, user.id, ACTIVE, Bounds())
        await record(connection, audited("cash.become_agent", by_user(user.id), {}, user_id=user.id))


async def _change(
    database: Database,
    user_id: UUID,
    state: str | None,
    changes: Mapping[str, int | None],
    act: str,
    why: Mapping[str, str],
    actor: str,
) -> Agent:
    async with database.transaction() as connection:
        row = await connection.fetchrow(_sql.lock_agent, user_id)
        if row is None:
            raise Refusal("user_not_found", "There is no such user.")
        if row["state"] is None and state != ACTIVE:
            raise Refusal("agent_not_found", "This user is no agent.")
        before = _told(row["state"], _bounds(row))
        bounds = _bounds(row)._replace(**changes)
        wanted = state or row["state"]
        after = _told(wanted, bounds)
        appointed_at = row["appointed_at"]
        if before != after:
            appointed_at = await _put(connection, user_id, wanted, bounds)
            data = {"before": before, "after": after, **why}
            await record(connection, audited(act, actor, data, user_id=user_id, object_id=str(user_id)))
    return Agent(user_id, row["phone"], row["name"], wanted, bounds, appointed_at)


async def _put(connection: Connection, user_id: UUID, state: str, bounds: Bounds) -> datetime:
    await connection.execute(_sql.set_is_agent, user_id, state == ACTIVE)
    appointed_at: datetime = await connection.fetchval(_sql.put_agent, user_id, state, *bounds)
    return appointed_at


def _bounds(row: Row) -> Bounds:
    return Bounds(row["request_max"], row["day_max"], row["float_max"])


def _told(state: str | None, bounds: Bounds) -> dict[str, str | int | None]:
    return {"state": state, **bounds._asdict()}


def _agent(row: Row) -> Agent:
    return Agent(row["user_id"], row["phone"], row["name"], row["state"], _bounds(row), row["appointed_at"])
