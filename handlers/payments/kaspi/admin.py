"""Administration of the Kaspi contract: configs of shops, the audit log, and the two routes of a site's own client."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import asyncpg
import msgspec

from core import migrations
from core.errors import Refusal
from core.payments.kaspi import log
from core.payments.kaspi.log import LogFilter, NewRow
from handlers.http.admin_token import ACTOR
from handlers.http.conditions import reader
from handlers.http.route import Call, Route, answer, table
from handlers.payments.kaspi.bodies import (
    KaspiConfigChanges,
    KaspiConfigIn,
    KaspiLogIn,
    KaspiLogQuery,
    KaspiShopQuery,
    Shop,
)
from handlers.payments.kaspi.payments import configs_of

if TYPE_CHECKING:
    from datetime import datetime

    from aiohttp import web

    from core.payments.kaspi.configs import Config
    from core.payments.kaspi.log import LogRow

# The actor of a change that came from a trusted network.
TRUSTED: Final = "trusted_network"


class KaspiConfigOut(msgspec.Struct, frozen=True):
    """A config of a shop; times are UTC, and say no offset, as the contract has them.

    `device_token` is that of the shop's device at the bank, `is_active` says whether the shop may be paid, `provider`
    is a label.
    """

    shop_id: int
    organization_bin: str
    device_token: str | None
    is_active: bool
    provider: str
    id: int
    created_at: str
    updated_at: str


class KaspiShopConfigOut(msgspec.Struct, frozen=True):
    """A config of a shop as its site sees it, without secrets. `is_active` says whether the shop may be paid."""

    shop_id: int
    organization_bin: str
    is_active: bool
    provider: str
    """A label."""


class KaspiLogOut(msgspec.Struct, frozen=True):
    """A row of the audit log.

    `amount` is in hundredths of a tenge. `status` is the bank's word, `success` or `error`. `external_id` is the
    payment's. `provider` is a label. Times are UTC, and say no offset.
    """

    shop_id: int
    organization_bin: str
    operation_type: str
    external_id: str | None
    amount: int | None
    status: str | None
    error_message: str | None
    provider: str
    id: int
    created_at: str


class KaspiMessage(msgspec.Struct, frozen=True):
    """A sentence about something that was done."""

    message: str
    """The sentence."""


async def list_configs(call: Call) -> web.Response:
    """List the configs of all shops, those that are not active included."""
    return answer(200, [_config(one) for one in await configs_of(call).all()])


async def show_config(call: Call) -> web.Response:
    """Show the config of a shop, active or not."""
    return answer(200, _config(await configs_of(call).of(call.path("shop_id"))))


async def show_config_by_bin(call: Call) -> web.Response:
    """Show the config of an organization: of several shops the lowest that is active."""
    return answer(200, _config(await configs_of(call).by_bin(call.path("organization_bin"))))


async def add_config(call: Call) -> web.Response:
    """Add the config of a shop."""
    body: KaspiConfigIn = call.body
    config = await configs_of(call).add(
        body.shop_id,
        body.organization_bin,
        body.device_token,
        is_active=body.is_active,
        provider=body.provider,
        actor=_actor(call),
    )
    return answer(200, _config(config))


async def change_config(call: Call) -> web.Response:
    """Change the config of a shop; the fields that are left out stay as they are."""
    body: KaspiConfigChanges = call.body
    changes: dict[str, Any] = {name: getattr(body, name) for name in body.model_fields_set}
    return answer(200, _config(await configs_of(call).change(call.path("shop_id"), changes, _actor(call))))


async def deactivate_config(call: Call) -> web.Response:
    """Let a shop be paid no more. Its config stays, and so do its payments."""
    shop_id: int = call.path("shop_id")
    await configs_of(call).change(shop_id, {"is_active": False}, _actor(call))
    return answer(200, KaspiMessage(f"Config deactivated for shop_id={shop_id}"))


async def list_log(call: Call) -> web.Response:
    """List the audit log, newest first: 1,000 rows at most, whatever `limit` says."""
    query: KaspiLogQuery = call.query
    wanted = LogFilter(query.shop_id or None, query.operation_type or None)
    rows = await log.listed(reader(call, "report"), wanted, limit=query.limit, skip=query.skip)
    return answer(200, [_row(row) for row in rows])


async def check_schema(call: Call) -> web.Response:
    """Tell whether the database's schema is up to date. `tallystick migrate` brings it there."""
    try:
        left = await migrations.pending(str(call.service.settings.database_url))
    except (Refusal, OSError, asyncpg.PostgresError) as error:
        raise _not_migrated(f"{type(error).__name__}.") from None
    if left:
        raise _not_migrated(f"{len(left)} files are not applied; run `tallystick migrate`.")
    return answer(200, KaspiMessage("Migrations executed successfully"))


