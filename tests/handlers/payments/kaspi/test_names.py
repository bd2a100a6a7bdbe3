"""Names of payments: the bank's own ids."""

import pytest

from core.payments.kaspi.words import caller_of
from tests.handlers.payments.kaspi.conftest import Stand

pytestmark = pytest.mark.shared


async def test_an_id_that_the_bank_gives_twice_pays_one_payment(stand: Stand) -> None:
    shop = await stand.shop()
    told = {"status": True, "data": {"externalId": 777, "status": "Wait"}, "http_code": 200}
    stand.proxy.answers["create"] = told
    assert (await stand.create(shop, message="one"))[1]["external_id"] == "777"
    status, told = await stand.create(shop, message="two")
    assert (status, told["type"]) == (502, "/problems/kaspi_unreadable")
    stand.proxy.words["777"] = "Processed"
    assert (await stand.call("GET", "/payments/kaspi/status/777"))[1]["status"] == "Processed"
    assert (await stand.create(shop, message="two"))[1]["status"] == "Wait"
    rows = await stand.owner.fetch("SELECT state FROM payments WHERE caller = $1", caller_of(shop))
    assert sorted(row["state"] for row in rows) == ["paid", "unknown"]
