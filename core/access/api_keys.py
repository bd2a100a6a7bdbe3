"""API keys: made once, stored hashed, compared in constant time, and known to each process for a few seconds.

A key reads `tsk_<id>_<secret>`. The fixed prefix and length let secret scanners find a leaked key by a pattern. The id,
which is no secret, names the key in logs, lists and revocations. The secret holds 256 random bits, so a plain SHA-256
is enough: a slow hash makes guesses of weak passwords expensive, and nobody can guess these.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import re
import secrets
import time
from collections import OrderedDict
from contextlib import suppress
from datetime import datetime
from typing import TYPE_CHECKING, TypeVar

import msgspec

from core.database import queries
from core.errors import Refusal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from core.database import Database, Row

Value = TypeVar("Value")

SQL = queries(__name__)

SCOPES = (
    "accounts:read",
    "accounts:write",
    "accounts:system",
    "transfers:read",
    "transfers:write",
    "holds:read",
    "holds:write",
    "feed:read",
    "webhooks:read",
    "webhooks:write",
    "kaspi:read",
    "kaspi:write",
    "admin",
)

# A process remembers so many keys of about 500 bytes each. A key that 10,000 others followed is on no hot path.
CACHED_KEYS = 10_000
# Unknown keys are remembered apart, so that guesses cannot push out good ones.
CACHED_UNKNOWN = 10_000
# One list shows at most so many keys; an operator with more asks by principal.
LISTED_KEYS = 10_000

_KEY = re.compile(r"tsk_([a-z2-7]{12})_([A-Za-z0-9_-]{43})", re.ASCII)
# An unknown id is compared with this hash, so that it takes as long as a wrong secret.
_NO_HASH = bytes(32)


class Principal(msgspec.Struct, frozen=True):
    """The principal of a call, with the scopes of the API key at hand."""

    id: int
    name: str
    scopes: frozenset[str]
    key_id: str


class KeyInfo(msgspec.Struct, frozen=True):
    """A key as an operator sees it. `state`: active, expired or revoked; `last_used_at` is right to the hour."""

    key_id: str
    principal: str
    scopes: list[str]
    description: str
    state: str
    created_by: str
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None

    @classmethod
    def of(cls, row: Row) -> KeyInfo:
        """Return the key of a row."""
        state = "revoked" if row["revoked_at"] else "expired" if row["expired"] else "active"
        return cls(state=state, **{name: row[name] for name in cls.__struct_fields__ if name != "state"})


class ApiKeys:
    """The keys as one process knows them.

    An entry is believed for `cache_secs` seconds, or until the key expires if that is sooner, so a revocation is in
    force everywhere within that time. With the database gone, a key that is not in the cache is answered with
    Unavailable and not with a stale yes, because no call can do anything without the database.
    """

    def __init__(
        self, database: Database, cache_secs: float, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._database = database
        self._cache_secs = cache_secs
        self._clock = clock
        # Entries lie under the SHA-256 of the whole key: no secret stays in memory, and no lookup compares its bytes.
        self._known: OrderedDict[bytes, tuple[Principal, float]] = OrderedDict()
        self._unknown: OrderedDict[bytes, float] = OrderedDict()
        self._asking: dict[bytes, asyncio.Task[Principal]] = {}

    def peek(self, token: str | None) -> Principal | None:
        """Return the principal if this process knows the key, without a wait; None means: ask `authenticate`."""
        if token is None:
            return None
        digest = _digest(token)
        entry = self._known.get(digest)
        if entry is None or entry[1] <= self._clock():
            return None
        self._known.move_to_end(digest)
        return entry[0]

    async def authenticate(self, token: str | None) -> Principal:
        """Return the principal of a key. Requests with the same key at the same time share one query.

        Raises Refusal `unauthorized` for a key that is absent, malformed, unknown, revoked or expired (the refusal does
        not tell which of the last three), and Unavailable when the database cannot be asked.
        """
        if not token:
            raise Refusal("unauthorized", "An API key is needed. Send it as `Authorization: Bearer tsk_...`.")
        found = _KEY.fullmatch(token)
        if found is None:
            raise Refusal(
                "unauthorized",
                "This is not a whole API key. Keys read tsk_, then 12 characters, then _, then 43 characters.",
            )
        principal = self.peek(token)
        if principal is not None:
            return principal
        digest = _digest(token)
        if self._unknown.get(digest, 0.0) > self._clock():
            raise _not_valid()
        task = self._asking.get(digest)
        if task is None:
            task = self._asking[digest] = asyncio.create_task(self._look_up(digest, found[1], found[2]))
            task.add_done_callback(_retrieve)
        # The query is shielded: a caller that hangs up must not take the answer from others who wait for it.
        return await asyncio.shield(task)

    async def _look_up(self, digest: bytes, key_id: str, secret: str) -> Principal:
        try:
            # The time is taken before the query, because the key may be revoked while the answer travels.
            asked_at = self._clock()
            row = await self._database.fetchrow(SQL.find_api_key, key_id)
            matches = hmac.compare_digest(row["secret_hash"] if row is not None else _NO_HASH, _hash(secret))
            if row is None or not matches or row["ended"]:
                _remember(self._unknown, digest, asked_at + self._cache_secs, CACHED_UNKNOWN)
                raise _not_valid()
            principal = Principal(
                row["principal_id"], row["principal_name"], frozenset(row["scopes"]), key_id
            )
            seconds = (
                self._cache_secs
                if row["seconds_left"] is None
                else min(self._cache_secs, row["seconds_left"])
            )
            _remember(self._known, digest, (principal, asked_at + seconds), CACHED_KEYS)
            if row["use_is_news"]:
                with suppress(Refusal):  # a database that cannot write now is no reason to turn a caller away
                    await self._database.execute(SQL.touch_api_key, key_id)
            return principal
        finally:
            del self._asking[digest]


async def create_key(
    database: Database,
    principal_name: str,
    scopes: Iterable[str],
    description: str = "",
    expires_at: datetime | None = None,
    *,
    created_by: str = "operator",
) -> tuple[str, str]:
    """Make a key for the principal of this name, made if new. Return the key's text, never shown again, and its id.

    `database` is opened with the owner's role. Raises Refusal `invalid_request` for an unknown scope, for no scope at
    all, and for a name or description that is too long.
    """
    wanted = sorted(set(scopes))
    unknown = [scope for scope in wanted if scope not in SCOPES]
    if unknown or not wanted:
        problem = (
            f"There is no scope {unknown[0]!r}." if unknown else "A key without a scope could do nothing."
        )
        raise Refusal("invalid_request", f"{problem} Scopes: {', '.join(SCOPES)}.")
    if not 1 <= len(principal_name) <= 128 or not principal_name.isprintable():
        raise Refusal("invalid_request", "A principal's name has 1 to 128 printable characters.")
    if len(description) > 500 or "\0" in description:
        raise Refusal("invalid_request", "A description has at most 500 characters.")
    key_id = base64.b32encode(secrets.token_bytes(8)).decode().lower()[:12]
    secret = secrets.token_urlsafe(32)
    async with database.transaction() as connection:
        principal_id = await connection.fetchval(SQL.ensure_principal, principal_name)
        await connection.execute(
            SQL.insert_api_key,
            key_id,
            principal_id,
            _hash(secret),
            wanted,
            description,
            expires_at,
            created_by,
        )
    return f"tsk_{key_id}_{secret}", key_id


async def list_keys(database: Database, principal_name: str | None = None) -> list[KeyInfo]:
    """Return the newest 10,000 keys, newest first, of one principal or of all."""
    rows = await database.fetch(SQL.list_api_keys, principal_name, LISTED_KEYS)
    return [KeyInfo.of(row) for row in rows]


async def revoke_key(database: Database, key_id: str) -> datetime:
    """End a key and return the time from which it is revoked; a second call changes nothing.

    `key_id` may also be the whole key. Raises Refusal `not_found` for an unknown id.
    """
    whole = _KEY.fullmatch(key_id)
    key_id = whole[1] if whole else key_id
    revoked_at: datetime | None = await database.fetchval(SQL.revoke_api_key, key_id)
    if revoked_at is None:
        raise Refusal(
            "not_found", f"There is no API key with the id {key_id!r}. `tallystick keys list` shows them."
        )
    return revoked_at


def _digest(token: str) -> bytes:
    # A header with raw bytes arrives with lone surrogates in it; that is no key of ours, and no reason to fail either.
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()


def _hash(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()


def _not_valid() -> Refusal:
    return Refusal(
        "unauthorized", "This API key is not valid: it does not exist, was revoked, or has expired."
    )


def _remember(cache: OrderedDict[bytes, Value], digest: bytes, value: Value, bound: int) -> None:
    cache[digest] = value
    cache.move_to_end(digest)
    if len(cache) > bound:
        cache.popitem(last=False)


def _retrieve(task: asyncio.Task[Principal]) -> None:
    # Every waiter may have gone, and then the error must not become a "never retrieved" warning.
    if not task.cancelled():
        task.exception()
