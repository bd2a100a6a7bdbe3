"""Small books for the tests of backups."""

from typing import Any

import asyncpg

from core.ledger.accounts import Limits, Opening, open_accounts
from core.ledger.items import Leg, Outcome, Posting, operation_id
from core.ledger.sealing import seal_once
from core.service import Service


async def open_books(service: Service) -> None:
    openings = [Opening(code, "USD", Limits(floor=None)) for code in ("cash", "shop")]
    await open_accounts(service.database, openings, 1)


async def post(service: Service, number: int) -> Outcome:
    """Move one cent to the shop, under a key that the number makes."""
    legs = (Leg("cash", -1), Leg("shop", 1))
    return await service.ledger.poster.submit(
        Posting(id=operation_id(1, f"{number}"), principal_id=1, legs=legs)
    )


async def seal(service: Service) -> None:
    while await seal_once(service.database):
        pass


async def asked(url: str, statement: str) -> Any:
    connection = await asyncpg.connect(url)
    try:
        return await connection.fetchval(statement)
    finally:
        await connection.close()
