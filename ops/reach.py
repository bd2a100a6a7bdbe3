"""Sentences about a server that cannot be reached: its address, the cause, and the setting that names it."""

from __future__ import annotations

import asyncio
import errno
import os
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import asyncpg
from redis.exceptions import RedisError

from core import migrations
from core.errors import Refusal, Unavailable
from core.redis import open_redis
from core.settings import SettingsError, mask_url
from ops.process import StartError
from ops.state import MissingServerError, operator_settings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from core.settings import Settings

# A server refuses a wrong address with these errors: it is there, and this is not the way in.
_NOT_THE_WAY_IN = (
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.InvalidCatalogNameError,
    asyncpg.CannotConnectNowError,
    asyncpg.TooManyConnectionsError,
)

# Names and rights that are not there; SET ROLE has a state of its own for a role that is not there.
_OF_A_SCHEMA = ("42", asyncpg.InvalidParameterValueError.sqlstate)
_OF_THE_DRIVER = (asyncpg.PostgresError, asyncpg.InterfaceError)

_OF_DISKS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG, errno.EIO)


@contextmanager
def reaching_database(database_url: str) -> Iterator[None]:
    """Raise StartError when the block cannot reach PostgreSQL for any cause.

    The sentence has the name that the address was set under, DATABASE_URL or one of its other names.
    """
    try:
        yield
    except (OSError, Unavailable, *_NOT_THE_WAY_IN) as error:
        cause = error.__cause__ or error
        # The address is not at fault for busy rows, a statement that took too long, or a pipe that nobody reads.
        busy = isinstance(error, Unavailable) and error.code != "database_unavailable"
        if busy or isinstance(cause, asyncpg.QueryCanceledError | BrokenPipeError) or _is_of_a_file(cause):
            raise
        name = getattr(database_url, "given_as", "") or "DATABASE_URL"
        raise StartError(
            f"PostgreSQL at {mask_url(database_url)} ({name}) cannot be reached: {_reason(cause)}."
        ) from error


def schema_problem(error: asyncpg.PostgresError) -> str:
    """Return the sentence about a database that lacks this program's schema, if that is why it answers with `error`.

    The text is empty where something else is at fault. It must not be called in an event loop.
    """
    state = getattr(error, "sqlstate", None) or ""
    if not state.startswith(_OF_A_SCHEMA):
        return ""
    try:
        url = str(operator_settings(redis_needed=False).database_url)
        refusal = asyncio.run(migrations.lacking(url))
    except (Refusal, SettingsError, MissingServerError, StartError, OSError, *_OF_THE_DRIVER):
        return ""
    return "" if refusal is None else refusal.detail


def _is_of_a_file(error: BaseException) -> bool:
    """Whether a file or a folder is at fault, as a full disk under a backup, and no server."""
    return isinstance(error, OSError) and (error.filename is not None or error.errno in _OF_DISKS)


def redis_problem(settings: Settings) -> str:
    """Return the sentence about a Redis that does not answer, or an empty text."""
    try:
        asyncio.run(_ping(settings))
    except (OSError, RedisError) as error:
        # The library's own words repeat the address.
        cause = error.__context__ if isinstance(error.__context__, OSError) else error
        return (
            f"Redis at {mask_url(str(settings.redis_url))} (REDIS_URL) cannot be reached: {_reason(cause)}. "
            "Until it can, PostgreSQL alone guards the transfers."
        )
    return ""


async def _ping(settings: Settings) -> None:
    redis = open_redis(settings)
    try:
        await redis.ping()
    finally:
        with suppress(OSError, RedisError):
            await redis.aclose()


def _reason(error: BaseException) -> str:
    """Return the system's words for a failure, without the address that libraries add to them."""
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, OSError) and error.errno is not None and error.errno > 0:
        return os.strerror(error.errno)
    text = (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
    return text.rstrip(".")
