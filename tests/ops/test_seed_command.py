"""`tallystick seed` as a person and a script use it."""

import json

import pytest

from core.database import open_database
from core.errors import Refusal
from core.payments.orders.merchants import merchant_of_key
from core.settings import Settings
from tests.commands import tallystick


async def test_seeds_are_made_once_and_a_merchant_each_time(settings: Settings) -> None:
    url = str(settings.database_url)
    first = await tallystick("seed", DATABASE_URL=url)
    assert (first.returncode, first.stdout) == (0, "")
    assert "Provider paypal: made." in first.stderr
    again = await tallystick("seed", "merchant", DATABASE_URL=url)
    assert "Plan Basic: was there." in again.stderr
    assert "api_key" in again.stdout
    made = await tallystick("seed", "merchant", "--tokens", "7", "--json", DATABASE_URL=url)
    assert (made.returncode, made.stderr) == (0, "")
    told = json.loads(made.stdout)
    assert told.keys() == {"merchant_id", "subscription_id", "api_key"}
    database = await open_database(settings, size=1)
    try:
        assert await merchant_of_key(database, told["api_key"]) == told["merchant_id"]
    finally:
        await database.close()
    number = str(told["merchant_id"])
    replaced = await tallystick("orders", "key", number, "--only", DATABASE_URL=url)
    assert replaced.returncode == 0, replaced.stderr
    database = await open_database(settings, size=1)
    try:
        assert await merchant_of_key(database, replaced.stdout.strip()) == told["merchant_id"]
        with pytest.raises(Refusal):
            await merchant_of_key(database, told["api_key"])
    finally:
        await database.close()
    for address, code in (("https://shop.example/told", 0), ("ftp://x", 1)):
        assert (await tallystick("orders", "address", number, address, DATABASE_URL=url)).returncode == code
    assert (await tallystick("orders", "key", "999", DATABASE_URL=url)).returncode == 1
    listed = json.loads((await tallystick("orders", "list", "--json", DATABASE_URL=url)).stdout)
    assert [(one["merchant_id"], one["tokens_left"], one["callback_url"]) for one in listed] == [
        (1, 1_000_000, None),
        (2, 7, "https://shop.example/told"),
    ]
    table = await tallystick("orders", "list", DATABASE_URL=url)
    assert "https://shop.example/told" in table.stdout
    helped = await tallystick("seed", "merchant", "--help")
    assert "tallystick seed merchant --tokens 100 --json" in helped.stdout
