"""Telling of an effect: the event is written by the transaction that makes the effect, and by nothing else."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, Final

from core import ids
from core.database import queries
from core.errors import Refusal

if TYPE_CHECKING:
    from collections.abc import Mapping
    from uuid import UUID

    from core.database import Connection

_sql = queries(__name__)

# Standard Webhooks' characters for a type; the length is ours.
EVENT_TYPE_PATTERN: Final = r"[a-zA-Z0-9_]+(?:\.[a-zA-Z0-9_]+)*"
_EVENT_TYPE = re.compile(EVENT_TYPE_PATTERN)
MAX_EVENT_TYPE: Final = 100
# Receivers are told to expect small bodies: what is large is fetched by its id.
MAX_BODY_BYTES: Final = 20 * 1024

# `json.dumps` makes such an encoder for each call, at more than the encoding itself costs.
_compact = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode


def encode(event_type: str, data: Mapping[str, Any]) -> bytes:
    """Return the body of an event, as the wallet service's receivers read it: `{"type","data"}`, compact, in ASCII."""
    return _compact({"type": event_type, "data": data}).encode("ascii")


async def emit(
    connection: Connection,
    *,
    principal_id: int,
    event_type: str,
    data: Mapping[str, Any],
    object_id: str | None = None,
) -> UUID:
    """Write an event in the caller's transaction and return its id (UUID version 7).

    It goes to those endpoints of `principal_id` that want its type once the transaction is committed; wake
    `core.work.wakeup.OUTBOX` then. `object_id` is what it is about, by which its story is found.
    """
    if _EVENT_TYPE.fullmatch(event_type) is None or len(event_type) > MAX_EVENT_TYPE:
        raise ValueError(f"not an event type: {event_type!r}")
    body = encode(event_type, data)
    if len(body) > MAX_BODY_BYTES:
        raise Refusal("event_too_large", f"An event of {len(body)} bytes is longer than {MAX_BODY_BYTES}.")
    event_id = ids.new_uuid()
    await connection.execute(_sql.write_outbox_event, event_id, principal_id, event_type, object_id, body)
    return event_id
