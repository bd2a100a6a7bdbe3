"""`tallystick dlq` and `tallystick backfill` as a person and a script use them."""

import asyncio
import json
import subprocess
import uuid
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import pytest

from core import ids
from core.database import Database, open_database
from core.inbox import replays
from core.settings import Settings
from tests import commands

Run = Callable[..., Coroutine[Any, Any, "subprocess.CompletedProcess[str]"]]


@pytest.fixture
async def database(settings: Settings) -> AsyncIterator[Database]:
    database = await open_database(settings)
    yield database
    await database.close()


@pytest.fixture
async def letters(database: Database) -> list[str]:
    """Three dead letters, the oldest first."""
    found = []
    for number in range(3):
        id_ = ids.new_uuid()
        found.append(str(id_))
        await database.connections.pool.execute(
            "INSERT INTO inbox_events (id, provider, event_id, event_type, headers, body, state, outcome, attempts,"
            " last_error, finished_at) VALUES ($1, 'stripe', $2, 'charge.refunded', '{}', $3, 'dead', $4, 12,"
            " '[bold]busy[/bold]', now())",
            id_,
            f"evt_{number}",
            b'{"a":1}\x1b[31m',
            "busy" if number else "odd",
        )
    return found


@pytest.fixture
def tallystick(settings: Settings) -> Run:
    """Runs `tallystick` in a process of its own."""

    async def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return await commands.tallystick(
            *arguments,
            DATABASE_URL=str(settings.database_url),
            REDIS_URL=str(settings.redis_url),
            ENV="test",
            STATE_DIR=settings.state_dir,
        )

    return run


async def states(database: Database) -> list[str]:
    rows = await database.connections.pool.fetch(
        "SELECT coalesce(outcome, state) AS word FROM inbox_events ORDER BY id"
    )
    return [row["word"] for row in rows]


async def test_list_and_show(tallystick: Run, letters: list[str]) -> None:
    listed = await tallystick("dlq", "list", "--json", "--reason", "busy", "--since", "1h")
    assert listed.returncode == 0, listed.stderr
    assert [letter["id"] for letter in json.loads(listed.stdout)] == letters[:0:-1]
    table = await tallystick("dlq", "list")
    assert all(letter in table.stdout for letter in letters)
    assert "[bold]busy[/bold]" in table.stdout
    shown = await tallystick("dlq", "show", letters[0])
    assert shown.returncode == 0, shown.stderr
    assert '{"a":1}\\x1b[31m' in shown.stdout
    assert "\x1b" not in shown.stdout
    letter = json.loads((await tallystick("dlq", "show", letters[0], "--json")).stdout)
    assert (letter["event_id"], letter["reason"]) == ("evt_0", "odd")


async def test_replay_one_and_discard_one(tallystick: Run, letters: list[str], database: Database) -> None:
    replayed = await tallystick("dlq", "replay", letters[0])
    assert replayed.returncode == 0, replayed.stderr
    discarded = await tallystick("dlq", "discard", letters[1], "--reason", "a test")
    assert discarded.returncode == 0, discarded.stderr
    assert await states(database) == ["pending", "discarded", "busy"]
    row = await database.connections.pool.fetchrow("SELECT * FROM inbox_actions WHERE reason IS NOT NULL")
    assert row is not None
    assert row["actor"].startswith("command line")
    again = await tallystick("dlq", "discard", letters[1], "--reason", "a test")
    assert again.returncode == 1
    assert "is done" in again.stderr


async def test_replay_by_filter_follows_the_worker(
    tallystick: Run, letters: list[str], database: Database
) -> None:
    running = asyncio.create_task(tallystick("dlq", "replay", "--reason", "busy", "--json"))
    while not running.done():
        await replays.step(database)
        await asyncio.wait([running], timeout=0.05)
    done = running.result()
    assert done.returncode == 0, done.stderr
    ended = json.loads(done.stdout)
    assert (ended["state"], ended["matched"], ended["replayed"]) == ("done", 2, 2)
    assert await states(database) == ["odd", "pending", "pending"]


async def test_replay_all_without_waiting(tallystick: Run, letters: list[str], database: Database) -> None:
    begun = await tallystick("dlq", "replay", "--all", "--no-wait", "--per-second", "7", "--json")
    assert begun.returncode == 0, begun.stderr
    replay = json.loads(begun.stdout)
    assert (replay["state"], replay["matched"], replay["per_second"]) == ("running", 3, 7)


@pytest.mark.parametrize(
    "arguments",
    [
        ("replay",),
        ("replay", str(uuid.UUID(int=1)), "--all"),
        ("replay", "--all", "--reason", "busy"),
        ("replay", "--all", "--per-second", "0"),
        ("show", "1"),
        ("discard", str(uuid.UUID(int=1))),
        ("discard", str(uuid.UUID(int=1)), "--reason", ""),
        ("list", "--limit", "0"),
        ("list", "--since", "yesterday"),
    ],
)
async def test_wrong_usage_is_exit_code_2(tallystick: Run, arguments: tuple[str, ...]) -> None:
    assert (await tallystick("dlq", *arguments)).returncode == 2


async def test_what_is_not_there_is_exit_code_1(tallystick: Run) -> None:
    nothing = await tallystick("dlq", "show", str(uuid.UUID(int=1)))
    assert (nothing.returncode, nothing.stdout) == (1, "")
    assert "no dead letter" in nothing.stderr


async def test_backfill_without_a_key_says_so(tallystick: Run) -> None:
    refused = await tallystick("backfill", "stripe", "--since", "12h")
    assert refused.returncode == 1
    assert "STRIPE_SECRET_KEY" in refused.stderr
