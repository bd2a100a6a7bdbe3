"""Payments through a provider, which is the simulator: merchants' orders by link, and payments of services."""

import uuid
from collections.abc import Mapping
from urllib.parse import urlsplit

from locust import between

from loadtests.suites.user import Action, LoadUser


def order(user: LoadUser) -> None:
    """Be a merchant with an order, the customer who pays it, and the merchant who asks again and looks."""
    headers = {"X-API-Key": user.given.orders_key}
    body = {
        "order_id": user.draw.randrange(1, 2**53),
        "amount": 2,
        "price": f"{user.draw.randint(1, 99)}.50",
        "alias": "paypal",
    }
    made = user.call("POST /api/v1/payments", body=body, headers=headers)
    _click(user, "simulator: pay link", f"{made['payment_url']}/accept")
    user.call("POST /api/v1/payments (again)", "/api/v1/payments", body, headers=headers)
    path = f"/api/v1/payments/{made['payment_id']}/show"
    user.call("GET /api/v1/payments/{id}/show", path, headers=headers, expect="PAYMENT_FINISHED")


def ask(user: LoadUser) -> None:
    """Be a service that asks for a payment, its customer who pays, and the service that looks."""
    headers = {"X-API-Key": user.given.service_key, "X-Request-ID": uuid.uuid4().hex}
    body = {
        "caller_service": user.given.service,
        "resource_type": "order",
        "resource_id": uuid.uuid4().hex,
        "amount_cents": user.draw.randint(100, 9999),
        "currency": "USD",
        "payment_method": 1,
        "payment_type": 1,
        "status_callback_url": user.given.callback_url,
    }
    payment = user.call("POST /payments", body=body, headers=headers)["payment"]
    page = urlsplit(payment["checkout_url"])
    paid = f"{page.scheme}://{page.netloc}/v1/payments/{page.path.rpartition('/')[2]}/pay"
    _click(user, "simulator: pay", paid, b'{"outcome":"paid"}')
    user.call("GET /payments/{id}", f"/payments/{payment['id']}", headers=headers)


def _click(user: LoadUser, name: str, url: str, body: bytes = b"{}") -> None:
    user.call(f"POST {name}", url, body, measured_as=name)


DECK: Mapping[Action, int] = {order: 1, ask: 1}


class Shop(LoadUser):
    """A merchant, a service and their customers, who take a moment at the provider's page."""

    wait_time = between(0.05, 0.2)
    deck = DECK
