"""Services of the operator's own that call us, each by a key: from our own table, or as an auth service answers.

The table is asked first. A key that it does not know is asked at the auth service, if one is set. Answers are believed
for some seconds, and "the auth service is away" for one: a service that is back is believed at once.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import re
import secrets
import time
from collections import OrderedDict
from contextlib import suppress
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from core.access.api_keys import LISTED_KEYS, KeyInfo
from core.database import queries
from core.errors import Refusal, Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from datetime import datetime

    from core.database import Database

_sql = queries(__name__)

# Keys of other systems may come in, too; no longer header is one.
MOST_KEY_BYTES: Final = 1_024
# Answers that a process remembers, of about 500 bytes each. Nobody has as many services.
REMEMBERED: Final = 10_000
AWAY_SECONDS: Final = 1.0
MOST_NAME: Final = 128
ALL: Final = ":all"
"""The end of a word in a list of access that lets its holder see the payments of all callers."""

_KEY = re.compile(r"tsi_([a-z2-7]{12})_[A-Za-z0-9_-]{43}", re.ASCII)


class InternalCaller(NamedTuple):
    """A service that has shown its key, and the services that it may call."""

    name: str
    allowed_access: frozenset[str]

    def may_call(self, service: str) -> bool:
        """Whether it may call the service of this name at all."""
        return service in self.allowed_access or self.sees_all(service)

    def sees_all(self, service: str) -> bool:
        """Whether it sees there what others have made."""
        return f"{service}{ALL}" in self.allowed_access


class AuthService(Protocol):
    """An auth service of the operator's own."""

    async def validate(self, key: str) -> InternalCaller | None:
        """Return the holder of a key, None for a key that is refused. Raises Unavailable `auth_service_away`."""

    async def close(self) -> None:
        """Close connections."""


class InternalCallers:
    """The services' keys as one process knows them."""

    def __init__(
        self,
        database: Database,
        cache_secs: float,
        auth: AuthService | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._database = database
        self._cache_secs = cache_secs
        self._auth = auth
        self._clock = clock
        # Answers by the hash of the key, with the time until which they count; None for a key that nobody knows.
        self._known: OrderedDict[bytes, tuple[InternalCaller | Refusal, float]] = OrderedDict()
        self._asking: dict[bytes, asyncio.Task[InternalCaller | Refusal]] = {}

    async def authenticate(self, key: str) -> InternalCaller:
        """Return the service that holds a key. Requests with one key at the same time share the question.

        Raises Refusal `unauthorized`, and Unavailable when nobody can be asked: the key may be good.
        """
        raw = key.encode("utf-8", "surrogatepass")
        if len(raw) > MOST_KEY_BYTES:
            raise _unknown()
        digest = hashlib.sha256(raw).digest()
        known = self._known.get(digest)
        if known is not None and known[1] > self._clock():
            self._known.move_to_end(digest)
            return _holder(known[0])
        task = self._asking.get(digest)
        if task is None:
            task = self._asking[digest] = asyncio.create_task(self._ask(digest, key))
            task.add_done_callback(lambda ended: self._asked(digest, ended))
        # The question is shielded: a caller that hangs up must not take the answer from others who wait for it.
        return _holder(await asyncio.shield(task))

    async def close(self) -> None:
        """Close the connection to the auth service."""
        if self._auth is not None:
            await self._auth.close()

    async def _ask(self, digest: bytes, key: str) -> InternalCaller | Refusal:
        # The time is taken before the question, because the key may be revoked while the answer travels.
        asked_at, seconds = self._clock(), self._cache_secs
        answer: InternalCaller | Refusal
        row = await self._database.fetchrow(_sql.find_internal_caller, digest)
        if row is not None:
            answer = InternalCaller(row["name"], frozenset(row["allowed_access"]))
            seconds = min(seconds, row["seconds_left"] or seconds)
            if row["use_is_news"]:
                with suppress(Refusal):  # a database that cannot write now is no reason to turn a caller away
                    await self._database.execute(_sql.touch_internal_caller, row["key_id"])
        elif self._auth is None:
            answer = _unknown()
        else:
            try:
                answer = await self._auth.validate(key) or _unknown()
            except Unavailable as away:
                answer, seconds = away, AWAY_SECONDS
        self._known[digest] = (answer, asked_at + seconds)
        self._known.move_to_end(digest)
        if len(self._known) > REMEMBERED:
            self._known.popitem(last=False)
        return answer

    def _asked(self, digest: bytes, task: asyncio.Task[InternalCaller | Refusal]) -> None:
        del self._asking[digest]
        # Every waiter may have gone, and then the error must not become a "never retrieved" warning.
        if not task.cancelled():
            task.exception()


def _holder(answer: InternalCaller | Refusal) -> InternalCaller:
    if isinstance(answer, Unavailable):
        raise Unavailable(answer.detail, code=answer.code, retry_after=AWAY_SECONDS)
    if isinstance(answer, Refusal):
        raise _unknown()
    return answer


def _unknown() -> Refusal:
    return Refusal("unauthorized", "invalid or expired api key")


async def create_caller(
    database: Database,
    name: str,
    allowed_access: Iterable[str],
    description: str = "",
    expires_at: datetime | None = None,
    *,
    created_by: str = "operator",
) -> tuple[str, str]:
    """Make a key for the service of this name. Return the key's text, never shown again, and its id.

    `database` is opened with the owner's role. Raises Refusal `invalid_request` for a name or description that does
    not fit.
    """
    if not 1 <= len(name) <= MOST_NAME or not name.isprintable() or name != name.strip():
        raise Refusal(
            "invalid_request",
            "A caller's name has 1 to 128 printable characters, none of them at the edge blank.",
        )
    if len(description) > 500 or "\0" in description:
        raise Refusal("invalid_request", "A description has at most 500 characters.")
    key_id = base64.b32encode(secrets.token_bytes(8)).decode().lower()[:12]
    key = f"tsi_{key_id}_{secrets.token_urlsafe(32)}"
    digest = hashlib.sha256(key.encode()).digest()
    wanted = sorted(set(allowed_access))
    await database.execute(
        _sql.insert_internal_caller, key_id, name, digest, wanted, description, expires_at, created_by
    )
    return key, key_id


async def list_callers(database: Database, name: str | None = None) -> list[KeyInfo]:
    """Return the newest 10,000 keys of services, newest first, of one service or of all; `scopes` are their access."""
    rows = await database.fetch(_sql.list_internal_callers, name, LISTED_KEYS)
    return [KeyInfo.of(row) for row in rows]


async def revoke_caller(database: Database, key_id: str) -> datetime | None:
    """End a key and return the time from which it is revoked, None for an unknown id; `key_id` may be the whole key."""
    whole = _KEY.fullmatch(key_id)
    revoked_at: datetime | None = await database.fetchval(
        _sql.revoke_internal_caller, whole[1] if whole else key_id
    )
    return revoked_at
