"""Administration: settings of the run time, the audit, and all routes of the administrator."""

from __future__ import annotations

from typing import Annotated, Any
from uuid import UUID

import msgspec
import pydantic
from aiohttp import web

from core import audit
from core.audit import AuditFilter
from core.times import floored
from core.wallets.administration import ADMIN
from core.wallets.config import MAX_BASIS_POINTS, MAX_RATE, PlatformConfig, in_force
from handlers.http.conditions import reader
from handlers.http.route import Call, Route, answer, table
from handlers.wallets import refunds
from handlers.wallets.admin import agents, endpoints, people
from handlers.wallets.contract import Body, Phone, platform_of, timestamp

TAG = "administration"
MAX_AUDIT_EVENTS = 200

BasisPoints = Annotated[int, pydantic.Field(ge=0, le=MAX_BASIS_POINTS)]
Rate = Annotated[int, pydantic.Field(ge=0, le=MAX_RATE)]
# A moment needs its time zone, since the server does not guess one.
# A time as text, or as Unix seconds; pydantic would round the latter up.
Moment = Annotated[
    pydantic.AwareDatetime,
    pydantic.BeforeValidator(lambda text: floored(text) if isinstance(text, str) else text),
]


class FeesIn(Body):
    """Fees in basis points, and the user who gets them. An absent field stays as it is."""

    merchant_fee_bps: BasisPoints | None = None
    cashin_fee_bps: BasisPoints | None = None
    cashout_fee_bps: BasisPoints | None = None
    fee_wallet_phone: Phone | None = None


class FeesOut(msgspec.Struct, frozen=True):
    """The fees in force, in basis points."""

    merchant_fee_bps: int
    cashin_fee_bps: int
    cashout_fee_bps: int
    fee_wallet_phone: str


class RatesIn(Body):
    """Rate limits. 0 takes an override away, an absent field stays as it is."""

    per_minute: Rate | None = None
    auth_boost: Annotated[int, pydantic.Field(ge=0, le=1_000)] | None = None
    exempt_otp: bool | None = None


class RatesOut(msgspec.Struct, frozen=True):
    """The overrides in force. 0: no override, the setting of the same name holds."""

    per_minute: int
    auth_boost: int
    exempt_otp: str


class OverrideOut(msgspec.Struct, frozen=True):
    """A value that somebody has set at run time."""

    name: str
    value: int | str | bool
    updated_by: str
    updated_at: str


class InForceOut(msgspec.Struct, frozen=True):
    """A value that holds; `source` is `administrator`, or the name of the setting that it comes from."""

    name: str
    value: int | str | bool
    source: str


class ConfigOut(msgspec.Struct, frozen=True):
    """All values that can be set at run time as they hold, their sources, and those that were set.

    An override of 0 stands for the setting, so `rate_limit` shows the setting's value then.
    """

    fees: FeesOut
    rate_limit: RatesOut
    overrides: list[OverrideOut]
    in_force: list[InForceOut]


class AuditQuery(Body):
    """The filters of a list of records; `before` continues a list behind the id of its last record."""

    type: Annotated[str, pydantic.Field(min_length=1, max_length=100)] | None = None
    user: UUID | None = None
    actor: Annotated[str, pydantic.Field(min_length=1, max_length=200)] | None = None
    object: Annotated[str, pydantic.Field(min_length=1, max_length=255)] | None = None
    since: Moment | None = None
    until: Moment | None = None
    before: UUID | None = None
    limit: Annotated[int, pydantic.Field(ge=1, le=MAX_AUDIT_EVENTS)] = 50


class AuditOut(msgspec.Struct, frozen=True):
    """An audit record: `actor` did `type` to the user and the object."""

    id: str
    type: str
    actor: str
    user_id: str | None
    object_id: str | None
    data: dict[str, Any]
    created_at: str


class AuditPage(msgspec.Struct, frozen=True):
    """Records, newest first; `next` continues the list as `before`, null at its end."""

    items: list[AuditOut]
    next: str | None


async def get_config(call: Call) -> web.Response:
    """Show the values in force, and those that somebody has set."""
    platform = platform_of(call)
    found = await platform.config.overrides()
    holds = in_force(platform.settings, found)
    config = PlatformConfig(**{one.name: one.value for one in holds})
    overrides = [OverrideOut(one.name, one.value, one.updated_by, timestamp(one.updated_at)) for one in found]
    shown = [InForceOut(*one) for one in holds]
    return answer(200, ConfigOut(_fees(config), _rates(config), overrides, shown))


async def get_fees(call: Call) -> web.Response:
    """Show the fees in force."""
    config = platform_of(call).config
    await config.refresh()
    return answer(200, _fees(config.current))


async def set_fees(call: Call) -> web.Response:
    """Set fees for all processes."""
    body: FeesIn = call.body
    platform = platform_of(call)
    if body.fee_wallet_phone is not None:
        await platform.check_fee_wallet(body.fee_wallet_phone)
    changes = body.model_dump(exclude_none=True)
    return answer(200, _fees(await platform.config.change(changes, actor=ADMIN)))


async def set_rates(call: Call) -> web.Response:
    """Set rate limits for all processes."""
    body: RatesIn = call.body
    changes = {f"rate_limit_{name}": value for name, value in body.model_dump(exclude_none=True).items()}
    return answer(200, _rates(await platform_of(call).config.change(changes, actor=ADMIN)))


async def list_audit(call: Call) -> web.Response:
    """List audit records."""
    query: AuditQuery = call.query
    wanted = AuditFilter(query.type, query.user, query.actor, query.object, query.since, query.until)
    found = await audit.list_events(
        reader(call, "report"), wanted, before=query.before, limit=query.limit + 1
    )
    items = [
        AuditOut(
            str(event.id),
            event.type,
            event.actor,
            None if event.user_id is None else str(event.user_id),
            event.object_id,
            event.data,
            timestamp(event.created_at),
        )
        for event in found[: query.limit]
    ]
    return answer(200, AuditPage(items, items[-1].id if len(found) > query.limit else None))


def _fees(config: PlatformConfig) -> FeesOut:
    return FeesOut(
        config.merchant_fee_bps, config.cashin_fee_bps, config.cashout_fee_bps, config.fee_wallet_phone
    )


def _rates(config: PlatformConfig) -> RatesOut:
    return RatesOut(
        config.rate_limit_per_minute,
        config.rate_limit_auth_boost,
        "true" if config.rate_limit_exempt_otp else "false",
    )


ROUTES = (
    *table(
        Route(
            "GET", "/admin/config", get_config, "admin_get_config", "Show the settings of the run time",
            answers={200: ConfigOut},
        ),
        Route("GET", "/admin/config/fees", get_fees, "admin_get_fees", "Show the fees", answers={200: FeesOut}),
        Route(
            "POST", "/admin/config/fees", set_fees, "admin_set_fees", "Set the fees",
            body=FeesIn, answers={200: FeesOut},
            description="Kept in PostgreSQL, in force in every process within a second, and audited.",
        ),
        Route(
            "POST", "/admin/config/rate_limit", set_rates, "admin_set_rate_limit", "Set the rate limits",
            body=RatesIn, answers={200: RatesOut},
            description="Kept in PostgreSQL, in force in every process within a second, and audited.",
        ),
        Route(
            "GET", "/admin/audit", list_audit, "admin_list_audit", "List audit records",
            query=AuditQuery, answers={200: AuditPage},
        ),
        tag=TAG, caller="admin",
    ),
    *people.ROUTES,
    *agents.ROUTES,
    *refunds.ADMIN_ROUTES,
    *endpoints.ROUTES,
)  # fmt: skip
