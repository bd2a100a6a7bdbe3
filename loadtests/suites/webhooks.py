"""Webhooks in: events as Stripe sends them, each signed, some of them again as after an answer that was lost."""

import time
import uuid
from collections.abc import Mapping

import msgspec

from loadtests.suites.user import Action, LoadUser
from ops.stripe_events import payment_intent_succeeded, stripe_signature

PATH = "/webhooks/stripe"
CURRENCY = "kzt"
#: Events of the newest that may come again.
REMEMBERED = 100
_newest: list[bytes] = []


def _send(user: LoadUser, name: str, body: bytes) -> None:
    signature = stripe_signature(body, user.given.stripe_secret, int(time.time()))
    user.call(name, PATH, body, headers={"Stripe-Signature": signature})


def succeed(user: LoadUser) -> None:
    """Tell of one payment that succeeded, for an account of the ledger."""
    event = payment_intent_succeeded(
        user.draw.choice(user.given.accounts),
        event_id=f"evt_{uuid.uuid4().hex}",
        intent=f"pi_{uuid.uuid4().hex}",
        amount=user.draw.randint(1, 9999),
        currency=CURRENCY,
    )
    body = msgspec.json.encode(event)
    _send(user, "POST /webhooks/stripe", body)
    _newest.append(body)
    del _newest[:-REMEMBERED]


def repeat(user: LoadUser) -> None:
    """Send one of the newest events again, with a signature of its own. Without any, send a new one."""
    if not _newest:
        succeed(user)
    _send(user, "POST /webhooks/stripe (again)", user.draw.choice(_newest))


DECK: Mapping[Action, int] = {succeed: 8, repeat: 2}


class Stripe(LoadUser):
    """One of Stripe's senders."""

    deck = DECK
