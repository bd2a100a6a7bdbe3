"""The parts that every process of the service opens: settings, database, Redis, and the ledger over them."""

from __future__ import annotations

import gc
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import asyncpg

from core.database import Database, open_database, queries
from core.ledger.ledger import Ledger
from core.ledger.poster import Poster
from core.ledger.posting import EffectiveSpan
from core.migrations import no_schema
from core.redis import open_redis
from core.work.traces import traces_kept

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from redis.asyncio import Redis

    from core.settings import Settings


# Objects made and not freed before the collector looks for cycles among them; 700 by default.
GC_ALLOCATIONS: Final = 20_000


@dataclass(frozen=True, slots=True)
class Service:
    """The parts of one process. `epoch` names the history in the database and begins every key in Redis."""

    settings: Settings
    database: Database
    redis: Redis
    epoch: str
    ledger: Ledger


@asynccontextmanager
async def open_service(settings: Settings) -> AsyncIterator[Service]:
    """Open all parts; at the end post the accepted items and close the parts in reverse order.

    Raises Unavailable when PostgreSQL cannot be reached and Refusal `not_migrated` when it has no schema; Redis may
    be away.
    """
    database, epoch = await open_migrated(settings)
    redis = open_redis(settings)
    try:
        span = EffectiveSpan(settings.effective_max_past_days, settings.effective_max_future_days)
        poster = Poster(database, max_waiting=settings.poster_max_waiting, effective_span=span)
        try:
            async with traces_kept(settings):
                yield Service(settings, database, redis, epoch, Ledger(database, poster))
        finally:
            await poster.close()
    finally:
        await redis.aclose()
        await database.close()


def spare_the_collector() -> None:
    """Tell the collector of this process, once it has started, that hardly anything here is for it."""
    # Objects that exist now stay for good: the collector need not look at them again.
    gc.collect()
    gc.freeze()
    # A request makes hundreds of objects and no cycles; at the default the looks for them took 6 % of the time.
    gc.set_threshold(GC_ALLOCATIONS)


async def open_migrated(settings: Settings, *, size: int | None = None) -> tuple[Database, str]:
    """Open a pool of a database that has the schema; return it and the epoch of the database's history.

    Raises Unavailable when PostgreSQL cannot be reached and Refusal `not_migrated` when it has no schema.
    """
    try:
        database = await open_database(settings, size=size)
    except asyncpg.InvalidParameterValueError as error:  # SET ROLE: a new server has no such role
        raise no_schema() from error
    try:
        return database, await read_epoch(database)
    except BaseException:
        await database.close()
        raise


async def read_epoch(database: Database) -> str:
    """Return the epoch of the database's history. Raises Refusal `not_migrated` where there is none."""
    try:
        epoch: str | None = await database.fetchval(queries(__name__).epoch)
    except asyncpg.UndefinedTableError as error:
        raise no_schema() from error
    if epoch is None:
        raise no_schema()
    return epoch
