"""A peak at one merchant: every payment credits the one wallet, which is the row that all of them wait for."""

from collections.abc import Mapping
from urllib.parse import quote

from loadtests.suites.given import Shop
from loadtests.suites.user import Action, LoadUser, new_key


def _shop(user: LoadUser) -> Shop:
    if user.given.shop is None:
        raise ValueError("this suite needs a merchant")
    return user.given.shop


def _pay(user: LoadUser, name: str, **body: object) -> None:
    body["idempotency_key"] = new_key()
    user.call(name, "/payments/merchant/pay", body, token=user.person.token)


def pay_static(user: LoadUser) -> None:
    """Pay any amount at the code on the wall."""
    amount = user.draw.randint(1, 99)
    _pay(user, "POST /payments/merchant/pay", code=_shop(user).code, amount_cents=amount)


def pay_at_till(user: LoadUser) -> None:
    """Be a till that makes a code, the customer who pays it, and the till that sees it paid."""
    token = _shop(user).owner.token
    amount = {"amount_cents": user.draw.randint(1, 99)}
    code = user.call("POST /payments/merchant/qr", body=amount, token=token)["code"]
    _pay(user, "POST /payments/merchant/pay (once)", code=code)
    path = f"/payments/merchant/qr_status?code={quote(code, safe='')}"
    user.call("GET /payments/merchant/qr_status", path, token=token, expect='"used"')


DECK: Mapping[Action, int] = {pay_static: 8, pay_at_till: 2}


class Payer(LoadUser):
    """A customer in front of the merchant."""

    deck = DECK
