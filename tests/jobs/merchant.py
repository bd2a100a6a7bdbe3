"""The two neighbours of the service: Stripe, which signs with its own library, and a merchant who checks signatures."""

import json
import time
import uuid
from dataclasses import dataclass
from typing import Any

import stripe
from aiohttp import web
from aiohttp.test_utils import TestClient
from standardwebhooks import Webhook

from core.ledger.accounts import Opening, get_account, open_account
from core.service import Service
from ops import receiving
from ops.receiving import Delivery, wallet_problem
from ops.stripe_events import payment_intent_succeeded

STRIPE_SECRET = "whsec_of_these_tests"

ApiClient = TestClient[web.Request, web.Application]


class Receiver(receiving.Receiver):
    """A merchant's server that checks both forms of signature, one with the library of Standard Webhooks."""

    def verify(self, delivery: Delivery) -> None:
        headers = {name.lower(): value for name, value in delivery.headers.items()}
        Webhook(self.secret).verify(delivery.body, headers)
        assert wallet_problem(self.secret, delivery.headers, delivery.body) == ""
        assert abs(int(headers["x-webhook-ts"]) - time.time()) < 300
        assert headers["content-type"] == "application/json"
        assert headers["x-webhook-event"] == delivery.event["type"]
        uuid.UUID(headers["x-delivery-id"])


@dataclass
class Thread:
    """The handle of a test: the HTTP surface on one side, the receiver on the other."""

    api: ApiClient
    service: Service
    key: str
    receiver: Receiver

    async def subscribe(
        self, url: str = "", event_types: tuple[str, ...] = (), **options: Any
    ) -> dict[str, Any]:
        answer = await self.api.post(
            "/v1/webhook-endpoints",
            json={"url": url or self.receiver.url, "event_types": list(event_types)} | options,
            headers={"Authorization": f"Bearer {self.key}"},
        )
        endpoint: dict[str, Any] = await answer.json()
        assert answer.status == 201, endpoint
        if not url:
            self.receiver.secret = endpoint["secret"]
        return endpoint

    async def open_account(self, code: str, currency: str = "USD") -> None:
        owner = await self.service.database.connections.pool.fetchval(
            "SELECT id FROM principals WHERE name = 'shop'"
        )
        await open_account(self.service.database, Opening(code, currency), owner)

    async def balance(self, code: str) -> int:
        return (await get_account(self.service.database, code)).balance

    async def send(self, event: dict[str, Any], *, secret: str = STRIPE_SECRET) -> tuple[int, Any]:
        payload = json.dumps(event)
        header = stripe.WebhookSignature.generate_signature_header(payload, secret)
        answer = await self.api.post(
            "/webhooks/stripe", data=payload.encode(), headers={"Stripe-Signature": header}
        )
        return answer.status, await answer.json()

    async def inbox(self, event_id: str) -> dict[str, Any]:
        row = await self.service.database.connections.pool.fetchrow(
            "SELECT *, inbox_state(id, state) AS state, inbox_body(id, body) AS body FROM inbox_events"
            " WHERE event_id = $1",
            event_id,
        )
        return dict(row) if row is not None else {"state": "absent"}

    async def deliveries(self) -> list[dict[str, Any]]:
        rows = await self.service.database.connections.pool.fetch(
            "SELECT * FROM webhook_deliveries ORDER BY id"
        )
        return [dict(row) for row in rows]


def payment(
    intent: str,
    account: str | None,
    amount: object = 1500,
    *,
    event_id: str | None = None,
    currency: str = "usd",
) -> dict[str, Any]:
    """A snapshot event as Stripe sends it. `account` and `amount` may be what Stripe would not send."""
    event = payment_intent_succeeded(
        account or "", event_id=event_id or f"evt_{intent}", intent=intent, currency=currency
    )
    paid = event["data"]["object"]
    paid.update(
        amount=amount, amount_received=amount, metadata={} if account is None else {"account": account}
    )
    return event
