"""The feed over HTTP: a reader keeps one number, the position that it has read, and asks for the events after it."""

from __future__ import annotations

import asyncio
from typing import Annotated

import msgspec
from aiohttp import web
from msgspec import Meta

from core.ledger import feed, history
from core.ledger.feed import MAX_PAGE_EVENTS, FeedEvent
from core.ledger.transfers import NEWEST
from handlers.http.route import Call, Route, answer, table

MAX_WAIT_SECONDS = 30
# Seconds between two looks of a waiting call. A fraction of the sequencer's own interval would find nothing new.
WAIT_STEP_SECONDS = 0.1


class FeedPage(msgspec.Struct, frozen=True):
    """Events in order. Pass `next` as `after` to go on; `head` is the last position, `epoch` names the history."""

    data: list[FeedEvent]
    next: int
    head: int
    epoch: str


class FeedQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The position to begin after, the number of events, the seconds to wait while there is none, and the epoch.

    `epoch` is that of the page before, by which a reader is told when a backup was restored meanwhile.
    """

    after: Annotated[int, Meta(ge=0, le=NEWEST)] = 0
    limit: Annotated[int, Meta(ge=1, le=MAX_PAGE_EVENTS)] = 100
    wait: Annotated[int, Meta(ge=0, le=MAX_WAIT_SECONDS, description="Seconds.")] = 0
    epoch: Annotated[str, Meta(min_length=1, max_length=64)] | None = None


async def read_feed(call: Call) -> web.Response:
    """Read the feed."""
    query: FeedQuery = call.query
    database = call.service.database
    head = await feed.feed_head(database)
    await history.check_reader(database, call.service.epoch, query.epoch, query.after, head)
    for _ in range(int(query.wait / WAIT_STEP_SECONDS)):
        if head > query.after:
            break
        await asyncio.sleep(WAIT_STEP_SECONDS)
        head = await feed.feed_head(database)
    events = (
        await feed.read_feed(database, after=query.after, limit=query.limit) if head > query.after else []
    )
    following = events[-1].position if events else query.after
    return answer(200, FeedPage(events, following, max(head, following if events else 0), call.service.epoch))


ROUTES = table(
    Route(
        "GET", "/v1/feed", read_feed, "read_feed", "Read the feed",
        scope="feed:read", query=FeedQuery, answers={200: FeedPage}, problems=("epoch_changed",),
        description="Every event of the ledger in commit order, numbered without gaps. With `wait` the call "
        "answers as soon as there is an event, or after that many seconds. With the `epoch` of the page before, a "
        "reader of events that a restored backup has taken back is refused and told where to go on.",
    ),
    tag="Feed",
)  # fmt: skip
