"""Limits: what each kind of payment brings, what holds exactly at the bound, and which of several causes is told."""

from collections.abc import Sequence

import pytest

from core.ledger.items import ItemLimits, Leg, Posting, operation_id
from core.payables.limits import (
    FUNDS_FIRST,
    LIMITS_FIRST,
    VELOCITY_FIRST,
    first_cause,
    payer_limits,
    unreachable,
)
from core.settings import load_settings
from core.wallets.users import User
from tests.core.payables.conftest import CURRENCY, Bank, codes, payment

SETTINGS = load_settings(
    env_file=None,
    env="test",
    kyc_l0_tx_max_cents="10",
    kyc_l0_daily_max_cents="20",
    kyc_l1_tx_max_cents="30",
    kyc_l1_daily_max_cents="40",
    fraud_p2p_max_sum_per_hour="50",
    fraud_p2p_max_tx_per_hour="5",
    fraud_qr_max_tx_per_hour="6",
)


async def test_what_a_payment_brings(bank: Bank) -> None:
    new = await bank.user()
    assert payer_limits(SETTINGS, new) == ItemLimits(10, None, None, 20)
    assert payer_limits(SETTINGS, new, "p2p") == ItemLimits(10, 50, 5, 20)
    assert payer_limits(SETTINGS, new, "qr") == ItemLimits(10, None, 6, 20)
    for level in (1, 2):
        assert payer_limits(SETTINGS, new._replace(kyc_level=level), "qr") == ItemLimits(30, None, 6, 40)
    # A fee on top is let through beside the amount.
    assert payer_limits(SETTINGS, new, fee_on_top=3) == ItemLimits(13, None, None, 23)


@pytest.mark.parametrize(
    ("limits", "amounts", "code"),
    [
        (ItemLimits(transfer_max=100), [100, 101], "transfer_limit_exceeded"),
        (ItemLimits(hour_amount_max=100), [60, 40, 1], "hourly_amount_exceeded"),
        (ItemLimits(hour_count_max=3), [1, 1, 1, 1], "hourly_count_exceeded"),
        (ItemLimits(day_amount_max=100), [60, 40, 1], "daily_amount_exceeded"),
    ],
)
async def test_exactly_at_the_bound(bank: Bank, limits: ItemLimits, amounts: list[int], code: str) -> None:
    """All but the last fit, in calls of their own and in one call."""
    ann, eve, bob = await bank.user(1_000), await bank.user(1_000), await bank.user()
    expected = ["posted"] * (len(amounts) - 1) + [code]
    one_by_one = [
        (await bank.call(payment(ann, bob, amount, f"k{n}", limits=limits)))[0]
        for n, amount in enumerate(amounts)
    ]
    assert codes(one_by_one) == expected
    together = await bank.call(
        *(payment(eve, bob, amount, f"k{n}", limits=limits) for n, amount in enumerate(amounts))
    )
    assert codes(together) == expected


async def test_what_is_refused_uses_nothing_up(bank: Bank) -> None:
    ann, bob = await bank.user(50), await bank.user()
    limits = ItemLimits(hour_amount_max=100, hour_count_max=2, day_amount_max=100)
    for number in range(5):
        outcome = await bank.call(payment(ann, bob, 60, f"refused{number}", limits=limits))
        assert codes(outcome) == ["insufficient_funds"]
    outcome = await bank.call(
        payment(ann, bob, 40, "a", limits=limits, group=1), payment(ann, bob, 40, "b", limits=limits, group=1)
    )
    assert codes(outcome) == ["group_failed", "insufficient_funds"]
    outcome = await bank.call(*(payment(ann, bob, 25, f"good{n}", limits=limits) for n in range(2)))
    assert codes(outcome) == ["posted", "posted"]


async def test_replays_are_no_second_use(bank: Bank) -> None:
    ann, bob = await bank.user(1_000), await bank.user()
    limits = ItemLimits(hour_count_max=1)
    for expected in ("posted", "again posted", "again posted"):
        assert codes(await bank.call(payment(ann, bob, 10, "k", limits=limits))) == [expected]


async def test_only_the_payer_is_limited(bank: Bank) -> None:
    """A merchant who pays the fee of what it receives sends more than it got limits for, and is not held to them."""
    ann, shop, fees = await bank.user(1_000), await bank.user(), await bank.user()
    legs = (
        Leg(ann.account, -100),
        Leg(shop.account, 100),
        Leg(shop.account, -5),
        Leg(fees.account, 5),
    )
    limits = ItemLimits(transfer_max=100, hour_count_max=1, day_amount_max=100)
    item = Posting(
        operation_id(ann.principal_id, "k"), ann.principal_id, legs, currency=CURRENCY, limits=limits
    )
    assert codes(await bank.call(item)) == ["posted"]
    assert await bank.balances(ann, shop, fees) == [900, 95, 5]


def _cause(order: Sequence[str], *holds: str) -> str:
    return next(cause for cause in order if cause in holds)


@pytest.mark.parametrize("order", [FUNDS_FIRST, LIMITS_FIRST, VELOCITY_FIRST])
async def test_of_several_causes_the_first_is_told(bank: Bank, order: Sequence[str]) -> None:
    ann, bob = await bank.user(100), await bank.user()
    assert codes(await bank.call(payment(ann, bob, 10, "before"))) == ["posted"]

    async def told(amount: int, limits: ItemLimits, payer: User = ann) -> str:
        (outcome,) = await bank.call(payment(payer, bob, amount, "k", limits=limits))
        return await first_cause(bank.database, outcome, payer, amount, limits, order)

    funds, most, day = "insufficient_funds", "transfer_limit_exceeded", "daily_amount_exceeded"
    hour_sum, hour_uses = "hourly_amount_exceeded", "hourly_count_exceeded"
    assert await told(91, ItemLimits(90, 100, 1, 100)) == _cause(order, funds, most, day, hour_sum, hour_uses)
    assert await told(90, ItemLimits(90, 100, 1, 99)) == _cause(order, day, hour_uses)
    assert await told(91, ItemLimits(91, 101, 2, 101)) == funds
    assert await told(90, ItemLimits(89, 99, 2, 100)) == _cause(order, most, hour_sum)


def test_limits_that_hide_others_are_named() -> None:
    assert unreachable(load_settings(env_file=None, env="test")) == []
    assert unreachable(SETTINGS) == []
    hidden = load_settings(env_file=None, env="test", fraud_p2p_max_sum_per_hour="10000000")
    assert unreachable(hidden) == ["KYC_L0_TX_MAX_CENTS", "KYC_L1_TX_MAX_CENTS"]
    daily = load_settings(env_file=None, env="test", kyc_l0_daily_max_cents="5")
    assert unreachable(daily) == ["KYC_L0_TX_MAX_CENTS"]
