"""The fixtures of the wallet surface, on whose operations the page stands."""

from tests.handlers.wallets.conftest import (
    browser,
    changed,
    nobody,
    owner,
    person,
    platform,
    round_trips,
    settings,
    shop,
    wallets,
)

__all__ = [
    "browser",
    "changed",
    "nobody",
    "owner",
    "person",
    "platform",
    "round_trips",
    "settings",
    "shop",
    "wallets",
]
