"""What an administrator may change at run time: kept in PostgreSQL, and seen by every process within a second.

The values of the settings hold until something else is set. Rates and limits only: nothing here says where money goes.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING, Any, Final

import msgspec
import structlog

from core.database import statements
from core.errors import Refusal
from core.platform.audit import audited, record

if TYPE_CHECKING:
    from collections.abc import Mapping

    from core.database import Database
    from core.settings import Settings

_sql = statements("platform")
_log = structlog.get_logger(__name__)

REFRESH_SECONDS: Final = 0.5
MAX_BASIS_POINTS: Final = 10_000
MAX_RATE: Final = 1_000_000


class PlatformConfig(msgspec.Struct, frozen=True, kw_only=True):
    """The values in force. Fees are in basis points; `rate_limit_*` are 0 where nothing overrides the settings."""

    merchant_fee_bps: int
    cashin_fee_bps: int
    cashout_fee_bps: int
    fee_wallet_phone: str
    rate_limit_per_minute: int
    rate_limit_auth_boost: int
    rate_limit_exempt_otp: bool


def defaults(settings: Settings) -> PlatformConfig:
    """Return what the settings say."""
    return PlatformConfig(
        merchant_fee_bps=settings.merchant_fee_bps,
        cashin_fee_bps=settings.cashin_fee_bps,
        cashout_fee_bps=settings.cashout_fee_bps,
        fee_wallet_phone=settings.fee_wallet_phone,
        rate_limit_per_minute=settings.rl_limit_per_minute_override or 0,
        rate_limit_auth_boost=settings.rl_auth_boost_override or 0,
        rate_limit_exempt_otp=settings.rl_exempt_otp,
    )


class Config:
    """The values in force in this process; `current` is at most half a second old while PostgreSQL can be reached."""

    def __init__(self, database: Database, settings: Settings) -> None:
        self._database = database
        self._defaults = defaults(settings)
        self._refresher: asyncio.Task[None] | None = None
        self.current: PlatformConfig = self._defaults

    async def open(self) -> None:
        """Read the values and begin to follow them."""
        await self.refresh()
        self._refresher = asyncio.create_task(self._follow())

    async def close(self) -> None:
        """Stop following."""
        if self._refresher is not None:
            self._refresher.cancel()
            await asyncio.wait([self._refresher])

    async def refresh(self) -> None:
        """Read the values now. Names that this version does not know are left alone."""
        known = set(PlatformConfig.__struct_fields__)
        rows = await self._database.fetch(_sql.platform_settings)
        values = {row["name"]: msgspec.json.decode(row["value"]) for row in rows if row["name"] in known}
        self.current = msgspec.structs.replace(self._defaults, **values)

    async def change(self, changes: Mapping[str, Any], *, actor: str) -> PlatformConfig:
        """Set values and return all that are in force then; the audit says what they were before.

        Raises Refusal `invalid_request` for a name or a value that cannot be.
        """
        for name, value in changes.items():
            _check(name, value)
        async with self._database.transaction() as connection:
            await connection.execute(_sql.lock_platform_settings)
            await self.refresh()
            before = {name: getattr(self.current, name) for name in changes}
            for name, value in changes.items():
                await connection.execute(
                    _sql.set_platform_setting, name, msgspec.json.encode(value).decode(), actor
                )
            data = {"before": before, "after": dict(changes)}
            await record(connection, audited("admin.config", actor, data))
        await self.refresh()
        return self.current

    async def _follow(self) -> None:
        failed_since: float | None = None
        while True:
            await asyncio.sleep(REFRESH_SECONDS)
            try:
                await self.refresh()
                failed_since = None
            except Refusal:  # PostgreSQL is away; what was read last holds, and nothing can be paid meanwhile
                if failed_since is None:
                    failed_since = time.monotonic()
                    _log.warning("platform.config_not_read")


def _check(name: str, value: Any) -> None:
    if name not in PlatformConfig.__struct_fields__:
        raise Refusal("invalid_request", f"There is no setting {name!r} to change.")
    with contextlib.suppress(msgspec.ValidationError):
        kind = PlatformConfig.__annotations__[name]
        types: dict[str, type] = {"int": int, "str": str, "bool": bool}
        msgspec.convert(value, types[kind], strict=True)
        if kind != "int" or 0 <= value <= (MAX_BASIS_POINTS if name.endswith("_bps") else MAX_RATE):
            return
    raise Refusal("invalid_request", f"{name}: {value!r} is out of its bounds.", field=name)
