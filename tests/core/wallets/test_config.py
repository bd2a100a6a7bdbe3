"""What an administrator sets, without HTTP: what cannot be set, and who reads what when."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from core.database import open_database
from core.errors import Refusal
from core.service import Service
from core.settings import Settings
from core.wallets.config import Config, PlatformConfig, defaults


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("merchant_fee_bps", -1),
        ("merchant_fee_bps", 10_001),
        ("merchant_fee_bps", True),
        ("merchant_fee_bps", "5"),
        ("merchant_fee_bps", 1.0),
        ("merchant_fee_bps", None),
        ("rate_limit_per_minute", 1_000_001),
        ("rate_limit_exempt_otp", 1),
        ("fee_wallet_phone", "963"),
        ("fee_wallet_phone", "+963\n"),
        ("fee_wallet_phone", "+" + "9" * 32),
        ("jwt_secret", "x"),
        ("__class__", 1),
    ],
)
async def test_what_cannot_be(service: Service, settings: Settings, name: str, value: Any) -> None:
    config = Config(service.database, settings)
    with pytest.raises(Refusal, match="invalid_request"):
        await config.change({"cashin_fee_bps": 1, name: value}, actor="admin")
    await config.refresh()
    assert config.current == defaults(settings)


async def test_everything_can_be_set(service: Service, settings: Settings) -> None:
    config, other = Config(service.database, settings), Config(service.database, settings)
    wanted = PlatformConfig(
        merchant_fee_bps=1,
        cashin_fee_bps=2,
        cashout_fee_bps=10_000,
        fee_wallet_phone="+963111222",
        rate_limit_per_minute=3,
        rate_limit_auth_boost=4,
        rate_limit_exempt_otp=False,
    )
    changes = {name: getattr(wanted, name) for name in PlatformConfig.__struct_fields__}
    assert await config.change(changes, actor="admin") == wanted
    await other.refresh()
    assert other.current == wanted


async def test_many_changes_at_once_need_one_connection_each(service: Service, settings: Settings) -> None:
    """Whoever holds the lock must not wait for a connection that those have who wait for the lock."""
    database = await open_database(settings, size=2)
    config = Config(database, settings)
    try:
        async with asyncio.timeout(4.0):  # below the time after which a connection is given up
            await asyncio.gather(
                *(config.change({"merchant_fee_bps": fee}, actor="admin") for fee in range(8))
            )
    finally:
        await database.close()


async def test_following(
    service: Service, settings: Settings, eventually: Callable[..., Awaitable[Any]]
) -> None:
    here, there = Config(service.database, settings), Config(service.database, settings)
    await there.open()
    try:
        await here.change({"merchant_fee_bps": 7}, actor="admin")
        await eventually(lambda: there.current.merchant_fee_bps == 7, timeout=1.0)
    finally:
        await there.close()


async def test_following_goes_on_after_a_failure(
    service: Service,
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
    eventually: Callable[..., Awaitable[Any]],
) -> None:
    monkeypatch.setattr("core.wallets.config.REFRESH_SECONDS", 0.01)
    config = Config(service.database, settings)
    await config.open()
    failures = 0

    async def fail(*_: Any) -> PlatformConfig:
        nonlocal failures
        failures += 1
        raise RuntimeError("a row that nobody can read")

    try:
        with monkeypatch.context() as patched:
            patched.setattr(config, "_read", fail)
            await eventually(lambda: failures > 2)
        await Config(service.database, settings).change({"merchant_fee_bps": 9}, actor="admin")
        await eventually(lambda: config.current.merchant_fee_bps == 9)
    finally:
        await config.close()
