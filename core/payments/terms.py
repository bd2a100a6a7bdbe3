"""Terms: a merchant's settings at a provider, such as a BIN and a device token, as a call of the provider needs them.

They are secrets of the merchant, so no attempt keeps them. They are read anew for each call.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from core.payments.kaspi import configs
from core.payments.orders.terms import links_terms
from core.providers import kaspi_words as kaspi
from core.providers import links

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from core.database import Database
    from core.payments.payments import Payment
    from core.vault import Vault

# The reader of the terms of each provider that has some. It raises Refusal where a merchant has none: no call goes out.
READERS: Final[Mapping[str, Callable[[Database, Vault, Payment], Awaitable[Mapping[str, str]]]]] = {
    kaspi.NAME: configs.terms,
    links.NAME: links_terms,
}


class Terms:
    """The terms of all merchants at all providers."""

    def __init__(self, database: Database, vault: Vault) -> None:
        self._database = database
        self._vault = vault

    async def of(self, payment: Payment, provider: str) -> Mapping[str, str]:
        """Return the terms of a payment's merchant at a provider, empty where it has none to know. Raises Refusal."""
        read = READERS.get(provider)
        return {} if read is None else await read(self._database, self._vault, payment)
