"""The ledger's tests: a book on a database of its own, and how long the property tests search."""

from collections.abc import AsyncIterator

import asyncpg
import hypothesis
import pytest

from core.service import Service
from core.settings import Settings
from tests.core.ledger.book import Book

# The suite runs the same few examples each time; `make fuzz` draws new ones for as long as one likes.
_CHECKS = [hypothesis.HealthCheck.function_scoped_fixture, hypothesis.HealthCheck.too_slow]
hypothesis.settings.register_profile(
    "suite", max_examples=30, derandomize=True, database=None, deadline=None, suppress_health_check=_CHECKS
)
hypothesis.settings.register_profile(
    "fuzz", max_examples=2_000, deadline=None, suppress_health_check=_CHECKS, print_blob=True
)
if hypothesis.settings.get_current_profile_name() == "default":
    hypothesis.settings.load_profile("suite")


@pytest.fixture
async def owner(settings: Settings) -> AsyncIterator[asyncpg.Connection[asyncpg.Record]]:
    """A connection as the database's owner, who may change what the service never changes."""
    connection = await asyncpg.connect(str(settings.database_url), server_settings={"timezone": "UTC"})
    try:
        yield connection
    finally:
        await connection.close()


@pytest.fixture
async def book(service: Service, owner: asyncpg.Connection[asyncpg.Record]) -> Book:
    """A ledger without accounts."""
    return Book(service, owner)
