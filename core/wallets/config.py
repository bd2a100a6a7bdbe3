"""Settings that an administrator may change at run time. PostgreSQL keeps them; processes see them within a second.

The values of the environment hold until an administrator sets another. Audit records keep both values.
"""

from __future__ import annotations

import asyncio
import contextlib
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec
import structlog

from core import tasks
from core.audit import audited, record
from core.database import queries
from core.errors import Refusal
from core.phones import is_international

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from core.database import Connection, Database
    from core.settings import Settings

_sql = queries(__name__)
_log = structlog.get_logger(__name__)

REFRESH_SECONDS: Final = 0.5
MAX_BASIS_POINTS: Final = 10_000
MAX_RATE: Final = 1_000_000
# The settings that have another name than the value.
_SETTINGS: Final = {"rate_limit_exempt_otp": "rl_exempt_otp"}
ADMINISTRATOR: Final = "administrator"


class PlatformConfig(msgspec.Struct, frozen=True, kw_only=True):
    """The values in force. Fees are in basis points; `rate_limit_*` are 0 where the settings hold."""

    merchant_fee_bps: int
    cashin_fee_bps: int
    cashout_fee_bps: int
    fee_wallet_phone: str
    rate_limit_per_minute: int
    rate_limit_auth_boost: int
    rate_limit_exempt_otp: bool


def defaults(settings: Settings) -> PlatformConfig:
    """Return the values of the settings, which hold without an override."""
    return PlatformConfig(
        merchant_fee_bps=settings.merchant_fee_bps,
        cashin_fee_bps=settings.cashin_fee_bps,
        cashout_fee_bps=settings.cashout_fee_bps,
        fee_wallet_phone=settings.fee_wallet_phone,
        rate_limit_per_minute=settings.rl_limit_per_minute_override or 0,
        rate_limit_auth_boost=settings.rl_auth_boost_override or 0,
        rate_limit_exempt_otp=settings.rl_exempt_otp,
    )


class Override(NamedTuple):
    """A value that an administrator has set, with the administrator and the time."""

    name: str
    value: Any
    updated_by: str
    updated_at: datetime


class InForce(NamedTuple):
    """A value that holds, and its source: ADMINISTRATOR, or the name of the setting in the environment."""

    name: str
    value: Any
    source: str


def in_force(settings: Settings, overrides: Sequence[Override]) -> list[InForce]:
    """Return each value that holds, under the names of PlatformConfig; a rate that was set to 0 is the setting's."""
    boosts = {
        "rate_limit_per_minute": "rl_limit_per_minute_override",
        "rate_limit_auth_boost": "rl_auth_boost_override",
    }
    set_here = {}
    for one in overrides:
        with contextlib.suppress(Refusal):
            _check(one.name, one.value)
            set_here[one.name] = one.value
    found = []
    for name in PlatformConfig.__struct_fields__:
        value = set_here.get(name)
        if value is not None and (value or name not in boosts):
            found.append(InForce(name, value, ADMINISTRATOR))
            continue
        second = boosts.get(name)
        # An administrator's 0 stands for the setting, past the override in the environment.
        if second is not None and (name in set_here or not getattr(settings, second)):
            second = name
        setting = second or _SETTINGS.get(name, name)
        found.append(InForce(name, getattr(settings, setting), setting.upper()))
    return found


class Config:
    """The values in force in this process; `current` is at most half a second old while PostgreSQL can be reached."""

    def __init__(self, database: Database, settings: Settings) -> None:
        self._database = database
        self._defaults = defaults(settings)
        self._refresher: asyncio.Task[None] | None = None
        # One read at a time: an older one must not replace the values of a newer one.
        self._reading = asyncio.Lock()
        self.current: PlatformConfig = self._defaults

    async def open(self) -> None:
        """Read the values and begin to follow them."""
        await self.refresh()
        self._refresher = asyncio.create_task(self._follow())

    async def close(self) -> None:
        """Stop following."""
        if self._refresher is not None:
            await tasks.end(self._refresher)

    async def refresh(self) -> None:
        """Read the values now."""
        async with self._reading:
            self.current = await self._read(self._database)

    async def overrides(self) -> list[Override]:
        """Return the values that administrators have set, by name."""
        rows = await self._database.fetch(_sql.settings_in_force)
        return [
            Override(row["name"], msgspec.json.decode(row["value"]), row["updated_by"], row["updated_at"])
            for row in rows
        ]

    async def change(self, changes: Mapping[str, Any], *, actor: str) -> PlatformConfig:
        """Set values and return all that are in force then; an audit record keeps the values before and after.

        Raises Refusal `invalid_request` for an unknown name, or a value out of its bounds.
        """
        for name, value in changes.items():
            _check(name, value)
        async with self._database.transaction() as connection:
            await connection.execute(_sql.lock_platform_settings)
            found = await self._read(connection)
            before = {name: getattr(found, name) for name in changes}
            changed = {name: value for name, value in changes.items() if value != before[name]}
            for name, value in changes.items():
                await connection.execute(
                    _sql.set_platform_setting, name, msgspec.json.encode(value).decode(), actor
                )
            if changed:
                data = {"before": {name: before[name] for name in changed}, "after": changed}
                await record(connection, audited("admin.config", actor, data))
        await self.refresh()
        return self.current

    async def _read(self, source: Connection | Database) -> PlatformConfig:
        """Return the values in force, without those of names or bounds that another version of the code allowed."""
        values = {}
        for row in await source.fetch(_sql.platform_settings):
            name, value = row["name"], msgspec.json.decode(row["value"])
            with contextlib.suppress(Refusal):
                _check(name, value)
                values[name] = value
        return msgspec.structs.replace(self._defaults, **values)

    async def _follow(self) -> None:
        failures = 0
        while True:
            await asyncio.sleep(REFRESH_SECONDS)
            try:
                await self.refresh()
                failures = 0
            except Exception as error:  # noqa: BLE001 - on any failure the values read last hold
                failures += 1
                if failures == 1:
                    _log.warning("platform.config_not_read", error=type(error).__name__)


def _check(name: str, value: Any) -> None:
    if name not in PlatformConfig.__struct_fields__:
        raise Refusal("invalid_request", f"There is no setting {name!r} to change.")
    most = MAX_BASIS_POINTS if name.endswith("_bps") else MAX_RATE
    good: bool
    # The exact type is compared, since True is an int in Python.
    match PlatformConfig.__annotations__[name]:
        case "int":
            good = type(value) is int and 0 <= value <= most
        case "bool":
            good = type(value) is bool
        case _:
            good = type(value) is str and is_international(value)
    if not good:
        raise Refusal("invalid_request", f"{name}: {value!r} is out of its bounds.", field=name)
