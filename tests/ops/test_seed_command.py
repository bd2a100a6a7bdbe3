"""`tallystick seed` as a person and a script use it."""

import json

from core.database import open_database
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
    helped = await tallystick("seed", "merchant", "--help")
    assert "tallystick seed merchant --tokens 100 --json" in helped.stdout
