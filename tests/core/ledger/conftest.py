"""The ledger's tests: a book on a database of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator

import asyncpg
import pytest

from core.database import Row
from core.service import Service
from core.settings import Settings
from tests.core.ledger.book import Book


@pytest.fixture
async def owner(settings: Settings) -> AsyncIterator[asyncpg.Connection[Row]]:
    """A connection as the database's owner, who may change what the service never changes."""
    connection = await asyncpg.connect(str(settings.database_url), server_settings={"timezone": "UTC"})
    try:
        yield connection
    finally:
        await connection.close()


@pytest.fixture
async def book(service: Service, owner: asyncpg.Connection[Row]) -> Book:
    """A ledger without accounts."""
    return Book(service, owner)
