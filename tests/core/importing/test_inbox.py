"""The inbox's database carried over: events that come again are known, and none has an effect."""

from datetime import datetime
from typing import Any

from core.database import Database
from core.importing.inbox import STEPS
from core.settings import Settings
from tests.core.importing.conftest import Fill, carry_over, counts
from tests.core.importing.olddb import INBOX

AT = datetime(2025, 6, 1, 12, 30, 15)  # noqa: DTZ001 - the old services' times have no zone


def event(number: int, provider: str, event_id: str, body: str, **more: Any) -> dict[str, Any]:
    return {
        "id": number, "provider": provider, "event_id": event_id, "event_type": "payment_intent.succeeded",
        "payload_json": body, "received_at": AT, **more,
    }  # fmt: skip


async def test_events_are_known(fill: Fill, target: Database, settings: Settings) -> None:
    rows = {
        "payment_events": [
            event(1, "stripe", "evt_1", '{"data":{"object":{"id":"pi_1"}}}'),
            event(2, "paypal", "evt_1", '{"resource":{"id":"CAP-1"}}'),
            event(3, "stripe", "evt_2", "no JSON"),
            event(4, "stripe", "evt_3", "{}", event_type="x" * 300),
        ],
        "dlq_messages": [
            {
                "id": 1, "provider": "stripe", "event_id": "evt_9", "payload_json": "{}", "error_kind": "time-out",
                "attempts": 0, "next_retry_at": AT, "created_at": AT,
            }
        ],
    }  # fmt: skip
    url = await fill(INBOX, rows)
    result = await carry_over(target, settings, "inbox", STEPS, url)
    assert counts(result) == {"events": (3, 0, 1), "dead_letters": (0, 0, 1)}
    again = await carry_over(target, settings, "inbox", STEPS, url)
    assert counts(again) == {"events": (0, 3, 1), "dead_letters": (0, 0, 1)}

    async with target.connections.pool.acquire() as connection:
        stored = await connection.fetch(
            "SELECT e.provider, e.event_id, e.object_id, e.state, e.outcome, b.body FROM inbox_events AS e"
            " JOIN inbox_bodies AS b ON b.id = e.id ORDER BY e.provider, e.event_id"
        )
    assert [tuple(row) for row in stored] == [
        ("paypal", "evt_1", "CAP-1", "done", "ignored", b'{"resource":{"id":"CAP-1"}}'),
        ("stripe", "evt_1", "pi_1", "done", "ignored", b'{"data":{"object":{"id":"pi_1"}}}'),
        ("stripe", "evt_2", None, "done", "ignored", b"no JSON"),
    ]
