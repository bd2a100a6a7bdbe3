"""Reports on the inbox, for the administrator: a summary, the newest events, and the whole story of one event.

Summary and list are routes of the contract: their queries are read leniently and refused with 422.
"""

from __future__ import annotations

import re
import time
from datetime import UTC
from typing import Annotated
from uuid import UUID

import msgspec
from aiohttp import web
from msgspec import Meta

from core import ids, metrics
from core.errors import Refusal
from core.inbox import reports, story
from core.inbox.reports import Summary
from core.inbox.story import Story
from handlers.http.conditions import reader
from handlers.http.route import Call, Route, answer, table

TAG = "Webhooks received"
JOB = "reconciliation"
MAX_HOURS = 168
MAX_EVENTS = 100

_INTEGER = re.compile(r"[+-]?[0-9]{1,9}")


class SummaryQuery(msgspec.Struct, frozen=True, kw_only=True):
    """The period of a summary in hours; `record` keeps the summary in the table reconciliation_log, too."""

    hours_back: Annotated[int, Meta(ge=1, le=MAX_HOURS)] = 24
    record: bool = False


class EventsQuery(msgspec.Struct, frozen=True, kw_only=True):
    """The provider of the events (all when absent or empty), and the length of the list."""

    provider: str | None = None
    limit: Annotated[int, Meta(ge=1, le=MAX_EVENTS)] = 50


class StoryQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The provider of the event, needed where several providers use the same id."""

    provider: Annotated[str, Meta(min_length=1, max_length=50)] | None = None


class AdminEvent(msgspec.Struct, frozen=True):
    """An event in a list. `id` is a number that grows with the time of arrival, `uuid` its own id; times are UTC."""

    id: int
    uuid: UUID
    provider: str
    event_id: str
    event_type: str
    received_at: str


async def show_summary(call: Call) -> web.Response:
    """Summarize the last hours."""
    query = call.request.query
    hours = _number("hours_back", query.get("hours_back"), 24, MAX_HOURS)
    keep = query.get("record", "").lower() in {"1", "true", "yes", "on"}
    started = time.perf_counter()
    done = False
    try:
        database = call.service.database if keep else reader(call, "report")
        summary = await reports.summarize(database, hours_back=hours, keep=keep)
        done = True
    finally:
        metrics.JOB_RUNS.add(JOB, "success" if done else "failed")
        metrics.JOB_SECONDS.observe(time.perf_counter() - started, JOB)
    return answer(200, summary)


async def list_events(call: Call) -> web.Response:
    """List the newest events."""
    query = call.request.query
    limit = _number("limit", query.get("limit"), 50, MAX_EVENTS)
    provider = query.get("provider") or None
    # A text that cannot be a provider's name finds nothing; PostgreSQL would refuse a NUL or half a surrogate pair.
    found = (
        await reports.recent_events(reader(call, "report"), provider=provider, limit=limit)
        if provider is None or provider.isprintable()
        else []
    )
    return answer(
        200,
        [
            AdminEvent(
                ids.short_number(event.id),
                event.id,
                event.provider,
                event.event_id,
                event.event_type,
                event.received_at.astimezone(UTC).replace(tzinfo=None).isoformat(),
            )
            for event in found
        ],
    )


async def tell_story(call: Call) -> web.Response:
    """Tell everything about one event."""
    query: StoryQuery = call.query
    principal = call.principal
    told = await story.tell(
        call.service.database,
        call.path("event"),
        provider=query.provider,
        principal_id=None if principal is None else principal.id,
    )
    return answer(200, told)


def _number(name: str, text: str | None, default: int, most: int) -> int:
    """Return a number from 1 to `most`. Raises the contract's refusal for any other text."""
    if text is None:
        return default
    number = int(text) if _INTEGER.fullmatch(text) else None
    if number is not None and 1 <= number <= most:
        return number
    kind = "int_parsing" if number is None else "less_than_equal" if number > most else "greater_than_equal"
    bound = {"int_parsing": {}, "less_than_equal": {"le": most}, "greater_than_equal": {"ge": 1}}[kind]
    message = f"{name} is a whole number from 1 to {most}."
    raise Refusal(
        "invalid_query",
        message,
        errors=[
            {"type": kind, "loc": ["query", name], "msg": message, "input": text[:100]}
            | ({"ctx": bound} if bound else {})
        ],
    )


ROUTES = table(
    Route(
        "GET", "/reconciliation/summary", show_summary, "get_reconciliation_summary", "Summarize what was received",
        query=SummaryQuery, answers={200: Summary},
        description="Events of the last hours by provider and type, and anomalies: a type that came more "
        "than 1,000 times, dead letters, events that have been due for minutes. Nothing is written unless `record` "
        "is true. Equal ids of two providers are two events and no anomaly; a provider's own id is stored once.",
    ),
    Route(
        "GET", "/admin/events", list_events, "list_received_events", "List the newest events received",
        query=EventsQuery, answers={200: list[AdminEvent]},
    ),
    tag=TAG, admin=True, problems=("invalid_query",),
)  # fmt: skip

STORY = Route(
    "GET", "/events/{event}", tell_story, "get_event_story", "Tell everything about one event", TAG,
    admin=True, scope="webhooks:read", query=StoryQuery, answers={200: Story},
    problems=("not_found", "ambiguous_event"),
    description="By our id, the provider's, or that of an event of ours (`msg_...`, too): the receipt, why it "
    "was believed, every attempt, the transfers, the events that it led to and their deliveries. A key sees "
    "stories that led to events of its own principal, pay an account of its own, or came from a source of its own.",
)  # fmt: skip
