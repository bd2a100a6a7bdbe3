"""The data that a suite is given: who calls the service, and what was prepared there before the load began."""

from pathlib import Path

import msgspec


class Person(msgspec.Struct, frozen=True):
    """Somebody with a wallet: their phone and the token of their sign-in."""

    phone: str
    token: str


class Shop(msgspec.Struct, frozen=True):
    """A merchant, and the text of their static code, which everybody may pay any amount at."""

    owner: Person
    code: str


class Given(msgspec.Struct, frozen=True, kw_only=True):
    """The keys and the data of one run. A field that the suite does not need is empty.

    With `once`, each user does each action once and leaves. `accounts` may owe, so that no transfer is refused.
    `orders_key` is a merchant's, `service_key` is that of a service named `service`, and what happens to its payments
    is told to `callback_url`. `results` is where Locust's process writes what it has measured.
    """

    suite: str
    results: str
    once: bool = False
    api_key: str = ""
    stripe_secret: str = ""
    accounts: tuple[str, ...] = ()
    people: tuple[Person, ...] = ()
    shop: Shop | None = None
    orders_key: str = ""
    service_key: str = ""
    service: str = ""
    callback_url: str = ""


def read_given(path: Path) -> Given:
    """Read what `write_secret` wrote: the file holds keys, so only its owner can read it."""
    return msgspec.json.decode(path.read_bytes(), type=Given)
