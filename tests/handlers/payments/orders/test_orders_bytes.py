"""Bytes that are no text, where the contract of orders has texts."""

import pytest

from tests.handlers.payments.bytewise import send, spoiled
from tests.handlers.payments.orders.conftest import BASE, Shop

pytestmark = pytest.mark.shared


async def test_bytes_that_are_no_text_are_no_mistake_of_ours(shop: Shop) -> None:
    merchant = await shop.merchant()
    of_key = {"X-API-Key": merchant.api_key.encode(), "Content-Type": b"application/json"}
    of_name = {"X-Merchant-Id": b"%d" % merchant.merchant_id, "Content-Type": b"application/json"}
    for client, given in ((shop.client, of_key), (shop.port, of_name)):
        for method, path in (
            ("POST", BASE),
            ("GET", BASE),
            ("GET", f"{BASE}/1/show"),
            ("POST", f"{BASE}/webhook"),
        ):
            for where, headers in spoiled(given, path.encode()):
                status, answer = await send(client, method, where, headers, b'{"order_id": 1}')
                assert status < 500, (method, where, headers, answer)