async def show_shop_config(call: Call) -> web.Response:
    """Show a shop's config to its site, without the device token."""
    query: KaspiShopQuery = call.query
    config = await configs_of(call).of(query.shop_id)
    return answer(
        200, KaspiShopConfigOut(config.shop_id, config.organization_bin, config.is_active, config.provider)
    )


async def add_log_row(call: Call) -> web.Response:
    """Take a row for the audit log from a site."""
    body: KaspiLogIn = call.body
    organization = body.organization_bin
    if organization is None:
        config = await configs_of(call).find(body.shop_id)
        organization = config.organization_bin if config else ""
    row = NewRow(
        body.shop_id,
        organization,
        body.operation_type,
        body.external_id,
        body.amount,
        body.status,
        body.error_message,
        body.provider,
    )
    return answer(200, _row(await log.add(call.service.database, row)))


def _actor(call: Call) -> str:
    return ACTOR if call.parts.administrators.includes(call.request) else TRUSTED


def _not_migrated(reason: str) -> Refusal:
    return Refusal("kaspi_migration_failed", f"Migration failed: {reason}")


def _config(config: Config) -> KaspiConfigOut:
    return KaspiConfigOut(
        config.shop_id,
        config.organization_bin,
        config.device_token,
        config.is_active,
        config.provider,
        config.id,
        _naive(config.created_at),
        _naive(config.updated_at),
    )


def _row(row: LogRow) -> KaspiLogOut:
    return KaspiLogOut(*row[:-1], _naive(row.created_at))


def _naive(moment: datetime) -> str:
    """Return a UTC time without its offset, as the contract writes it."""
    return moment.replace(tzinfo=None).isoformat()


ADMIN = table(
    Route(
        "GET", "/admin/configs", list_configs, "kaspi_list_configs", "Configs of all shops",
        answers={200: list[KaspiConfigOut]},
    ),
    Route(
        "GET", "/admin/configs/{shop_id}", show_config, "kaspi_get_config", "The config of a shop",
        answers={200: KaspiConfigOut}, problems=("kaspi_config_missing",),
    ),
    Route(
        "GET", "/admin/configs/by-bin/{organization_bin}", show_config_by_bin, "kaspi_get_config_by_bin",
        "The config of an organization",
        answers={200: KaspiConfigOut}, problems=("kaspi_config_missing", "kaspi_config_inactive"),
    ),
    Route(
        "POST", "/admin/configs", add_config, "kaspi_add_config", "Add the config of a shop",
        body=KaspiConfigIn, answers={200: KaspiConfigOut}, problems=("kaspi_config_exists",),
        example={"shop_id": 7, "organization_bin": "123456789012", "device_token": "2d7f2f3e-device"},
    ),
    Route(
        "PUT", "/admin/configs/{shop_id}", change_config, "kaspi_change_config", "Change the config of a shop",
        body=KaspiConfigChanges, answers={200: KaspiConfigOut}, problems=("kaspi_config_missing",),
        example={"is_active": False},
    ),
    Route(
        "DELETE", "/admin/configs/{shop_id}", deactivate_config, "kaspi_deactivate_config",
        "Let a shop be paid no more",
        answers={200: KaspiMessage}, problems=("kaspi_config_missing",),
    ),
    Route(
        "GET", "/admin/logs", list_log, "kaspi_list_log", "The audit log of Kaspi payments",
        query=KaspiLogQuery, answers={200: list[KaspiLogOut]},
    ),
    Route(
        "POST", "/admin/migrate", check_schema, "kaspi_check_schema", "Whether the schema is up to date",
        answers={200: KaspiMessage}, problems=("kaspi_migration_failed",),
    ),
    tag="kaspi", admin=True, trusting=True, parameters={"shop_id": Shop},
)  # fmt: skip
SITE = table(
    Route(
        "GET", "/api/payment/config", show_shop_config, "kaspi_get_shop_config", "A shop's config for its site",
        scope="kaspi:read", query=KaspiShopQuery, answers={200: KaspiShopConfigOut}, problems=("kaspi_config_missing",),
    ),
    Route(
        "POST", "/api/payment/log", add_log_row, "kaspi_add_log_row", "A row of a site's own for the audit log",
        scope="kaspi:write", body=KaspiLogIn, answers={200: KaspiLogOut},
        example={"shop_id": 7, "operation_type": "callback", "external_id": "15401211", "status": "Processed"},
    ),
    tag="kaspi",
)  # fmt: skip
