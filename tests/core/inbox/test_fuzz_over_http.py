"""Forgeries through the whole service, its database included: each gets an answer, and none of them is a 5xx."""

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from random import Random

import pytest

from core.settings import Settings
from tests.conftest import ApiClient
from tests.core.inbox import forgeries
from tests.core.inbox.forgeries import Headers
from tests.core.inbox.test_fuzz import (
    LONG,
    SECRET,
    STANDARD,
    Maker,
    cloudpayments,
    paypal,
    paypal_demo,
    plain_hmac,
    standard_webhooks,
    stripe,
)

# Over a socket and into the database it is slower by far.
VOLUME = 20_000 if LONG else 100

ROUTES: list[tuple[Maker, str]] = [
    (stripe, "/webhooks/stripe"),
    # Not signed by a certificate that can be fetched: what comes before the signature.
    (paypal, "/webhooks/paypal"),
    (paypal_demo, "/webhooks/paypal"),
    (cloudpayments, "/webhooks/cloudpayments/pay"),
    (cloudpayments, "/webhooks/cloudpayments/check"),
    (cloudpayments, "/webhooks/cloudpayments/recurrent"),
    (standard_webhooks, "/webhooks/in/standard"),
    (plain_hmac, "/webhooks/in/plain"),
    (plain_hmac, "/webhooks/in/nothing"),
]


@pytest.fixture
def settings(settings: Settings, request: pytest.FixtureRequest) -> Settings:
    case, _ = request.getfixturevalue("route")
    return settings.model_copy(
        update={
            "stripe_signing_secrets": (SECRET,),
            "cloudpayments_api_secrets": (SECRET,),
            "paypal_mode": "demo_hmac" if case is paypal_demo else "sandbox",
            "paypal_webhook_id": "",
            "demo_hmac_secret": SECRET,
            "rate_limit_enabled": False,
        }
    )


async def post(api: ApiClient, path: str, body: bytes, headers: Headers) -> int:
    """Send the bytes as they are: a client library would refuse most of them itself. Return the status."""
    reader, writer = await asyncio.open_connection(api.host, api.port)
    try:
        lines = [f"POST {path} HTTP/1.1", "Host: x", f"Content-Length: {len(body)}", "Connection: close"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        writer.write("\r\n".join([*lines, "", ""]).encode("utf-8", "surrogatepass") + body)
        answer = await reader.read()
    finally:
        writer.close()
    return int(answer.split(b" ", 2)[1])


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route[0].__name__} {route[1]}")
async def test_no_answer_is_our_fault(
    api: ApiClient, api_key: Callable[..., Awaitable[str]], route: tuple[Maker, str]
) -> None:
    key = {"Authorization": f"Bearer {await api_key('webhooks:write')}"}
    sign = {
        "signature": {"header": "X-Sign", "prefix": "sha256="},
        "event_id": ["/id"],
        "object_id": "header:X-Id",
    }
    for source in (
        {"name": "standard", "secret": STANDARD, "object_id": "/data/id", "occurred_at": "/at"},
        {"name": "plain", "kind": "hmac", "secret": SECRET, **sign},
    ):
        assert (await api.post("/v1/webhook-sources", json=source, headers=key)).status == 201
    case, path = route
    random = Random() if LONG else Random(path)
    statuses: Counter[int] = Counter()
    for _ in range(VOLUME // 10):
        forged = [case(random, int(time.time())) for _ in range(10)]
        statuses.update(
            await asyncio.gather(
                *(post(api, path, body, forgeries.headers(random, honest)) for _, body, honest in forged)
            )
        )
    assert set(statuses) <= {200, 400, 404}, statuses
    # Without its certificate nothing of PayPal is believed, and the last source does not exist.
    assert (statuses[200] > 0) == (case is not paypal and not path.endswith("nothing"))
