"""API keys from creation to revocation, as the processes that serve see them."""

import asyncio
import hashlib
import hmac
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest

from core import metrics
from core.access import api_keys
from core.access.api_keys import SCOPES, ApiKeys, create_key, list_keys, revoke_key
from core.database import Database, open_database
from core.errors import Refusal, Unavailable
from core.settings import Settings
from ops.embedded import EmbeddedServers

CACHE_SECS = 5.0
NO_KEYS = (
    None,
    "",
    "tsk_",
    "Bearer x",
    "sk_live_" + "a" * 60,
    f"tsk_{'A' * 12}_{'A' * 43}",
    f"tsk_{'a' * 12}_{'A' * 42}",
    f"tsk_{'a' * 12}_{'A' * 44}",
    f"tsk_{'a' * 12}_{'A' * 43}\n",
    f" tsk_{'a' * 12}_{'A' * 43}",
    f"tsk_{'a' * 12}_{'A' * 42}\0",
    f"tsk_{'a' * 12}_{chr(0x663) * 43}",  # digits, but not ours
    "\udcff\ud800",  # a header with raw bytes
    "x" * 100_000,
    "'; DROP TABLE api_keys; --",
)


class Clock:
    """A monotonic clock that stands until it is moved."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
async def owner(settings: Settings) -> AsyncIterator[Database]:
    """The database as the command line opens it."""
    database = await open_database(settings, role=None, size=2)
    yield database
    await database.close()


@pytest.fixture
async def serving(settings: Settings) -> AsyncIterator[Database]:
    """The database as a process that serves opens it."""
    database = await open_database(settings)
    yield database
    await database.close()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def keys(serving: Database, clock: Clock) -> ApiKeys:
    return ApiKeys(serving, CACHE_SECS, clock=clock)


def _queries() -> int:
    """How often keys have been looked up in PostgreSQL by this process."""
    line = re.search(
        rb'^database_query_seconds_count\{query="find_api_key"\} (\S+)', metrics.render(), re.MULTILINE
    )
    return int(float(line[1])) if line else 0


async def _refused(keys: ApiKeys, token: str | None) -> Refusal:
    with pytest.raises(Refusal) as refused:
        await keys.authenticate(token)
    assert refused.value.code == "unauthorized"
    return refused.value


async def test_a_key_speaks_for_its_principal(owner: Database, keys: ApiKeys) -> None:
    text, key_id = await create_key(owner, "shop", ["transfers:write", "accounts:read"], "till 1")
    assert re.fullmatch(r"tsk_[a-z2-7]{12}_[A-Za-z0-9_-]{43}", text)
    assert text.startswith(f"tsk_{key_id}_")
    assert keys.peek(text) is None
    principal = await keys.authenticate(text)
    assert principal.name == "shop"
    assert principal.scopes == {"transfers:write", "accounts:read"}
    assert principal.key_id == key_id
    assert keys.peek(text) is principal


async def test_keys_of_one_principal_share_its_id(owner: Database, keys: ApiKeys) -> None:
    first, _ = await create_key(owner, "shop", ["feed:read"])
    second, _ = await create_key(owner, "shop", ["admin"])
    stranger, _ = await create_key(owner, "stranger", ["admin"])
    ids = [(await keys.authenticate(key)).id for key in (first, second, stranger)]
    assert ids[0] == ids[1] != ids[2]


async def test_a_known_key_asks_nobody(owner: Database, keys: ApiKeys) -> None:
    text, _ = await create_key(owner, "shop", SCOPES)
    await keys.authenticate(text)
    before = _queries()
    for _ in range(100):
        assert await keys.authenticate(text) is keys.peek(text)
    assert _queries() == before


async def test_equal_questions_at_once_are_one(owner: Database, keys: ApiKeys) -> None:
    text, key_id = await create_key(owner, "shop", SCOPES)
    before = _queries()
    principals = await asyncio.gather(*(keys.authenticate(text) for _ in range(64)))
    assert {principal.key_id for principal in principals} == {key_id}
    assert _queries() == before + 1


async def test_a_caller_that_hangs_up_does_not_take_the_answer_along(owner: Database, keys: ApiKeys) -> None:
    text, key_id = await create_key(owner, "shop", SCOPES)
    first, second = (asyncio.create_task(keys.authenticate(text)) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    assert (await second).key_id == key_id


async def test_a_revocation_is_in_force_within_the_cache_time(
    owner: Database, keys: ApiKeys, clock: Clock
) -> None:
    text, key_id = await create_key(owner, "shop", SCOPES)
    await keys.authenticate(text)
    revoked_at = await revoke_key(owner, key_id)
    clock.now += CACHE_SECS - 0.001
    assert keys.peek(text) is not None
    clock.now += 0.001
    assert keys.peek(text) is None
    await _refused(keys, text)
    assert await revoke_key(owner, text) == revoked_at, "the first time stays, and the whole key names it too"


async def test_a_key_ends_when_it_expires_whatever_the_cache_says(
    owner: Database, serving: Database, clock: Clock
) -> None:
    keys = ApiKeys(serving, 300, clock=clock)
    text, _ = await create_key(owner, "shop", SCOPES, expires_at=datetime.now(UTC) + timedelta(seconds=100))
    await keys.authenticate(text)
    clock.now += 101
    assert keys.peek(text) is None
    expired, _ = await create_key(owner, "shop", SCOPES, expires_at=datetime.now(UTC) - timedelta(seconds=1))
    await _refused(keys, expired)


async def test_without_a_cache_every_call_asks(owner: Database, serving: Database) -> None:
    keys = ApiKeys(serving, 0)
    text, key_id = await create_key(owner, "shop", SCOPES)
    await keys.authenticate(text)
    await revoke_key(owner, key_id)
    await _refused(keys, text)
    await _refused(keys, text)


async def test_unknown_wrong_and_revoked_keys_sound_the_same(owner: Database, keys: ApiKeys) -> None:
    text, key_id = await create_key(owner, "shop", SCOPES)
    revoked, revoked_id = await create_key(owner, "shop", SCOPES)
    await revoke_key(owner, revoked_id)
    unknown = f"tsk_{'a' * 12}_{'A' * 43}"
    wrong_secret = f"tsk_{key_id}_{'A' * 43}"
    refusals = [await _refused(keys, token) for token in (unknown, wrong_secret, revoked)]
    assert len({refusal.detail for refusal in refusals}) == 1
    assert (await keys.authenticate(text)).key_id == key_id


async def test_a_refused_key_is_remembered_for_the_cache_time(
    owner: Database, keys: ApiKeys, clock: Clock
) -> None:
    unknown = f"tsk_{'a' * 12}_{'A' * 43}"
    before = _queries()
    for _ in range(10):
        await _refused(keys, unknown)
    assert _queries() == before + 1
    clock.now += CACHE_SECS
    await _refused(keys, unknown)
    assert _queries() == before + 2


async def test_what_is_no_key_is_refused_without_a_query(keys: ApiKeys) -> None:
    before = _queries()
    for token in NO_KEYS:
        assert keys.peek(token) is None
        await _refused(keys, token)
    assert _queries() == before


async def test_secrets_are_hashed_and_compared_in_constant_time(
    owner: Database, keys: ApiKeys, monkeypatch: pytest.MonkeyPatch
) -> None:
    text, key_id = await create_key(owner, "shop", SCOPES)
    secret = text.removeprefix(f"tsk_{key_id}_")
    async with owner.transaction() as connection:
        rows = [dict(row) for row in await connection.raw.fetch("SELECT * FROM api_keys")]
    assert rows[0]["secret_hash"] == hashlib.sha256(secret.encode()).digest()
    assert secret not in repr(rows)
    compared: list[tuple[Any, Any]] = []

    compare_digest = hmac.compare_digest

    def compare(first: Any, second: Any) -> bool:
        compared.append((first, second))
        return compare_digest(first, second)

    monkeypatch.setattr("core.access.api_keys.hmac.compare_digest", compare)
    await keys.authenticate(text)
    # An unknown id takes the same path as a wrong secret.
    await _refused(keys, f"tsk_{'a' * 12}_{secret}")
    assert [len(first) for first, _ in compared] == [32, 32]
    assert all(isinstance(part, bytes) for pair in compared for part in pair)
    assert secret not in repr(vars(keys))


async def test_the_cache_is_bounded_and_guesses_do_not_push_out_good_keys(
    owner: Database, keys: ApiKeys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api_keys, "CACHED_KEYS", 3)
    monkeypatch.setattr(api_keys, "CACHED_UNKNOWN", 3)
    texts = [(await create_key(owner, "shop", SCOPES))[0] for _ in range(4)]
    for text in texts[:3]:
        await keys.authenticate(text)
    assert keys.peek(texts[0]) is not None  # a use: now texts[1] is the oldest
    await keys.authenticate(texts[3])
    assert [keys.peek(text) is not None for text in texts] == [True, False, True, True]
    for number in range(10):
        await _refused(keys, f"tsk_{'a' * 12}_{number:043}")
    assert len(keys._unknown) == 3
    assert keys.peek(texts[0]) is not None


async def test_a_database_that_is_gone_is_no_answer_and_is_not_remembered(
    owner: Database,
    keys: ApiKeys,
    clock: Clock,
    servers: EmbeddedServers,
    eventually: Callable[..., Awaitable[Any]],
) -> None:
    text, key_id = await create_key(owner, "shop", SCOPES)
    other, _ = await create_key(owner, "shop", SCOPES)
    await keys.authenticate(text)
    servers.postgres.stop()
    assert (await keys.authenticate(text)).key_id == key_id, "known for a while longer"
    answers = await asyncio.gather(*(keys.authenticate(other) for _ in range(3)), return_exceptions=True)
    assert [type(answer) for answer in answers] == [Unavailable] * 3, answers
    clock.now += CACHE_SECS
    with pytest.raises(Unavailable):
        await keys.authenticate(text)
    servers.postgres.start()

    async def answers_again() -> bool:
        try:
            return (await keys.authenticate(text)).key_id == key_id
        except Unavailable:
            return False

    await eventually(answers_again)


async def test_the_list_shows_states_and_no_secret(owner: Database, keys: ApiKeys) -> None:
    used, used_id = await create_key(owner, "shop", ["feed:read", "admin"], "till", created_by="test")
    await keys.authenticate(used)
    past = datetime.now(UTC) - timedelta(days=1)
    _, expired_id = await create_key(owner, "shop", SCOPES, expires_at=past)
    _, revoked_id = await create_key(owner, "other", SCOPES)
    await revoke_key(owner, revoked_id)
    listed = await list_keys(owner)
    assert [(key.key_id, key.state) for key in listed] == [
        (revoked_id, "revoked"),
        (expired_id, "expired"),
        (used_id, "active"),
    ]
    oldest = listed[-1]
    assert (oldest.scopes, oldest.description, oldest.created_by) == (["admin", "feed:read"], "till", "test")
    assert oldest.last_used_at is not None
    assert listed[0].last_used_at is None
    assert [key.key_id for key in await list_keys(owner, "other")] == [revoked_id]
    assert used.rsplit("_", 1)[1] not in repr(listed)


async def test_a_use_is_written_once_an_hour(owner: Database, keys: ApiKeys, clock: Clock) -> None:
    text, _ = await create_key(owner, "shop", SCOPES)
    await keys.authenticate(text)
    [first] = await list_keys(owner)
    clock.now += CACHE_SECS
    await keys.authenticate(text)
    assert await list_keys(owner) == [first]


@pytest.mark.parametrize(
    ("principal", "scopes", "description", "says"),
    [
        ("shop", [], "", "without a scope"),
        ("shop", ["accounts:read", "accounts:delete"], "", "accounts:delete"),
        ("", ["admin"], "", "name"),
        ("x" * 129, ["admin"], "", "name"),
        ("shop\n", ["admin"], "", "name"),
        ("shop", ["admin"], "x" * 501, "description"),
        ("shop", ["admin"], "\0", "description"),
    ],
)
async def test_a_key_that_makes_no_sense_is_not_made(
    owner: Database, principal: str, scopes: list[str], description: str, says: str
) -> None:
    with pytest.raises(Refusal, match=says) as refused:
        await create_key(owner, principal, scopes, description)
    assert refused.value.code == "invalid_request"
    assert await list_keys(owner) == []


async def test_a_key_that_does_not_exist_cannot_be_revoked(owner: Database) -> None:
    text = f"tsk_{'a' * 12}_{'A' * 43}"
    with pytest.raises(Refusal) as refused:
        await revoke_key(owner, text)
    assert refused.value.code == "not_found"
    assert text not in refused.value.detail


async def test_the_serving_role_reads_keys_and_makes_none(owner: Database, serving: Database) -> None:
    _, key_id = await create_key(owner, "shop", SCOPES)
    for work in (
        create_key(serving, "intruder", SCOPES),
        create_key(serving, "shop", SCOPES),
        revoke_key(serving, key_id),
    ):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await work
