"""The terms of the provider of links: the merchant's id and the alias, as its orders name them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from core.providers import links

if TYPE_CHECKING:
    from collections.abc import Mapping

    from core.database import Database
    from core.payments.payments import Payment
    from core.vault import Vault


async def links_terms(_database: Database, _vault: Vault, payment: Payment) -> Mapping[str, str]:
    """Return the terms of a payment by link. A payment that is no order's goes out under its caller's name."""
    told = payment.details.metadata
    return {
        links.MERCHANT: told.get(links.MERCHANT, payment.caller),
        links.ALIAS: told.get(links.ALIAS, links.NAME),
    }
