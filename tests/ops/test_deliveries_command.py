"""`tallystick deliveries` as an operator uses it, in a process of its own."""

import json
import subprocess
import uuid
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest

from core.settings import Settings
from tests.commands import tallystick

Run = Callable[..., Awaitable["subprocess.CompletedProcess[str]"]]
ENDPOINT = uuid.UUID(int=7)


@pytest.fixture
def deliveries(settings: Settings) -> Run:
    async def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return await tallystick(
            "deliveries",
            *arguments,
            DATABASE_URL=str(settings.database_url),
            ENV="test",
            STATE_DIR=settings.state_dir,
        )

    return run


@pytest.fixture
async def failed(settings: Settings) -> list[uuid.UUID]:
    """Three deliveries of one endpoint that failed, the first of them a day ago; the newest first."""
    connection = await asyncpg.connect(str(settings.database_url))
    try:
        await connection.execute(
            "INSERT INTO webhook_endpoints (id, principal_id, url, event_types, secrets)"
            " VALUES ($1, 1, 'https://shop.example.com/', '{}', '{whsec_x}')",
            ENDPOINT,
        )
        rows = await connection.fetch(
            "WITH told AS (INSERT INTO outbox_events (id, principal_id, event_type, body, fanned_out_at)"
            " SELECT gen_random_uuid(), 1, 'payment.succeeded', '{}', now() FROM generate_series(1, 3) RETURNING id)"
            " INSERT INTO webhook_deliveries (id, event_id, endpoint_id, state, attempts, last_status, last_error,"
            " finished_at) SELECT gen_random_uuid(), id, $1, 'failed', 5, 500, E'answered 500: [red]\\x1b[2J oops',"
            " now() FROM told RETURNING id",
            ENDPOINT,
        )
        found = sorted((row["id"] for row in rows), reverse=True)
        await connection.execute(
            "UPDATE webhook_deliveries SET finished_at = now() - interval '1 d' WHERE id = $1", found[-1]
        )
        await connection.execute(
            "INSERT INTO webhook_attempts (delivery_id, at, status, latency_ms, excerpt)"
            " VALUES ($1, now(), 500, 12, 'no, not now')",
            found[0],
        )
    finally:
        await connection.close()
    return found


async def states(deliveries: Run) -> dict[str, str]:
    listed: list[dict[str, Any]] = json.loads((await deliveries("list", "--json")).stdout)
    return {row["id"]: row["state"] for row in listed}


async def test_a_list_for_people_and_for_scripts(deliveries: Run, failed: list[uuid.UUID]) -> None:
    table = await deliveries("list", "--state", "failed")
    assert table.returncode == 0, table.stderr
    for delivery_id in failed:
        assert str(delivery_id) in table.stdout
    # A receiver's answer neither moves the cursor nor paints.
    assert "\x1b[2J" not in table.stdout
    assert "[red]" in table.stdout
    assert set((await states(deliveries)).values()) == {"failed"}
    assert json.loads((await deliveries("list", "--state", "delivered", "--json")).stdout) == []
    assert json.loads((await deliveries("list", "--type", "a.b", "--json")).stdout) == []
    wrong = await deliveries("list", "--event", "nonsense")
    assert wrong.returncode == 2
    assert "webhook-id" in wrong.stderr


async def test_one_delivery_with_its_attempts(deliveries: Run, failed: list[uuid.UUID]) -> None:
    shown = await deliveries("show", str(failed[0]))
    assert shown.returncode == 0, shown.stderr
    assert "no, not now" in shown.stdout
    as_json = json.loads((await deliveries("show", str(failed[0]), "--json")).stdout)
    assert as_json["delivery"]["id"] == str(failed[0])
    assert [attempt["status"] for attempt in as_json["attempts"]] == [500]
    missing = await deliveries("show", str(uuid.uuid4()))
    assert missing.returncode == 1
    assert "There is no delivery" in missing.stderr


async def test_sending_again(deliveries: Run, failed: list[uuid.UUID]) -> None:
    done = await deliveries("resend", str(failed[1]))
    assert (done.returncode, done.stdout) == (0, "Due again: 1.\n"), done.stderr
    assert (await states(deliveries))[str(failed[1])] == "pending"


async def test_recovering_what_failed_since_a_time(deliveries: Run, failed: list[uuid.UUID]) -> None:
    since = f"{datetime.now(UTC) - timedelta(hours=1):%Y-%m-%dT%H:%M}"
    done = await deliveries("recover", str(ENDPOINT), "--since", since)
    assert (done.returncode, done.stdout) == (0, "Due again: 2.\n"), done.stderr
    assert sorted((await states(deliveries)).items(), reverse=True) == [
        (str(failed[0]), "pending"),
        (str(failed[1]), "pending"),
        (str(failed[2]), "failed"),
    ]
    missing = await deliveries("recover", str(uuid.uuid4()), "--since", since)
    assert missing.returncode == 1
    assert "There is no endpoint" in missing.stderr


async def test_requeue_as_the_old_tool_did(failed: list[uuid.UUID], settings: Settings) -> None:
    async def requeue(*arguments: str) -> str:
        done = await tallystick(
            "requeue",
            *arguments,
            DATABASE_URL=str(settings.database_url),
            ENV="test",
            STATE_DIR=settings.state_dir,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert (
        await requeue("--endpoint-id", str(uuid.UUID(int=8)))
        == "Requeued 0 deliveries from status 'failed'.\n"
    )
    assert await requeue() == f"Requeued {len(failed)} deliveries from status 'failed'.\n"
    assert (
        await requeue("--status", "pending") == f"Requeued {len(failed)} deliveries from status 'pending'.\n"
    )
