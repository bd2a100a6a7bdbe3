"""PayPal's Orders v2 and Payments v2 as far as its documents tell, with its request ids and its errors."""

from __future__ import annotations

import base64
from decimal import Decimal
from typing import Any

from aiohttp import web

from tests.core.providers.scenes import Troubles

CREDENTIALS = ("client-id", "client-secret-of-paypal")


class Failure(Exception):
    def __init__(self, status: int, name: str, issue: str = "") -> None:
        super().__init__(name)
        self.status = status
        details = [{"issue": issue, "description": "..."}] if issue else []
        self.body = {"name": name, "message": "...", "debug_id": "f1", "details": details}


class FakePayPal:
    def __init__(self) -> None:
        self.troubles = Troubles()
        self.orders: dict[str, dict[str, Any]] = {}
        self.kept: dict[str, tuple[bytes, int, Any]] = {}
        self.calls: list[tuple[str, Any]] = []
        self.tokens = 0
        self.bank_says: str | None = None

    def application(self) -> web.Application:
        app = web.Application(middlewares=[self.troubles.middleware])
        app.on_shutdown.append(self.troubles.stop)
        app.router.add_post("/v1/oauth2/token", self.token)
        app.router.add_post("/v2/checkout/orders", self.create)
        app.router.add_get("/v2/checkout/orders/{id}", self.show)
        app.router.add_post("/v2/checkout/orders/{id}/capture", self.capture)
        app.router.add_post("/v2/payments/captures/{id}/refund", self.refund)
        return app

    def approve(self, order_id: str | None, again: int = 0) -> None:
        order = self.orders[str(order_id)]
        order |= {"status": "APPROVED", "update_time": f"2026-11-29T18:15:0{again}Z"}

    def captured(self, order_id: str | None) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.orders[str(order_id)]["purchase_units"][0]["payments"]["captures"]
        return found

    async def token(self, request: web.Request) -> web.Response:
        expected = base64.b64encode(":".join(CREDENTIALS).encode()).decode()
        if request.headers["Authorization"] != f"Basic {expected}":
            return web.json_response({"error": "invalid_client"}, status=401)
        self.tokens += 1
        return web.json_response({"access_token": f"token-{self.tokens}", "expires_in": 32_000})

    async def create(self, request: web.Request) -> web.Response:
        async def make(asked: Any) -> tuple[int, Any]:
            unit = asked["purchase_units"][0]
            if unit["amount"]["value"] == "66.60":
                raise Failure(422, "UNPROCESSABLE_ENTITY", "PAYEE_ACCOUNT_RESTRICTED")
            number = f"ORDER{len(self.orders) + 1}"
            self.orders[number] = {
                "id": number,
                "status": "PAYER_ACTION_REQUIRED",
                "intent": asked["intent"],
                "purchase_units": [unit | {"payee": {"merchant_id": "X"}}],
                "links": [
                    {"rel": "self", "href": f"https://api.paypal.com/v2/checkout/orders/{number}"},
                    {"rel": "payer-action", "href": f"https://www.paypal.com/checkoutnow?token={number}"},
                ],
            }
            return 201, self.orders[number]

        return await self._once(request, make)

    async def show(self, request: web.Request) -> web.Response:
        return await self._answered(request, lambda: self._order(request))

    async def capture(self, request: web.Request) -> web.Response:
        async def take(_: Any) -> tuple[int, Any]:
            order = self._order(request)
            unit = order["purchase_units"][0]
            if order["status"] == "COMPLETED":
                raise Failure(422, "UNPROCESSABLE_ENTITY", "ORDER_ALREADY_CAPTURED")
            if order["status"] != "APPROVED":
                raise Failure(422, "UNPROCESSABLE_ENTITY", "ORDER_NOT_APPROVED")
            if self.bank_says == "INSTRUMENT_DECLINED":
                raise Failure(422, "UNPROCESSABLE_ENTITY", "INSTRUMENT_DECLINED")
            fee = {"currency_code": unit["amount"]["currency_code"], "value": "0.99"}
            capture = {
                "id": f"CAP-{order['id']}",
                "status": self.bank_says or "COMPLETED",
                "amount": unit["amount"],
                "custom_id": unit["custom_id"],
                "final_capture": True,
                "seller_receivable_breakdown": {"gross_amount": unit["amount"], "paypal_fee": fee},
            }
            order["status"] = "COMPLETED"
            unit["payments"] = {"captures": [capture], "refunds": []}
            return 201, order

        return await self._once(request, take)

    async def refund(self, request: web.Request) -> web.Response:
        async def give_back(asked: Any) -> tuple[int, Any]:
            order = self.orders[request.match_info["id"].removeprefix("CAP-")]
            payments = order["purchase_units"][0]["payments"]
            given = sum(Decimal(one["amount"]["value"]) for one in payments["refunds"])
            if given + Decimal(asked["amount"]["value"]) > Decimal(
                payments["captures"][0]["amount"]["value"]
            ):
                raise Failure(422, "UNPROCESSABLE_ENTITY", "REFUND_AMOUNT_EXCEEDED")
            payments["captures"][0]["status"] = "PARTIALLY_REFUNDED"
            payments["refunds"].append(
                {"id": f"REF{given}", "status": "COMPLETED", "amount": asked["amount"]}
            )
            return 201, payments["refunds"][-1]

        return await self._once(request, give_back)

    def _order(self, request: web.Request) -> dict[str, Any]:
        found = self.orders.get(request.match_info["id"])
        if found is None:
            raise Failure(404, "RESOURCE_NOT_FOUND", "INVALID_RESOURCE_ID")
        return found

    async def _answered(self, request: web.Request, work: Any) -> web.Response:
        if request.headers.get("Authorization") != f"Bearer token-{self.tokens}":
            return web.json_response({"error": "invalid_token"}, status=401)
        self.calls.append((f"{request.method} {request.path}", request.headers.get("PayPal-Request-Id")))
        try:
            return web.json_response(work())
        except Failure as failure:
            return web.json_response(failure.body, status=failure.status)

    async def _once(self, request: web.Request, work: Any) -> web.Response:
        if request.headers.get("Authorization") != f"Bearer token-{self.tokens}":
            return web.json_response({"error": "invalid_token"}, status=401)
        body, key = await request.read(), request.headers["PayPal-Request-Id"]
        self.calls.append((f"{request.method} {request.path}", key))
        if key not in self.kept:
            try:
                status, answer = await work(await request.json())
            except Failure as failure:
                status, answer = failure.status, failure.body
            self.kept[key] = (body, status, answer)
        asked, status, answer = self.kept[key]
        if asked != body:
            reused = Failure(422, "UNPROCESSABLE_ENTITY", "DUPLICATE_REQUEST_ID")
            return web.json_response(reused.body, status=reused.status)
        return web.json_response(answer, status=status)
