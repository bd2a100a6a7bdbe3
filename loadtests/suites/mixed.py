"""A day at the service: every surface at once, weighted as people and programs use them."""

from collections.abc import Mapping

from locust import between

from loadtests.suites import payments, qr, transfers, wallets, webhooks
from loadtests.suites.user import Action, LoadUser

DECK: Mapping[Action, int] = {
    **transfers.DECK,
    **{action: 2 * count for action, count in wallets.DECK.items()},
    **qr.DECK,
    **webhooks.DECK,
    **payments.DECK,
}


class Anybody(LoadUser):
    """Each user plays everybody in turn, so that few users make every request."""

    wait_time = between(0.02, 0.1)
    deck = DECK
