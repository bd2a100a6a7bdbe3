"""A lane gathers the items of many callers and sends them as one batch.

A lane sends at once when idle, and while a batch is in flight the next one grows. So a single caller pays no delay, and
a thousand callers share the cost of one round trip. Only a lane that nobody waits for has time to gather.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Generic, TypeAlias, TypeVar

from core import tracing
from core.errors import Refusal

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from opentelemetry.trace import Span

    from core.tracing.live import Scope

Item = TypeVar("Item")
Result = TypeVar("Result")
# A lane with the patience 0 lets the loop turn so many times at most. Arrivals without an end hold no batch up.
PATIENT_TURNS = 3
# A patient lane waits no longer once such a share of a batch has come: its items may hold what others wait for, as the
# slots of a sender, and a larger batch would cost little less.
ENOUGH_SHARE = 4
# An item, the future of its result, and when it came.
_Waiting: TypeAlias = tuple[Item, asyncio.Future[Result], float]


class Lane(Generic[Item, Result]):
    """A queue with one batch in flight at a time; the order of submission is the order within and between batches.

    `max_batch` bounds the summed weight of one batch (a heavier item goes alone), `max_waiting` the number of items
    that wait. With a `share`, a batch takes at most so many items or a quarter of those that wait, whichever is more:
    the answers of one batch are then on their way while the next one is sent. One large batch would let all its callers
    come back at once, and both sides would wait for each other in turns.

    `send` returns one result or exception an item, in the same order; an exception that it raises goes to every item.
    `waited` is told how many seconds the first item of each batch has waited.
    A lane that is idle waits for `patience` seconds before it sends, so that more items go along, or until a quarter of
    `max_batch` has come; None sends at once.
    With 0 it lets the event loop turn before each batch, for items that have arrived; a turn that brings none is the
    last one.
    A lane with a `name` shows in traces: the wait of each item, and the batch that has served it.
    """

    def __init__(
        self,
        send: Callable[[Sequence[Item]], Awaitable[Sequence[Result | BaseException]]],
        *,
        max_batch: int,
        max_waiting: int,
        weigh: Callable[[Item], int] | None = None,
        share: int | None = None,
        patience: float | None = None,
        waited: Callable[[float], None] | None = None,
        name: str = "",
    ) -> None:
        self._send = send
        self._max_batch = max_batch
        self._max_waiting = max_waiting
        self._weigh = weigh
        self._share = share
        self._patience = patience
        self._waited = waited
        self._name = name
        # The spans of items that wait, while traces are made.
        self._spans: dict[asyncio.Future[Result], Span] = {}
        self._waiting: deque[_Waiting[Item, Result]] = deque()
        self._runner: asyncio.Task[None] | None = None
        self._closing = False
        # The end of the wait of a patient lane.
        self._enough = asyncio.Event()

    @property
    def waiting(self) -> int:
        """The number of items that wait for the next batch."""
        return len(self._waiting)

    def enqueue(self, item: Item) -> asyncio.Future[Result]:
        """Queue `item` and return the future of its result.

        Raises Refusal `overloaded` when the lane is full and `shutting_down` when it is closing; nothing has happened
        then. Cancelling the future cancels no work; its result is dropped.
        """
        if self._closing:
            raise Refusal("shutting_down", "This process is stopping. Repeat the call.", retry_after=1.0)
        if len(self._waiting) >= self._max_waiting:
            raise Refusal(
                "overloaded", "Too many calls are waiting. Repeat the call a little later.", retry_after=1.0
            )
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, future, time.perf_counter()))
        if tracing.active is not None and self._name:
            span = tracing.active.wait(self._name)
            if span is not None:
                self._spans[future] = span
        if self._patience and len(self._waiting) >= self._max_batch // ENOUGH_SHARE:
            self._enough.set()
        if self._runner is None:
            self._runner = asyncio.create_task(self._run())
        return future

    async def submit(self, item: Item) -> Result:
        """Queue `item` and wait for its result; a caller that is cancelled does not cancel the work."""
        return await self.enqueue(item)

    async def close(self) -> None:
        """Refuse new items, and wait until every accepted item has its result."""
        self._closing = True
        if self._runner is not None:
            await self._runner

    async def _run(self) -> None:
        try:
            if self._patience:
                await self._wait(self._patience)
            while self._waiting:
                if self._patience == 0:
                    await self._gather()
                batch = self._take()
                if self._waited is not None:
                    self._waited(time.perf_counter() - batch[0][2])
                scope = None if tracing.active is None else self._traced(batch)
                try:
                    results = await self._send([item for item, _, _ in batch])
                    if len(results) != len(batch):
                        raise RuntimeError(f"{len(results)} results for {len(batch)} items")
                except Exception as error:  # noqa: BLE001 - every waiter of this batch gets it; the lane itself goes on
                    results = [error] * len(batch)
                if scope is not None:
                    self._end(scope, batch)
                for (_, future, _), result in zip(batch, results, strict=True):
                    _settle(future, result)
        finally:
            self._runner = None
            self._enough.clear()

    async def _wait(self, seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._enough.wait()

    async def _gather(self) -> None:
        """Let the event loop turn once, and then again as long as turns bring items."""
        for _ in range(PATIENT_TURNS):
            known = len(self._waiting)
            await asyncio.sleep(0)
            if len(self._waiting) == known:
                return

    def _traced(self, batch: Sequence[_Waiting[Item, Result]]) -> Scope | None:
        """Begin the span of a batch, also of one that nobody traces: this task may come from a request long gone."""
        if tracing.active is None:
            return None
        spans = [self._spans.get(future) for _, future, _ in batch]
        return tracing.active.batch(self._name, spans, len(batch))

    def _end(self, scope: Scope, batch: Sequence[_Waiting[Item, Result]]) -> None:
        scope.end()
        for _, future, _ in batch:
            if (span := self._spans.pop(future, None)) is not None:
                span.end()

    def _take(self) -> list[_Waiting[Item, Result]]:
        waiting, weigh = self._waiting, self._weigh
        most = len(waiting) if self._share is None else max(self._share, len(waiting) // 4)
        if weigh is None:
            return [waiting.popleft() for _ in range(min(len(waiting), most, self._max_batch))]
        batch = [waiting.popleft()]
        weight = weigh(batch[0][0])
        while waiting and len(batch) < most:
            weight += weigh(waiting[0][0])
            if weight > self._max_batch:
                break
            batch.append(waiting.popleft())
        return batch


def _settle(future: asyncio.Future[Result], result: Result | BaseException) -> None:
    if future.done():  # the caller was cancelled before the batch was sent
        return
    if isinstance(result, BaseException):
        future.set_exception(result)
        future.exception()  # a caller that went away must not turn into a "never retrieved" warning
    else:
        future.set_result(result)
