"""Trials: an event that a principal has sent to endpoints of its own, to see it arrive."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from core.errors import Refusal
from core.outbox.endpoints import MAX_ENDPOINTS, find, list_page
from core.outbox.events import new_event, write_events
from core.outbox.fanout import NewDelivery, create_deliveries

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from uuid import UUID

    from core.database import Database

TEST_EVENT: Final = "webhook.test"


async def send_test(database: Database, *, principal_id: int, endpoint_id: UUID) -> tuple[UUID, UUID]:
    """Write an event `webhook.test` for this endpoint alone, whatever types it wants.

    Return the ids of the event and of its delivery. Raises Refusal `not_found`, and `endpoint_disabled`. Wake
    `core.work.wakeup.DELIVERIES` then.
    """
    endpoint = await find(database, principal_id=principal_id, endpoint_id=endpoint_id)
    if endpoint.disabled_at is not None:
        raise Refusal("endpoint_disabled", "This endpoint is switched off. Enable it first.")
    data = {"endpoint": str(endpoint_id)}
    event_id, (delivery_id,) = await _write_test(database, principal_id, data, [endpoint_id])
    return event_id, delivery_id


async def send_test_to_all(database: Database, *, principal_id: int, data: Mapping[str, Any]) -> list[UUID]:
    """Write an event `webhook.test` with `data` for each endpoint that is on; return the ids of the deliveries.

    Wake `core.work.wakeup.DELIVERIES` then.
    """
    found = await list_page(database, principal_id=principal_id, after=None, limit=MAX_ENDPOINTS)
    living = [endpoint.id for endpoint in found if endpoint.disabled_at is None]
    if not living:
        return []
    _, delivery_ids = await _write_test(database, principal_id, data, living)
    return delivery_ids


async def _write_test(
    database: Database, principal_id: int, data: Mapping[str, Any], endpoint_ids: Sequence[UUID]
) -> tuple[UUID, list[UUID]]:
    """Write an event `webhook.test` for these endpoints alone; return its id and those of its deliveries."""
    event = new_event(principal_id, TEST_EVENT, data)
    async with database.transaction() as connection:
        (event_id,) = await write_events(connection, [event], for_one_endpoint=True)
        new = [NewDelivery(event_id, endpoint_id) for endpoint_id in endpoint_ids]
        return event_id, await create_deliveries(connection, new)
