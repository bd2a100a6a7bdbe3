"""Dead letters over HTTP, for the administrator: list, show, replay and discard them."""

from __future__ import annotations

from typing import Annotated, Any
from uuid import UUID

import msgspec
from aiohttp import web
from msgspec import Meta

from core.errors import Refusal
from core.inbox import dead_letters, replays
from core.inbox.dead_letters import NEWEST, DeadLetter, Filter, Letter
from core.inbox.replays import DEFAULT_PER_SECOND, MAX_PER_SECOND, LetterReplay
from core.ledger.movements import moment
from handlers.http.admin_token import ACTOR
from handlers.http.route import Call, Route, answer, cut, table
from handlers.http.times import Time

TAG = "Dead letters"

Word = Annotated[str, Meta(min_length=1, max_length=255)]


class LetterQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The filters and the page of a list of letters: `reason` is the code of the last failure, times are of arrival."""

    provider: Word | None = None
    type: Word | None = None
    reason: Word | None = None
    received_from: Time | None = None
    received_before: Time | None = None
    cursor: UUID | None = None
    limit: Annotated[int, Meta(ge=1, le=1_000)] = 100


class LetterPage(msgspec.Struct, frozen=True):
    """A page of letters, the newest arrival first; `next` continues the list as `cursor`, null at its end."""

    data: list[DeadLetter]
    next: UUID | None


class ReplayQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The page of a list."""

    cursor: UUID | None = None
    limit: Annotated[int, Meta(ge=1, le=1_000)] = 100


class LetterReplayPage(msgspec.Struct, frozen=True):
    """A page of replays, the newest first; `next` continues the list as `cursor`, null at its end."""

    data: list[LetterReplay]
    next: UUID | None


class ReplayBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The letters to put back, by at least one filter or `all`, and the rate at which a worker does it."""

    provider: Word | None = None
    type: Word | None = None
    reason: Word | None = None
    received_from: Time | None = None
    received_before: Time | None = None
    all: bool = False
    per_second: Annotated[int, Meta(ge=1, le=MAX_PER_SECOND)] = DEFAULT_PER_SECOND


class DiscardBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The reason why the event shall have no effect, which is kept."""

    reason: Annotated[str, Meta(min_length=1, max_length=500)]


class Moved(msgspec.Struct, frozen=True):
    """An event that is no dead letter any more, with its new state: `pending` or `discarded`."""

    id: UUID
    state: str


async def list_letters(call: Call) -> web.Response:
    """List dead letters."""
    query: LetterQuery = call.query
    found = await dead_letters.list_page(
        call.service.database, _filter(query), before=query.cursor or NEWEST, limit=query.limit + 1
    )
    page, more = cut(found, query.limit)
    return answer(200, LetterPage(page, page[-1].id if more else None))


async def get_letter(call: Call) -> web.Response:
    """Show a dead letter."""
    return answer(200, await dead_letters.find(call.service.database, call.path("letter")))


async def replay_letter(call: Call) -> web.Response:
    """Replay one letter."""
    letter: UUID = call.path("letter")
    await dead_letters.replay(call.service.database, letter, actor=ACTOR)
    return answer(200, Moved(letter, "pending"))


async def discard_letter(call: Call) -> web.Response:
    """Discard one letter."""
    letter: UUID = call.path("letter")
    body: DiscardBody = call.body
    await dead_letters.discard(call.service.database, letter, actor=ACTOR, reason=body.reason)
    return answer(200, Moved(letter, "discarded"))


async def start_replay(call: Call) -> web.Response:
    """Begin a replay of many letters."""
    body: ReplayBody = call.body
    wanted = _filter(body)
    if (wanted == Filter()) != body.all:
        raise Refusal("invalid_request", 'Name at least one filter, or say "all": true without any.')
    replay = await replays.start(call.service.database, wanted, actor=ACTOR, per_second=body.per_second)
    return answer(202, replay, {"Location": f"/v1/replays/{replay.id}"})


async def list_replays(call: Call) -> web.Response:
    """List replays."""
    query: ReplayQuery = call.query
    found = await replays.list_page(
        call.service.database, before=query.cursor or NEWEST, limit=query.limit + 1
    )
    page, more = cut(found, query.limit)
    return answer(200, LetterReplayPage(page, page[-1].id if more else None))


async def get_replay(call: Call) -> web.Response:
    """Show a replay."""
    return answer(200, await replays.find(call.service.database, call.path("replay")))


async def stop_replay(call: Call) -> web.Response:
    """Stop a replay."""
    return answer(200, await replays.stop(call.service.database, call.path("replay")))


def _filter(given: LetterQuery | ReplayBody) -> Filter:
    return Filter(
        provider=given.provider,
        event_type=given.type,
        reason=given.reason,
        received_from=moment(given.received_from),
        received_before=moment(given.received_before),
    )


_LETTER: dict[str, Any] = {"letter": UUID}
_REPLAY: dict[str, Any] = {"replay": UUID}

ROUTES = table(
    Route(
        "GET", "/v1/dead-letters", list_letters, "list_dead_letters", "List dead letters",
        query=LetterQuery, answers={200: LetterPage},
        description="Events that were given up: they had all their attempts, or none could help.",
    ),
    Route(
        "POST", "/v1/dead-letters/replay", start_replay, "replay_dead_letters", "Replay many dead letters",
        body=ReplayBody, answers={202: LetterReplay},
        description="The replay is of the letters that are dead now. A worker puts them back, `per_second` in a "
        "second, the oldest receipt first; a letter that dies again meanwhile is left alone. Sending this twice is "
        "harmless: only dead letters are put back.",
        example={"reason": "account_not_found", "per_second": 50},
    ),
    Route(
        "GET", "/v1/dead-letters/{letter}", get_letter, "get_dead_letter", "Show a dead letter",
        answers={200: Letter}, problems=("not_found",),
        description="The letter comes with its payload, every failed attempt and every action of a person.",
    ),
    Route(
        "POST", "/v1/dead-letters/{letter}/replay", replay_letter, "replay_dead_letter", "Replay a dead letter",
        answers={200: Moved}, problems=("not_found", "not_dead"),
        description="The event is put back with all its attempts before it.",
    ),
    Route(
        "POST", "/v1/dead-letters/{letter}/discard", discard_letter, "discard_dead_letter", "Discard a dead letter",
        body=DiscardBody, answers={200: Moved}, problems=("not_found", "not_dead"),
        description="The event is done without an effect; the reason is kept.",
        example={"reason": "A test event of the provider."},
    ),
    Route(
        "GET", "/v1/replays", list_replays, "list_replays", "List replays, the newest first",
        query=ReplayQuery, answers={200: LetterReplayPage},
    ),
    Route(
        "GET", "/v1/replays/{replay}", get_replay, "get_replay", "Show a replay and how far it is",
        parameters=_REPLAY, answers={200: LetterReplay}, problems=("not_found",),
    ),
    Route(
        "POST", "/v1/replays/{replay}/stop", stop_replay, "stop_replay", "Stop a replay",
        parameters=_REPLAY, answers={200: LetterReplay}, problems=("not_found",),
        description="Events that were put back stay so. A replay that has ended stays as it is.",
    ),
    tag=TAG, admin=True, parameters=_LETTER,
)  # fmt: skip
