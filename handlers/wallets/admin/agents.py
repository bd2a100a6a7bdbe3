"""Administration: cash agents, whom an administrator appoints, suspends and bounds."""

from __future__ import annotations

from typing import Annotated, Literal
from uuid import UUID

import msgspec
import pydantic
from aiohttp import web

from core.money import MAX_AMOUNT_MINOR
from core.wallets import agents
from core.wallets.administration import ADMIN
from core.wallets.agents import Agent
from handlers.http.route import Call, Route, answer, table
from handlers.wallets.admin.endpoints import TAG, Limit
from handlers.wallets.contract import Body, Phone, platform_of, timestamp

_FIRST = UUID(int=0)

Bound = Annotated[int, pydantic.Field(gt=0, le=MAX_AMOUNT_MINOR, strict=True)]
Reason = Annotated[str, pydantic.Field(min_length=1, max_length=500)]


class AgentsQuery(Body):
    """The state of the agents, and a part of their list; `after` continues it behind the user id of its last agent."""

    status: Literal["active", "suspended"] | None = None
    limit: Limit = 50
    after: UUID | None = None


class BoundsIn(Body):
    """Bounds in minor units. An absent field stays as it is, null takes the bound away."""

    request_max_cents: Bound | None = None
    day_max_cents: Bound | None = None
    float_max_cents: Bound | None = None

    @property
    def changes(self) -> dict[str, int | None]:
        """The bounds that were sent, null ones included."""
        return {
            name: getattr(self, f"{name}_cents")
            for name in agents.Bounds._fields
            if f"{name}_cents" in self.model_fields_set
        }


class AppointIn(BoundsIn):
    """An agent to appoint, by phone, with the bounds."""

    phone: Phone


class SuspendIn(Body):
    """Why."""

    reason: Reason


class AgentOut(msgspec.Struct, frozen=True):
    """An agent, `active` or `suspended`. A null bound stands for none."""

    user_id: str
    phone: str
    name: str | None
    status: str
    request_max_cents: int | None
    day_max_cents: int | None
    float_max_cents: int | None
    appointed_at: str


class AgentsOut(msgspec.Struct, frozen=True):
    """Agents; `next` continues the list as `after`, null at its end."""

    items: list[AgentOut]
    next: str | None


async def list_agents(call: Call) -> web.Response:
    """List cash agents."""
    query: AgentsQuery = call.query
    found = await agents.list_agents(
        platform_of(call).database, after=query.after or _FIRST, limit=query.limit + 1, state=query.status
    )
    items = [_shown(one) for one in found[: query.limit]]
    return answer(200, AgentsOut(items, items[-1].user_id if len(found) > query.limit else None))


async def appoint_by_phone(call: Call) -> web.Response:
    """Make the user of a phone a cash agent, or end the suspension of one."""
    body: AppointIn = call.body
    database = platform_of(call).database
    user_id = await agents.user_of_phone(database, body.phone)
    return answer(200, _shown(await agents.appoint(database, user_id, body.changes, actor=ADMIN)))


async def appoint(call: Call) -> web.Response:
    """Make a user a cash agent, or end the suspension of one."""
    body: BoundsIn = call.body
    database = platform_of(call).database
    return answer(
        200, _shown(await agents.appoint(database, call.path("user_id"), body.changes, actor=ADMIN))
    )


async def suspend(call: Call) -> web.Response:
    """Suspend a cash agent, who completes no further request."""
    body: SuspendIn = call.body
    found = await agents.suspend(
        platform_of(call).database, call.path("user_id"), reason=body.reason, actor=ADMIN
    )
    return answer(200, _shown(found))


async def set_bounds(call: Call) -> web.Response:
    """Change the bounds of a cash agent."""
    body: BoundsIn = call.body
    database = platform_of(call).database
    return answer(
        200, _shown(await agents.set_bounds(database, call.path("user_id"), body.changes, actor=ADMIN))
    )


def _shown(agent: Agent) -> AgentOut:
    return AgentOut(
        str(agent.user_id),
        agent.phone,
        agent.name,
        agent.state,
        *agent.bounds,
        timestamp(agent.appointed_at),
    )


_GONE = ("user_not_found", "agent_not_found")

ROUTES = table(
    Route(
        "GET", "/admin/agents", list_agents, "admin_list_agents", "List cash agents",
        query=AgentsQuery, answers={200: AgentsOut},
    ),
    Route(
        "POST", "/admin/agents", appoint_by_phone, "admin_appoint_agent_by_phone",
        "Make the user of a phone a cash agent", body=AppointIn, problems=("user_not_found",),
    ),
    Route(
        "POST", "/admin/agents/{user_id}/appoint", appoint, "admin_appoint_agent", "Make a user a cash agent",
        body=BoundsIn, problems=("user_not_found",),
    ),
    Route(
        "POST", "/admin/agents/{user_id}/suspend", suspend, "admin_suspend_agent", "Suspend a cash agent",
        body=SuspendIn, problems=_GONE,
    ),
    Route(
        "POST", "/admin/agents/{user_id}/limits", set_bounds, "admin_set_agent_limits",
        "Change the bounds of a cash agent", body=BoundsIn, problems=_GONE,
    ),
    tag=TAG, caller="admin", parameters={"user_id": UUID}, answers={200: AgentOut},
)  # fmt: skip
