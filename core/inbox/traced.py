"""Traces of batches of events: the processing of each goes on with the trace in which the event was received."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from core import tracing

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from core.inbox.applying import Batch

# A word for events that are neither done nor ignored; a person looks for these.
_UNDONE = frozenset({"left_behind", "lease_lost", "not_recorded", "retry", "dead"})


@asynccontextmanager
async def traced(batch: Batch) -> AsyncIterator[None]:
    """Trace the block that works off a batch; without tracing nothing is done."""
    live = tracing.active
    if live is None:
        yield
        return
    spans = await asyncio.gather(
        *(
            live.received(
                f"process {event.provider}",
                event.id,
                messaging__operation__type="process",
                messaging__destination__name="inbox",
                messaging__message__id=event.event_id,
                tallystick__event_type=event.event_type,
                tallystick__attempt=event.attempts,
            )
            for event in batch.events
        )
    )
    batch.spans = {
        event.id: span for event, span in zip(batch.events, spans, strict=True) if span is not None
    }
    scope = live.batch("inbox", spans, len(batch.events))
    try:
        yield
    finally:
        scope.end()
        for event_id, span in batch.spans.items():
            word = batch.words.get(event_id, "left_behind")
            live.finish(span, word if word in _UNDONE else None, tallystick__outcome=word)
