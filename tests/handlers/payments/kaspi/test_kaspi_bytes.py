"""Bytes that are no text, where the contract of Kaspi has texts."""

import pytest

from tests.handlers.payments.bytewise import send, spoiled
from tests.handlers.payments.kaspi.conftest import Stand

pytestmark = pytest.mark.shared


async def test_bytes_that_are_no_text_are_no_mistake_of_ours(stand: Stand) -> None:
    given = {"Content-Type": b"application/json"}
    stand.proxy.answers["status"] = {"status": True, "data": {"status": "Wait"}}
    for client in (stand.port, stand.beside):
        for method, path in (
            ("POST", b"/payments/kaspi/create"),
            ("GET", b"/payments/kaspi/status"),
            ("GET", b"/admin/configs"),
        ):
            for where, headers in spoiled(given, path):
                status, answer = await send(client, method, where, headers, b"{}")
                assert status < 500, (method, where, headers, answer)
