"""Stripe as far as its documents tell: sessions, links, refunds, idempotency keys, errors (https://docs.stripe.com/api)."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qsl

from aiohttp import web

from tests.core.providers.scenes import Troubles

KEY = "sk_test_4eC39HqLyjWDarjtT1zdp7dc"


def tree(body: str) -> dict[str, Any]:
    """A form with names like `line_items[0][price]` as nested objects."""
    found: dict[str, Any] = {}
    for name, value in parse_qsl(body, keep_blank_values=True):
        at = found
        *path, last = re.findall(r"[^\[\]]+", name)
        for part in path:
            at = at.setdefault(part, {})
        at[last] = value
    return found


class Failure(Exception):
    def __init__(self, status: int, kind: str, code: str | None, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.body = {"error": {"type": kind, "code": code, "message": message, "param": None}}


class FakeStripe:
    def __init__(self) -> None:
        self.troubles = Troubles()
        self.objects: dict[str, dict[str, Any]] = {}
        self.kept: dict[str, tuple[str, int, dict[str, Any]]] = {}
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.number = 0

    def application(self) -> web.Application:
        app = web.Application(middlewares=[self.troubles.middleware, self._answer])
        app.on_shutdown.append(self.troubles.stop)
        add: Any = app.router.add_route
        add("POST", "/v1/checkout/sessions", self.create_session)
        add("GET", "/v1/checkout/sessions", self.sessions)
        add("GET", "/v1/checkout/sessions/{id}", self.show)
        add("POST", "/v1/checkout/sessions/{id}/expire", self.expire)
        add("POST", "/v1/products", self.create_part("prod"))
        add("POST", "/v1/prices", self.create_part("price"))
        add("POST", "/v1/payment_links", self.create_link)
        add("GET", "/v1/payment_links/{id}", self.show)
        add("POST", "/v1/payment_links/{id}", self.update_link)
        add("POST", "/v1/refunds", self.create_refund)
        add("GET", "/v1/invoices/{id}", self.show)
        add("POST", "/v1/invoices/{id}/void", self.void)
        add("GET", "/v1/invoice_payments", self.invoice_payments)
        return app

    def made(self, prefix: str, **fields: Any) -> dict[str, Any]:
        self.number += 1
        found: dict[str, Any] = {
            "id": f"{prefix}_test_{self.number}",
            "livemode": False,
            "invented_field": {"x": [1]},
        } | fields
        self.objects[str(found["id"])] = found
        return found

    def pay(self, session: dict[str, Any], *, late: bool = False, fee: int = 60) -> None:
        """A payer pays; `late` with a method whose money comes in days."""
        session |= {"status": "complete", "payment_status": "unpaid" if late else "paid", "url": None}
        charge = self.made(
            "ch",
            object="charge",
            amount=session["amount_total"],
            amount_refunded=0,
            currency=session["currency"],
            balance_transaction={
                "id": "txn_1",
                "object": "balance_transaction",
                "fee": fee,
                "currency": "usd",
            },
        )
        intent = self.made(
            "pi",
            object="payment_intent",
            status="processing" if late else "succeeded",
            amount_received=0 if late else session["amount_total"],
            currency=session["currency"],
            latest_charge=charge,
            metadata=session["inner_metadata"],
        )
        charge["payment_intent"] = intent["id"]
        if session["mode"] == "subscription":
            invoice = self.made("in", object="invoice", intent=intent["id"])
            session |= {
                "subscription": self.made("sub", object="subscription")["id"],
                "invoice": invoice["id"],
            }
        else:
            session["payment_intent"] = intent["id"]

    def renew(self, status: str) -> dict[str, Any]:
        """A subscription's next invoice, whose charge is paid or has failed."""
        charge = self.made("ch", amount=1_990, amount_refunded=0, currency="usd")
        intent = self.made("pi", object="payment_intent", latest_charge=charge)
        paid = 1_990 if status == "paid" else 0
        return self.made(
            "in", object="invoice", status=status, amount_paid=paid, currency="usd", intent=intent["id"]
        )

    def visit(self, link: dict[str, Any]) -> dict[str, Any]:
        """A payer opens a link."""
        return self._session(
            {"mode": "payment", "metadata": link["metadata"], "payment_link": link["id"]}, 1_990, "usd", {}
        )

    async def create_session(self, form: dict[str, Any], _: web.Request) -> dict[str, Any]:
        price = form["line_items"]["0"]["price_data"]
        if price["product_data"]["name"] == "declined":
            raise Failure(402, "card_error", "card_declined", "Your card was declined.")
        inner = form.get("payment_intent_data") or form.get("subscription_data") or {}
        return self._session(form, int(price["unit_amount"]), price["currency"], inner.get("metadata", {}))

    def _session(
        self, form: dict[str, Any], amount: int, currency: str, inner: dict[str, str]
    ) -> dict[str, Any]:
        return self.made(
            "cs",
            object="checkout.session",
            status="open",
            payment_status="unpaid",
            mode=form["mode"],
            amount_total=amount,
            currency=currency,
            url="https://checkout.stripe.com/c/pay/cs_test#fid",
            expires_at=int(time.time()) + 86_400,
            metadata=form.get("metadata", {}),
            inner_metadata=inner,
            payment_link=form.get("payment_link"),
            payment_intent=None,
            subscription=None,
            invoice=None,
        )

    async def show(self, form: dict[str, Any], request: web.Request) -> dict[str, Any]:
        return self._expanded(self._found(request), [*form.get("expand", {}).values()])

    async def sessions(self, form: dict[str, Any], _: web.Request) -> dict[str, Any]:
        found = [
            self._expanded(one, [path.removeprefix("data.") for path in form.get("expand", {}).values()])
            for one in self.objects.values()
            if one.get("object") == "checkout.session"
            and one["payment_link"] == form["payment_link"]
            and one["status"] == form["status"]
        ]
        return {"object": "list", "data": found[: int(form["limit"])], "has_more": False, "url": "/v1/x"}

    async def expire(self, _form: dict[str, Any], request: web.Request) -> dict[str, Any]:
        session = self._found(request)
        if session["status"] != "open":
            raise Failure(
                400, "invalid_request_error", None, "Only Checkout Sessions with a status open expire."
            )
        session |= {"status": "expired", "url": None}
        return session

    async def void(self, _form: dict[str, Any], request: web.Request) -> dict[str, Any]:
        invoice = self._found(request)
        if invoice["status"] not in {"open", "uncollectible"}:
            raise Failure(400, "invalid_request_error", None, "You can only void open invoices.")
        return invoice | {"status": "void"}

    def create_part(self, prefix: str) -> Any:
        async def create(form: dict[str, Any], _: web.Request) -> dict[str, Any]:
            return self.made(prefix, object=prefix, **form)

        return create

    async def create_link(self, form: dict[str, Any], _: web.Request) -> dict[str, Any]:
        return self.made(
            "plink", object="payment_link", active=True, url="https://buy.stripe.com/test_1", asked=form,
            metadata=form["metadata"],
        )  # fmt: skip

    async def update_link(self, form: dict[str, Any], request: web.Request) -> dict[str, Any]:
        link = self._found(request)
        link["active"] = form["active"] == "true"
        return link

    async def create_refund(self, form: dict[str, Any], _: web.Request) -> dict[str, Any]:
        charge = self.objects[form["payment_intent"]]["latest_charge"]
        if int(form["amount"]) > charge["amount"] - charge["amount_refunded"]:
            raise Failure(400, "invalid_request_error", "charge_already_refunded", "It has been refunded.")
        charge["amount_refunded"] += int(form["amount"])
        return self.made(
            "re", object="refund", amount=int(form["amount"]), currency=charge["currency"],
            payment_intent=form["payment_intent"], charge=charge["id"], status="succeeded",
        )  # fmt: skip

    async def invoice_payments(self, form: dict[str, Any], _: web.Request) -> dict[str, Any]:
        intent = self.objects[form["invoice"]]["intent"]
        payment = {"type": "payment_intent", "payment_intent": intent}
        return {
            "object": "list",
            "data": [{"id": "inpay_1", "payment": payment}],
            "has_more": False,
            "url": "/v1/x",
        }

    def _found(self, request: web.Request) -> dict[str, Any]:
        found = self.objects.get(request.match_info["id"])
        if found is None:
            raise Failure(404, "invalid_request_error", "resource_missing", "No such object.")
        return found

    def _expanded(self, found: dict[str, Any], paths: list[str]) -> dict[str, Any]:
        wanted = any(path.startswith("payment_intent") for path in paths)
        intent = self.objects.get(found.get("payment_intent") or "")
        return found | {"payment_intent": intent} if wanted and intent else found

    @web.middleware
    async def _answer(self, request: web.Request, handler: Callable[..., Any]) -> web.StreamResponse:
        if request.headers.get("Authorization") != f"Bearer {KEY}":
            body = {
                "error": {"type": "invalid_request_error", "message": "Invalid API Key provided: sk_****"}
            }
            return web.json_response(body, status=401)
        text = await request.text() if request.method == "POST" else request.query_string
        key = request.headers.get("Idempotency-Key", "")
        self.calls.append((f"{request.method} {request.path}", tree(text)))
        if request.method == "POST" and key in self.kept:
            asked, status, body = self.kept[key]
            if asked != text:
                return web.json_response(
                    {"error": {"type": "idempotency_error", "message": "Reused."}}, status=400
                )
            return web.json_response(body, status=status, headers={"Idempotent-Replayed": "true"})
        try:
            # The router has matched the handler already; ours takes the form beside the request.
            matched: Any = request.match_info.handler
            status, answer = 200, await matched(tree(text), request)
        except Failure as failure:
            status, answer = failure.status, failure.body
        if request.method == "POST":
            self.kept[key] = (text, status, answer)
        return web.json_response(answer, status=status)
