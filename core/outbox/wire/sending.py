"""The request of a message: to its endpoint or as a callback, in the trace in which its event was written."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from core import tracing

if TYPE_CHECKING:
    from collections.abc import Mapping

    from core.outbox.batching import Message
    from core.outbox.callbacks import Courier
    from core.outbox.egress import Egress, Reply


async def sent(
    egress: Egress, courier: Courier, message: Message, own: Mapping[str, str], signed: Mapping[str, str]
) -> Reply:
    """Send a message with the headers of its endpoint and its signature, and return the reply."""
    if tracing.active is None:
        return await _post(egress, courier, message, own, signed)
    row = message.row
    url = row["url"] if message.request is None else message.request.url
    scope = await tracing.active.delivery(
        row["event_id"],
        "POST",
        _host_of(url),
        tallystick__event_type=message.event_type,
        tallystick__webhook_id=message.identity,
        tallystick__attempt=row["attempts"],
    )
    if scope is None:
        return await _post(egress, courier, message, own, signed)
    error: str | None = "cancelled"
    status: dict[str, int] = {}
    try:
        reply = await _post(egress, courier, message, own, {**signed, "traceparent": scope.traceparent})
        error = None if reply.succeeded else str(reply.status or "no_answer")
        status = {} if reply.status is None else {"http__response__status_code": reply.status}
        return reply
    finally:
        scope.end(error, **status)


async def _post(
    egress: Egress, courier: Courier, message: Message, own: Mapping[str, str], signed: Mapping[str, str]
) -> Reply:
    if message.request is not None:
        return await courier.post(egress, message.request, message.body, signed)
    return await egress.post(message.row["url"], body=message.body, headers={**own, **signed})


def _host_of(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""
