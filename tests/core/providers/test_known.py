"""The providers by the settings, and the table of their units and keys."""

from __future__ import annotations

from decimal import Decimal

import pytest

from core.money import decimals
from core.provider_units import UNITS, UnknownUnitError, from_ledger, read_decimal, to_ledger, write_decimal
from core.providers.known import providers_of
from core.providers.protocol import REMEMBERED
from core.settings import load_settings

EVERYTHING = {
    "stripe_secret_key": "sk_test_x",
    "paypal_client_id": "x",
    "paypal_client_secret": "y",
    "paypal_mode": "sandbox",
    "cloudpayments_public_id": "pk_x",
    "cloudpayments_api_secrets": "z",
    "production_api_url": "https://proxy.example/api/v2/paymentkaspi",
    "provider_url": "http://providers:8000",
    "simulator_url": "http://127.0.0.1:8002",
}


async def test_settings_name_the_providers() -> None:
    assert providers_of(load_settings(env_file=None, env="test")) == {}
    found = providers_of(load_settings(env_file=None, env="test", **EVERYTHING))
    assert (
        set(found) == set(REMEMBERED) == {"stripe", "paypal", "cloudpayments", "kaspi", "links", "simulator"}
    )
    for provider in found.values():
        await provider.close()


@pytest.mark.parametrize("provider", UNITS)
def test_amounts_go_out_and_come_back_the_same(provider: str) -> None:
    for currency, digits in UNITS[provider].items():
        amount = 1_234 * 10 ** decimals(currency)
        assert to_ledger(provider, from_ledger(provider, amount, currency), currency) == amount
        text = write_decimal(provider, amount, currency)
        assert text.partition(".")[2] == "0" * digits
        for written in (text, f"{text}{'0' if '.' in text else '.0'}", "1234"):
            assert read_decimal(provider, Decimal(written), currency) == amount
        assert read_decimal(provider, -Decimal(text), currency) == -amount


@pytest.mark.parametrize(
    ("provider", "text", "currency", "read"),
    [
        ("paypal", "19.9", "USD", 1_990),
        ("paypal", "1E+2", "USD", 10_000),
        ("paypal", "500", "HUF", 50_000),
        ("paypal", "0.001", "USD", None),
        ("paypal", "0.5", "JPY", None),
        ("paypal", "NaN", "USD", None),
        ("paypal", "-Infinity", "USD", None),
        ("paypal", "1E+999999", "USD", None),
        ("paypal", "1E-999999", "USD", None),
        ("paypal", "99999999999999999999", "USD", None),
        ("kaspi", "1", "USD", None),
    ],
)
def test_decimals_are_exact_or_refused(provider: str, text: str, currency: str, read: int | None) -> None:
    if read is None:
        with pytest.raises(UnknownUnitError):
            read_decimal(provider, Decimal(text), currency)
    else:
        assert read_decimal(provider, Decimal(text), currency) == read


def test_an_amount_that_a_provider_cannot_write_is_refused() -> None:
    for provider, amount, currency in (
        ("paypal", 50_050, "HUF"),
        ("stripe", 150, "MGA"),
        ("stripe", 1, "XXX"),
    ):
        with pytest.raises(UnknownUnitError):
            write_decimal(provider, amount, currency)
