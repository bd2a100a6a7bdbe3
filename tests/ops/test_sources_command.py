"""`tallystick sources` as an operator uses it, in a process of its own, while the service runs."""

import hashlib
import hmac
import subprocess
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

import asyncpg
import pytest
import standardwebhooks

from core.settings import Settings
from core.vault import Vault
from tests.commands import perform
from tests.conftest import ApiClient

Run = Callable[..., Awaitable["subprocess.CompletedProcess[str]"]]
ApiKey = Callable[..., Awaitable[str]]
BODY = b'{"type":"invoice.paid","id":5}'


@pytest.fixture
def sources(settings: Settings) -> Run:
    async def run(*arguments: str, typed: str = "") -> subprocess.CompletedProcess[str]:
        environment = {
            "DATABASE_URL": str(settings.database_url),
            "STATE_DIR": settings.state_dir,
            "ENV": "test",
        }
        return await perform(("sources", *arguments), environment, typed=typed)

    return run


def signed(secret: str, event_id: str = "msg_1") -> dict[str, str]:
    now = datetime.now(UTC)
    return {
        "webhook-id": event_id,
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": standardwebhooks.Webhook(secret).sign(event_id, now, BODY.decode()),
    }


async def test_a_sources_life(
    sources: Run, api: ApiClient, api_key: ApiKey, eventually: Callable[..., Awaitable[Any]]
) -> None:
    async def answers(secret: str, status: int) -> bool:
        answer = await api.post("/webhooks/in/billing", data=BODY, headers=signed(secret))
        return answer.status == status

    await api_key(principal="shop")
    made = await sources("create", "billing", "--principal", "shop", "--description", "[red]Invoices")
    assert made.returncode == 0, made.stderr
    first = made.stdout.strip()
    assert "/webhooks/in/billing" in made.stderr
    assert first not in made.stderr
    await eventually(lambda: answers(first, 200))

    listed = (await sources("list")).stdout
    assert "billing" in listed
    assert "[red]Invoices" in listed
    assert first not in listed

    rotated = (await sources("rotate", "billing", "--now")).stdout.strip()
    await eventually(lambda: answers(first, 400))
    assert await answers(rotated, 200)

    assert (await sources("disable", "billing")).returncode == 0
    await eventually(lambda: answers(rotated, 404))
    assert "disabled" in (await sources("list")).stdout
    assert (await sources("enable", "billing")).returncode == 0
    await eventually(lambda: answers(rotated, 200))
    assert (await sources("delete", "billing")).returncode == 0
    await eventually(lambda: answers(rotated, 404))
    again = await sources("create", "billing", "--principal", "shop")
    assert (again.returncode, "taken" in again.stderr) == (1, True)


async def test_a_secret_is_read_and_not_shown_to_other_users(
    sources: Run, api: ApiClient, api_key: ApiKey
) -> None:
    await api_key(principal="shop")
    made = await sources(
        "create", "plain", "--principal", "shop", "--kind", "hmac", "--header", "X-Sign", "--prefix", "sha256=",
        "--event-id", "/id", "--secret-from-stdin", typed="hush-hush-hush-hush\n",
    )  # fmt: skip
    assert (made.returncode, made.stdout.strip()) == (0, "hush-hush-hush-hush"), made.stderr
    signature = hmac.new(b"hush-hush-hush-hush", BODY, hashlib.sha256).hexdigest()
    answer = await api.post("/webhooks/in/plain", data=BODY, headers={"X-Sign": f"sha256={signature}"})
    assert (answer.status, (await answer.json())["event_id"]) == (200, "5")


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("create", "a", "--principal", "nobody"), 1, "no principal 'nobody'"),
        (("create", "A", "--principal", "test"), 1, "letters a-z"),
        (("create", "a", "--principal", "test", "--kind", "hmac"), 1, "signature and event_id"),
        (("create", "a", "--principal", "test", "--event-type", "type"), 1, "no place in a request"),
        (("create", "a", "--principal", "test", "--secret-from-stdin"), 1, "whsec_"),
        (("rotate", "nothing"), 1, "no source 'nothing'"),
        (("rotate", "nothing", "--overlap", "8d"), 2, "a week at most"),
        (("rotate", "nothing", "--overlap", "1d", "--now"), 2, "exclude each other"),
        (("disable", "nothing"), 1, "no source 'nothing'"),
        (("delete", "nothing"), 1, "no source 'nothing'"),
    ],
)
async def test_mistakes_are_explained(
    sources: Run, api_key: ApiKey, arguments: tuple[str, ...], code: int, says: str
) -> None:
    await api_key()
    told = await sources(*arguments)
    assert (told.returncode, told.stdout) == (code, "")
    assert says in told.stderr
    assert "Traceback" not in told.stderr


async def test_keys_seal_what_was_readable(sources: Run, settings: Settings, api_key: ApiKey) -> None:
    await api_key(principal="shop")
    secret = (await sources("create", "ledger", "--principal", "shop")).stdout.strip()
    environment = {"DATABASE_URL": str(settings.database_url), "STATE_DIR": settings.state_dir, "ENV": "test"}
    refused = await perform(("keys", "reseal"), environment)
    assert (refused.returncode, "SECRETS_KEYS is unset" in refused.stderr) == (1, True)
    told = []
    for keys in ("a" * 32, f"{'b' * 32},{'a' * 32}", "c" * 32):
        done = await perform(("keys", "reseal"), environment | {"SECRETS_KEYS": keys})
        told.append((done.returncode, done.stdout.splitlines()[1]))
    assert told == [
        (0, "sources: 1 sealed anew, 0 under a key that is not set"),
        (0, "sources: 1 sealed anew, 0 under a key that is not set"),
        (1, "sources: 0 sealed anew, 1 under a key that is not set"),
    ]
    owner = await asyncpg.connect(settings.database_url)
    stored = await owner.fetchval("SELECT secret FROM inbox_sources WHERE name = 'ledger'")
    await owner.close()
    assert Vault(["b" * 32]).open(stored, "source:ledger") == secret
