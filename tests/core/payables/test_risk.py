"""The risk score, point by point, and what it does: a record from one threshold on, a refusal from the other."""

import dataclasses
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from core.errors import Refusal
from core.payables.p2p import transfer
from core.payables.risk import score
from core.settings import load_settings
from tests.core.payables.conftest import Bank

NOON = datetime(2026, 3, 4, 12, tzinfo=UTC)
SETTINGS = load_settings(env_file=None, env="test", fraud_risk_enabled="true")


@pytest.mark.parametrize(
    ("changes", "amount", "hour", "points"),
    [
        ({"created_at": timedelta(days=8), "kyc_level": 2}, 1, 12, 0),
        ({"created_at": timedelta(days=8), "kyc_level": 1}, 1, 12, 5),
        ({"created_at": timedelta(days=8), "kyc_level": 0}, 1, 12, 20),
        ({"created_at": timedelta(days=7), "kyc_level": 2}, 1, 12, 0),
        ({"created_at": timedelta(days=6, hours=23), "kyc_level": 2}, 1, 12, 10),
        ({"created_at": timedelta(days=1), "kyc_level": 2}, 1, 12, 10),
        ({"created_at": timedelta(hours=23), "kyc_level": 2}, 1, 12, 30),
        ({"created_at": timedelta(days=8), "kyc_level": 2}, 1_999_999, 12, 0),
        ({"created_at": timedelta(days=8), "kyc_level": 2}, 2_000_000, 12, 25),
        ({"created_at": timedelta(days=8), "kyc_level": 2}, 1, 5, 10),
        ({"created_at": timedelta(days=8), "kyc_level": 2}, 1, 6, 0),
        ({"created_at": timedelta(hours=1), "kyc_level": 0}, 2_000_000, 3, 85),
    ],
)
async def test_points(bank: Bank, changes: dict[str, Any], amount: int, hour: int, points: int) -> None:
    now = NOON.replace(hour=hour)
    payer = (await bank.user())._replace(**{**changes, "created_at": now - changes["created_at"]})
    assert score(SETTINGS, payer, amount, now) == points
    young = payer._replace(merchant_since=now - timedelta(days=6))
    old = payer._replace(merchant_since=now - timedelta(days=8))
    assert score(SETTINGS, payer, amount, now, young) == points + 10
    assert score(SETTINGS, payer, amount, now, old) == points


async def _assessed(bank: Bank, **changes: int) -> list[str]:
    """Return the records of a payment whose payer was made just now: 50 points at noon, 60 at night."""
    payer, payee = await bank.user(100), await bank.user()
    settings = SETTINGS.model_copy(update=changes)
    service = dataclasses.replace(bank.platform.service, settings=settings)
    refused = False
    try:
        await transfer(dataclasses.replace(bank.platform, service=service), payer, payee.phone, 1, "key")
    except Refusal as refusal:
        refused = refusal.code == "risk_blocked"
    rows = await bank.owner.fetch("SELECT type FROM audit_events WHERE type LIKE 'fraud.%'")
    assert refused is ("fraud.block" in [row["type"] for row in rows])
    assert await bank.balances(payer) == [100 if refused else 99]
    return [row["type"] for row in rows]


async def test_below_both_thresholds(bank: Bank) -> None:
    assert await _assessed(bank, fraud_flag_score=61, fraud_block_score=100) == []


async def test_flagged(bank: Bank) -> None:
    assert await _assessed(bank, fraud_flag_score=50, fraud_block_score=100) == ["fraud.flag"]


async def test_blocked(bank: Bank) -> None:
    assert await _assessed(bank, fraud_flag_score=10, fraud_block_score=50) == ["fraud.block"]


async def test_off(bank: Bank) -> None:
    assert await _assessed(bank, fraud_risk_enabled=False, fraud_flag_score=0, fraud_block_score=0) == []
