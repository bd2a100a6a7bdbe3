"""The guard in front of every request: rate limits and idempotency marks, in one Redis round trip that requests share.

While a round trip is in flight the next requests gather, and then go as one call of one script (`guard.lua`). Requests
without a key to mark are mostly admitted by what the last round trip has told, and counted by the next one
(`core.access.leases`). Redis is only a shortcut: without it rates are counted in this process's memory, PostgreSQL
alone guards the keys, and no request fails.

All names share one hash tag, so in a Redis cluster the guard lives on one shard. To spread it, tag rates by key and
marks by principal, and send two scripts in one pipeline, grouped by slot. Then a request that is refused for its
address has been counted for its key.
"""

from __future__ import annotations

import asyncio
import itertools
import secrets
import time
from contextlib import suppress
from importlib import resources
from typing import TYPE_CHECKING

import msgspec

from core import metrics
from core.access import rates
from core.access.addresses import bucket
from core.access.leases import Leases
from core.access.marks import MAX_ANSWER_BYTES, Mark, StoredAnswer, Writes, answer_in, is_mark_of, mark_value
from core.access.questions import ADMITTED, FOUND, MARKED, REFUSED, Question, Reply, replies_of
from core.access.rates import (
    Headers,
    Limit,
    MemoryBuckets,
    MemoryWindows,
    RateLimited,
    State,
    rate_headers,
    tighter,
)
from core.access.redis_script import RedisDown, RedisScript
from core.errors import Refusal
from core.lane import Lane

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from redis.asyncio import Redis

    from core.access.api_keys import Principal
    from core.settings import Settings

# One script call blocks Redis for about 5 us a request, so at most about 1.3 ms.
MAX_BATCH = 256
# Far fewer requests gather within the 250 ms after which Redis is given up; any more are counted in memory.
MAX_WAITING = 20_000
# The mark of a dead process is gone after this; PostgreSQL's key row needs no mark.
MARK_MS = 10_000
# A request waits so long for its twin's answer before it asks PostgreSQL itself.
TWIN_WAIT_SECONDS = 2.0
FIRST_POLL_SECONDS = 0.005
# Finished answers ride on the next round trip, or on one of their own after this.
FLUSH_SECONDS = 0.01

FALLBACK = metrics.level("guard_fallback", "Processes that do without Redis at the moment", share="livesum")

_pack = msgspec.msgpack.Encoder().encode


class Admission(msgspec.Struct, eq=False):
    """The leave of one request to go on. Its holder calls `finish` or `release` in the end, whatever happens before.

    `replay` is the answer of an equal earlier request: send it and do nothing else.
    """

    guard: Guard
    states: Sequence[State]
    mark: Mark | None = None
    replay: StoredAnswer | None = None

    @property
    def headers(self) -> Headers:
        """The `RateLimit-*` headers of the tighter limit; none when nothing is limited."""
        return rate_headers(*tighter(self.states)) if self.states else ()

    def finish(self, answer: StoredAnswer) -> None:
        """Share an answer with the twins and store it, without a wait. PostgreSQL must have frozen the answer, too."""
        mark, self.mark = self.mark, None
        if mark is not None:
            self.guard.settle(mark, answer)

    def release(self) -> None:
        """Let the next request under the key start afresh. After `finish` this does nothing, so that `finally` may."""
        mark, self.mark = self.mark, None
        if mark is not None:
            self.guard.settle(mark, None)


