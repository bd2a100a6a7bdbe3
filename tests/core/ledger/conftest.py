"""The ledger's tests: a book on a database of its own, and how long the property tests search."""

from __future__ import annotations

from collections.abc import AsyncIterator

import asyncpg
import hypothesis
import pytest

from core.database import Row
from core.service import Service
from core.settings import Settings
from tests.core.ledger.book import Book

# For `make fuzz`: as long as one likes, with new examples each time. The suite has its own settings beside its tests.
hypothesis.settings.register_profile(
    "fuzz",
    max_examples=2_000,
    deadline=None,
    print_blob=True,
    suppress_health_check=[
        hypothesis.HealthCheck.function_scoped_fixture,
        hypothesis.HealthCheck.too_slow,
        hypothesis.HealthCheck.data_too_large,
    ],
)


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
