"""`tallystick keys` as a person and a script use it."""

import json
import re
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from core.access.api_keys import ApiKeys
from core.access.internal_callers import InternalCallers
from core.database import Database, open_database
from core.errors import Refusal
from core.settings import Settings
from tests.commands import tallystick

SERVICE = "payments-service"

Run = Callable[..., Awaitable["subprocess.CompletedProcess[str]"]]


@pytest.fixture
async def database(settings: Settings) -> AsyncIterator[Database]:
    database = await open_database(settings)
    yield database
    await database.close()


@pytest.fixture
def keys(settings: Settings) -> Run:
    """Runs `tallystick keys` in a process of its own, with nothing but DATABASE_URL set."""

    async def run(
        *arguments: str, database_url: str = str(settings.database_url)
    ) -> subprocess.CompletedProcess[str]:
        return await tallystick(
            "keys", *arguments, DATABASE_URL=database_url, ENV="test", STATE_DIR=settings.state_dir
        )

    return run


async def test_a_script_captures_a_key_that_works_until_it_is_revoked(keys: Run, database: Database) -> None:
    made = await keys("create", "--principal", "shop", "--scope", "feed:read", "--scope", "accounts:read")
    assert made.returncode == 0, made.stderr
    key = made.stdout.strip()
    assert re.fullmatch(r"tsk_\w{12}_[\w-]{43}", key)
    assert "not shown again" in made.stderr
    assert key not in made.stderr
    principal = await ApiKeys(database, 0).authenticate(key)
    assert principal.name == "shop"
    assert principal.scopes == {"feed:read", "accounts:read"}

    revoked = await keys("revoke", principal.key_id)
    assert revoked.returncode == 0
    assert revoked.stdout.startswith("Revoked as of ")
    with pytest.raises(Refusal):
        await ApiKeys(database, 0).authenticate(key)


async def test_the_list_is_for_people_and_for_programs(keys: Run) -> None:
    described = ("--description", "till 1", "--expires-in", "90d")
    made = await keys("create", "--principal", "shop", "--scope", "admin", *described)
    key = made.stdout.strip()
    table = (await keys("list")).stdout
    assert all(text in table for text in (key[4:16], "shop", "active", "admin", "till 1"))
    [listed] = json.loads((await keys("list", "--principal", "shop", "--json")).stdout)
    assert (listed["key_id"], listed["state"], listed["scopes"]) == (key[4:16], "active", ["admin"])
    left = datetime.fromisoformat(listed["expires_at"]) - datetime.now(UTC)
    assert timedelta(days=89) < left <= timedelta(days=90)
    assert key[17:] not in table + json.dumps(listed)
    assert json.loads((await keys("list", "--principal", "nobody", "--json")).stdout) == []


async def test_a_callers_key_is_made_listed_and_revoked_like_others(keys: Run, database: Database) -> None:
    told: dict[str, Any] = {}
    for flag, access in (
        ((), [SERVICE]),
        (("--no-access",), []),
        (("--sees-all",), [SERVICE, f"{SERVICE}:all"]),
    ):
        made = await keys("create", "--caller", "payments-gateway", "--json", *flag)
        told = json.loads(made.stdout)
        assert (told["caller"], told["allowed_access"]) == ("payments-gateway", access), made.stderr
        found = await InternalCallers(database, 0).authenticate(told["api_key"])
        assert found == ("payments-gateway", frozenset(access))
    listed = json.loads((await keys("list", "--principal", "payments-gateway", "--json")).stdout)
    assert [one["scopes"] for one in listed] == [[SERVICE, f"{SERVICE}:all"], [], [SERVICE]]
    assert (await keys("revoke", told["key_id"])).returncode == 0
    with pytest.raises(Refusal):
        await InternalCallers(database, 0).authenticate(told["api_key"])


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("create", "--caller", "x", "--principal", "y"), 2, "--principal or --caller"),
        (("create", "--caller", "x", "--scope", "admin"), 2, "no scopes"),
        (("create", "--caller", "x", "--no-access", "--sees-all"), 2, "exclude each other"),
        (("create", "--principal", "x", "--scope", "admin", "--no-access"), 2, "--caller"),
        (("create", "--principal", "shop"), 2, "--scope"),
        (("create", "--scope", "admin"), 2, "--principal"),
        (("create", "--principal", "shop", "--scope", "root"), 1, "transfers:write"),
        (("create", "--principal", "shop", "--scope", "admin", "--expires-in", "soon"), 2, "30m, 12h, 90d"),
        (("create", "--principal", "shop", "--scope", "admin", "--expires-in", "0d"), 2, "30m, 12h, 90d"),
        (("create", "--principal", "shop", "--scope", "admin", "--expires-in", "999999w"), 2, "ten years"),
        (("revoke", "aaaaaaaaaaaa"), 1, "no API key with the id 'aaaaaaaaaaaa'"),
    ],
)
async def test_mistakes_are_explained(keys: Run, arguments: tuple[str, ...], code: int, says: str) -> None:
    failed = await keys(*arguments)
    assert failed.returncode == code
    assert says in " ".join(failed.stderr.split())
    assert failed.stdout == ""
    assert "Traceback" not in failed.stderr


async def test_without_a_database_it_says_what_to_do(keys: Run) -> None:
    failed = await keys("list", database_url="")
    assert failed.returncode == 2
    assert "DATABASE_URL unset" in failed.stderr


async def test_the_help_shows_examples(keys: Run) -> None:
    for command in ((), ("create",), ("list",), ("revoke",)):
        shown = await keys(*command, "--help")
        assert shown.returncode == 0
    assert "tallystick keys create --principal shop" in (await keys("create", "--help")).stdout
