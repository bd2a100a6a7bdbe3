"""Refusals that quote their call: no token and no address of the bank reaches a caller or a row."""

from collections.abc import Callable
from urllib.parse import quote

import pytest
from aiohttp import web

from tests.handlers.payments.kaspi.conftest import ACCESS, DEVICE, Stand

pytestmark = pytest.mark.shared

QUOTED: list[Callable[[web.Request], str]] = [
    lambda call: f"bad url {call.url}",
    lambda call: f"no {quote(str(call.url), safe='')}",
    lambda call: f"{call.host} knows no {call.query['access_token']} of {call.query.get('deviceToken')}",
    lambda call: (
        f"{'x' * 224} {call.query['access_token']} {call.raw_path}"
    ),  # the bound cuts the token in two
]


async def test_a_refusal_that_quotes_its_call_tells_no_secret(stand: Stand) -> None:
    shop = await stand.shop()
    paid = await stand.paid(shop)
    opened = (await stand.create(shop, message="open"))[1]["external_id"]
    for no, stand.proxy.quoting in enumerate(QUOTED, 3):
        link = {"shop_id": shop, "amount": no, "message": "link"}
        for call in (
            stand.create(shop, message=f"other {no}"),
            stand.call("POST", "/payments/kaspi/create-link", link),
            stand.call("GET", f"/payments/kaspi/status/{opened}"),
            stand.refund(shop, paid, no),
        ):
            status, told = await call
            assert status == 500
            assert_clean(told["detail"])
            assert "***" in told["detail"]
    kept = await stand.owner.fetch(
        "SELECT error FROM payment_attempts UNION ALL SELECT error FROM payment_refunds"
        " UNION ALL SELECT to_jsonb(line)::text FROM payment_timeline AS line"
    )
    assert_clean(f"{await stand.log(shop)} {kept}")


async def test_a_status_that_quotes_is_told_without_its_secrets(stand: Stand) -> None:
    shop = await stand.shop()
    external_id = (await stand.create(shop))[1]["external_id"]
    stand.proxy.words[external_id] = f"Lost with {ACCESS} and {DEVICE}"
    _, told = await stand.call("GET", f"/payments/kaspi/status/{external_id}")
    assert told["status"] == "Lost with *** and ***"


def assert_clean(text: str) -> None:
    for secret in (ACCESS, DEVICE, ACCESS[:9], DEVICE[:9], "127.0.0.1"):
        assert secret not in text
