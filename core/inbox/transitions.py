"""Transitions: events that tell of payments through providers, each applied in a transaction of its own.

That transaction locks the payment, writes what follows, and finishes the event under the claim. A transition locks a
payment before it locks accounts, so several in one transaction would lock accounts out of order. An event that comes
again, late or after its successor changes nothing that is known already.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from core import tracing
from core.database import queries
from core.errors import Refusal
from core.inbox.applying import concerns_all, failure_of
from core.inbox.rules import ALREADY_APPLIED, APPLIED, Failed

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from core.database import Connection
    from core.inbox.applying import Batch
    from core.inbox.rules import InboxEvent, Owners, Target, Told, Transition

_sql = queries(__name__)

# Each transition may wait for a lock that somebody holds. After so many seconds of a batch the rest is put back, well
# before the lease of the claim ends and takes all of it away.
MOST_SECONDS: Final = 30.0


class Engine(Protocol):
    """Payments through providers, as the inbox needs them. The assembly brings them, since they stand above it."""

    def read(self, provider: str, event_type: str, body: bytes) -> Told | None:
        """Read an event, None if it is about no payment. Raises ValueError for one that makes no sense."""

    async def known(
        self, wanted: Sequence[tuple[str, Sequence[str]]], accounts: Sequence[str]
    ) -> tuple[list[Target | None], Owners]:
        """Return what providers know under names, None where nothing is, and the owners of accounts that are open."""

    async def apply(
        self,
        target: Target,
        event_id: str,
        told: Told,
        finish: Callable[[Connection, bool], Awaitable[None]],
    ) -> bool:
        """Apply an event in one transaction that ends with `finish`; whether events of our own were written."""


class Moved(NamedTuple):
    """An event whose decision is a transition."""

    event: InboxEvent
    transition: Transition


async def apply_transitions(engine: Engine, batch: Batch, moved: Sequence[Moved], *, last: bool) -> None:
    """Apply the transitions of a batch, in the order in which their events arrived, and note what became of each.

    The `last` of them ends the claim where nothing else is left in it. Raises ClaimGoneError, and Unavailable when the
    server is gone.
    """
    give_up_at = time.monotonic() + MOST_SECONDS
    for number, one in enumerate(moved, 1):
        if time.monotonic() > give_up_at:
            batch.fail(one.event, Failed("busy", "The payments before it took too long."))
            continue
        ends = last and number == len(moved) and not batch.failed
        try:
            with tracing.within(batch.spans.get(one.event.id)):
                await _apply(engine, batch, one, ends=ends)
        except Refusal as refusal:
            if concerns_all(refusal):
                raise
            batch.fail(one.event, Failed(refusal.code, refusal.detail))
        except Exception as error:
            if concerns_all(error):
                raise
            batch.fail(one.event, failure_of(one.event, error))
        else:
            batch.has_ended = ends


async def _apply(engine: Engine, batch: Batch, one: Moved, *, ends: bool) -> None:
    word = APPLIED

    async def finish(connection: Connection, changed: bool) -> None:  # noqa: FBT001 - the one thing that it is told
        nonlocal word
        word = APPLIED if changed else ALREADY_APPLIED
        await connection.execute(_sql.finish_transition, batch.token, one.event.id, int(not changed), ends)

    batch.wakes |= await engine.apply(one.transition.target, one.event.event_id, one.transition.told, finish)
    batch.words[one.event.id] = word