class Guard:
    """The guard of one process: `admit` every request, `finish` or `release` the admission, `close` at the end."""

    def __init__(self, redis: Redis, settings: Settings, epoch: str) -> None:
        self._prefix = f"ts:{epoch}:{{guard}}:"
        self._limited = settings.rate_limit_enabled
        self._key_limit = rates.limit(
            settings.v1_rate_limit_per_second, settings.v1_rate_limit_burst, of="API key"
        )
        self._address_limit = rates.limit(
            settings.v1_rate_limit_address_per_second, settings.v1_rate_limit_address_burst, of="address"
        )
        self._answer_ms = settings.idempotency_ttl_secs * 1000
        script = resources.files("core.access").joinpath("guard.lua").read_text()
        self._script = RedisScript(redis, script, on_change=lambda up: FALLBACK.set(not up))
        self._lane: Lane[Question, Reply] = Lane(
            self._send, max_batch=MAX_BATCH, max_waiting=MAX_WAITING, patience=0
        )
        self._leases = Leases()
        self._memory = MemoryBuckets()
        self._windows = MemoryWindows()
        self._marks: dict[tuple[int, str], Mark] = {}
        self._process = secrets.token_hex(8)
        self._numbers = itertools.count()
        self._writes = Writes()
        self._flush: asyncio.TimerHandle | None = None
        FALLBACK.set(0)

    @property
    def up(self) -> bool:
        """Whether Redis is used at the moment."""
        return self._script.up

    async def admit(
        self,
        *,
        principal: Principal | None,
        address: str,
        key: str | None = None,
        fingerprint: bytes = b"",
        cost: int = 1,
    ) -> Admission:
        """Count one request for its API key and its address, both or neither, and mark its idempotency key.

        `address` is the client's (`core.access.addresses`), `fingerprint` comes from `request_fingerprint`, `cost` is
        the number of requests that this one counts as (`batch_cost`), at most a whole burst. A mark needs both a `key`
        and a principal.

        A request waits at most 2 s for a twin (same key, same fingerprint) that is at work here or in another process;
        the twin's answer is then `replay`. Raises RateLimited and no other refusal; it counts and marks nothing.
        """
        if key is None or principal is None:
            question = self._question(principal, address, cost)
            return self._admission(question, await self._ask(question))
        identity, fingerprint_hex = (principal.id, key), fingerprint.hex()
        deadline = asyncio.get_running_loop().time() + TWIN_WAIT_SECONDS
        twin = self._marks.get(identity)
        if twin is None:
            mark = self._open(identity, fingerprint_hex)
            return await self._lead(mark, self._question(principal, address, cost, mark), deadline)
        question = self._question(principal, address, cost)
        admission = self._admission(question, await self._ask(question))
        while twin is not None:
            if twin.fingerprint != fingerprint_hex:
                return admission  # it is another request under the same key: PostgreSQL names the difference
            admission.replay = await twin.settled(deadline)
            if admission.replay is not None or not twin.done:
                return admission
            twin = self._marks.get(identity)
        # The twin ended without an answer to share. The first request that waited for it takes its place.
        mark = self._open(identity, fingerprint_hex)
        led = await self._lead(mark, Question(name=mark.name, mark=mark.value), deadline)
        admission.mark, admission.replay = led.mark, led.replay
        return admission

    async def admit_client(self, name: str, limit: Limit) -> Admission:
        """Count one request in the bucket `name`, which has a limit of its own, and in no other. Raises RateLimited."""
        if not self._limited:
            return Admission(self, ())
        # A name with the word is never read as the number that stood there before limits had windows.
        kind = "window" if limit.window_us else "client"
        question = Question(f"{self._prefix}{kind}:{name}", cost=1, own_limit=limit)
        return self._admission(question, await self._ask(question))

    async def admit_address(self, name: str, address: str, limit: Limit) -> Admission:
        """Count one request in the bucket `name` of a client's address: of an IPv6 address, that of its /64."""
        return await self.admit_client(f"{name}:{bucket(address)}", limit)

    def settle(self, mark: Mark, answer: StoredAnswer | None) -> None:
        """End the request of `mark`: tell its twins here, and leave word in Redis for those elsewhere."""
        self._close(mark, answer)
        if not self._script.up:
            return
        if answer is not None and len(answer.body) <= MAX_ANSWER_BYTES:
            self._writes.store(mark, answer)
        elif mark.in_redis:
            self._writes.release(mark)
        if self._flush is None:
            self._schedule_flush()

    async def close(self) -> None:
        """Write the finished answers, and let go of Redis. Requests that still come are counted in memory."""
        await self._lane.close()
        while (self._writes or self._leases) and self._script.up:
            await self._send([])
        if self._flush is not None:
            self._flush.cancel()
        await self._script.close()

    # --- One request

    def _question(
        self, principal: Principal | None, address: str, cost: int, mark: Mark | None = None
    ) -> Question:
        key_bucket = address_bucket = name = value = ""
        if self._limited:
            address_bucket = f"{self._prefix}address:{bucket(address)}"
            if principal is not None:
                key_bucket = f"{self._prefix}key:{principal.key_id}"
            if cost > 1:
                cost = min(cost, self._address_limit.burst, self._key_limit.burst)
        if mark is not None:
            name, value = mark.name, mark.value
        return Question(key_bucket, address_bucket, cost, name, value)

    async def _ask(self, question: Question) -> Reply:
        if self._script.up and (question.key_bucket or question.address_bucket or question.name):
            if not question.name and (reply := self._on_lease(question)) is not None:
                return reply
            try:
                return await self._lane.enqueue(question)
            except Refusal:
                pass  # the lane is full, or closed
        return self._count_in_memory(question)

    def _on_lease(self, question: Question) -> Reply | None:
        """Admit a request by what is known of its buckets; None where Redis has to be asked."""
        now_us = time.monotonic_ns() // 1000
        fills = self._leases.take(question.key_bucket, question.address_bucket, question.cost, now_us)
        if fills is None:
            return None
        if self._flush is None:
            self._schedule_flush()
        return Reply(ADMITTED, *fills)

    def _admission(self, question: Question, reply: Reply) -> Admission:
        """Raise RateLimited if `reply` says so."""
        states: list[State] = []
        if question.key_bucket:
            states.append((question.own_limit or self._key_limit, reply.key_fill_us))
        if question.address_bucket:
            states.append((self._address_limit, reply.address_fill_us))
        if reply.verdict == REFUSED:
            raise rates.refusal(states, question.cost)
        return Admission(self, states)

    def _count_in_memory(self, question: Question) -> Reply:
        own, now_us = question.own_limit, time.monotonic_ns() // 1000
        if own is not None and own.window_us:
            admitted, fill = self._windows.take(question.key_bucket, own, question.cost, now_us)
            return Reply(ADMITTED if admitted else REFUSED, fill, 0)
        asked = []
        if question.key_bucket:
            asked.append((question.key_bucket, own or self._key_limit))
        if question.address_bucket:
            asked.append((question.address_bucket, self._address_limit))
        had, fills = self._memory.take(asked, question.cost, now_us)
        key_fill = fills[0] if question.key_bucket else 0
        return Reply(ADMITTED if had else REFUSED, key_fill, fills[-1] if fills else 0)

    # --- The idempotency key of a request

    def _open(self, identity: tuple[int, str], fingerprint: str) -> Mark:
        name = f"{self._prefix}once:{identity[0]}:{identity[1]}"
        value = mark_value(fingerprint, f"{self._process}{next(self._numbers)}")
        mark = Mark(identity, name, fingerprint, value)
        self._marks[identity] = mark
        return mark

    def _close(self, mark: Mark, answer: StoredAnswer | None) -> None:
        if self._marks.get(mark.identity) is mark:
            del self._marks[mark.identity]
        mark.settle(answer)

    async def _lead(self, mark: Mark, question: Question, deadline: float) -> Admission:
        """Ask with a mark; the request does the work unless another process is at it or has done it."""
        try:
            reply = await self._ask(question)
            admission = self._admission(question, reply)
            if reply.verdict == FOUND:
                admission.replay = await self._answer_elsewhere(mark, reply, deadline)
            else:
                mark.in_redis = reply.verdict == MARKED
        except RateLimited:
            self._close(mark, None)
            raise
        except BaseException:  # the caller went away, and the mark may be there or on its way
            mark.in_redis = True
            self.settle(mark, None)
            raise
        if admission.replay is not None:
            self._close(mark, admission.replay)
        else:
            admission.mark = mark
        return admission

    async def _answer_elsewhere(self, mark: Mark, reply: Reply, deadline: float) -> StoredAnswer | None:
        """Return the answer that another process has or will have by `deadline`; None when the work is ours."""
        pause, loop = FIRST_POLL_SECONDS, asyncio.get_running_loop()
        while reply.verdict == FOUND and reply.found != mark.value.encode():
            left = deadline - loop.time()
            if left <= 0 or not is_mark_of(reply.found, mark.fingerprint):
                return answer_in(reply.found, mark.fingerprint)
            await asyncio.sleep(min(pause, left))
            pause *= 2
            # A mark that is gone by then is taken over.
            reply = await self._ask(Question(name=mark.name, mark=mark.value))
        mark.in_redis = reply.verdict in {MARKED, FOUND}
        return None

    # --- A batch

    async def _send(self, questions: Sequence[Question]) -> list[Reply]:
        numbers: dict[str, int] = {"": 0}
        buckets: list[str | int] = []
        asked: list[str | int] = []

        def number_of(name: str, limit: Limit, owed: int = 0) -> int:
            number = numbers[name] = len(numbers)
            buckets.extend((name, limit.step_us, limit.burst_us, limit.window_us, owed))
            return number

        for owing in self._leases.settle():
            number_of(*owing)
        for question in questions:
            key = numbers.get(question.key_bucket)
            if key is None:
                key = number_of(question.key_bucket, question.own_limit or self._key_limit)
            address = numbers.get(question.address_bucket)
            if address is None:
                address = number_of(question.address_bucket, self._address_limit)
            asked += (key, address, question.cost, question.name, question.mark)
        answers, releases = self._writes.take()
        self._schedule_flush()
        try:
            reply = await self._script.call(
                1,
                self._prefix,
                _pack(buckets),
                _pack(asked),
                _pack(releases),
                MARK_MS,
                self._answer_ms,
                *answers,
            )
        except RedisDown:
            return [self._count_in_memory(question) for question in questions]
        replies = replies_of(reply, len(questions))
        self._leases.learn(self._told(questions, replies), time.monotonic_ns() // 1000)
        return replies

    def _told(
        self, questions: Sequence[Question], replies: Sequence[Reply]
    ) -> Iterator[tuple[str, Limit, int]]:
        for question, reply in zip(questions, replies, strict=True):
            yield question.key_bucket, question.own_limit or self._key_limit, reply.key_fill_us
            yield question.address_bucket, self._address_limit, reply.address_fill_us

    def _schedule_flush(self) -> None:
        """Have the writes and what is owed ride on the next round trip, or on one of their own a little later."""
        if not (self._writes or self._leases):
            if self._flush is not None:
                self._flush.cancel()
                self._flush = None
        elif self._flush is None:
            self._flush = asyncio.get_running_loop().call_later(FLUSH_SECONDS, self._flush_now)

    def _flush_now(self) -> None:
        self._flush = None
        with suppress(Refusal):
            # The round trip that tells what is owed renews the leases, so that requests need not wait for one.
            for name, limit in self._leases.owing() or (("", self._key_limit),):
                self._lane.enqueue(Question(name, own_limit=limit))


def batch_cost(items: int) -> int:
    """Return the cost of a batch of `items`: a request for every 100 begun, which is about its cost in the database."""
    return max(1, -(-items // 100))
