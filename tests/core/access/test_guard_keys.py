"""Idempotency keys through the guard: equal requests, here and in other processes, do the work once between them."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from redis.asyncio import Redis

from core.access.api_keys import Principal
from core.access.guard import MARK_MS, Admission, Guard
from core.access.marks import MAX_ANSWER_BYTES, StoredAnswer, answer_in, request_fingerprint
from core.access.rates import RateLimited

GuardFactory = Callable[..., Guard]
Eventually = Callable[..., Awaitable[Any]]

FINGERPRINT = request_fingerprint("create_transfer", b'{"amount":1}')
OTHER_FINGERPRINT = request_fingerprint("create_transfer", b'{"amount":2}')
# Bytes that no text encoding would leave alone.
ANSWER = StoredAnswer(201, "application/json", b'{"id":"1"}\n\x00\xff')


async def _admit(
    guard: Guard, caller: Principal, key: str = "k-1", fingerprint: bytes = FINGERPRINT
) -> Admission:
    return await guard.admit(principal=caller, address="192.0.2.1", key=key, fingerprint=fingerprint)


def _name(caller: Principal, key: str) -> str:
    return f"ts:testepoch:{{guard}}:once:{caller.id}:{key}"


async def _unmarked(redis: Redis, caller: Principal) -> bool:
    return await redis.get(_name(caller, "k-1")) is None


async def _stored(redis: Redis, caller: Principal, key: str = "k-1") -> bool:
    return (await redis.get(_name(caller, key)) or b"").startswith(b"A")


class Books:
    """Stands for PostgreSQL: the first to come posts, and everyone gets the same answer."""

    def __init__(self) -> None:
        self.calls = 0
        self.posted: StoredAnswer | None = None

    async def post(self) -> StoredAnswer:
        self.calls += 1
        mine = StoredAnswer(201, "application/json", json.dumps({"number": self.calls}).encode())
        await asyncio.sleep(0.02)  # the time of a commit, in which twins arrive
        self.posted = self.posted or mine
        return self.posted


async def _request(guard: Guard, caller: Principal, books: Books) -> StoredAnswer:
    admission = await _admit(guard, caller)
    try:
        if admission.replay is not None:
            return admission.replay
        answer = await books.post()
        admission.finish(answer)
        return answer
    finally:
        admission.release()


async def test_32_equal_requests_in_two_processes_do_the_work_once(
    guards: GuardFactory, caller: Principal
) -> None:
    processes, books = [guards(), guards()], Books()
    answers = await asyncio.gather(*(_request(processes[n % 2], caller, books) for n in range(32)))
    assert books.calls == 1
    assert answers == [books.posted] * 32


async def test_a_wiped_redis_costs_a_look_at_the_books_and_nothing_else(
    guards: GuardFactory, caller: Principal, redis: Redis, eventually: Eventually
) -> None:
    processes, books = [guards(), guards()], Books()
    for number, process in enumerate([*processes, *processes], start=1):
        await _request(process, caller, books)
        assert books.calls == number
        await eventually(lambda: _stored(redis, caller))
        await redis.flushdb()
    assert await _request(processes[0], caller, books) == books.posted


async def test_32_equal_requests_while_redis_is_wiped_again_and_again(
    guards: GuardFactory, caller: Principal, redis: Redis
) -> None:
    processes, books = [guards(), guards()], Books()

    async def wipe() -> None:
        while books.posted is None:
            await redis.flushdb()

    *answers, _ = await asyncio.gather(
        *(_request(processes[n % 2], caller, books) for n in range(32)), wipe()
    )
    assert answers == [books.posted] * 32


async def test_a_later_twin_gets_the_answer_byte_for_byte(
    guards: GuardFactory, caller: Principal, redis: Redis, eventually: Eventually
) -> None:
    here, elsewhere = guards(idempotency_ttl_secs=30), guards()
    (await _admit(here, caller)).finish(ANSWER)
    await eventually(lambda: _stored(redis, caller))
    for process in (here, elsewhere):
        admission = await _admit(process, caller)
        assert admission.replay == ANSWER
        admission.release()  # of a replay nothing is left to release
    assert await _stored(redis, caller)
    assert MARK_MS < await redis.pttl(_name(caller, "k-1")) <= 30_000


async def test_keys_belong_to_the_principal_and_not_to_the_api_key(
    guard: Guard, caller: Principal, redis: Redis, eventually: Eventually
) -> None:
    (await _admit(guard, caller)).finish(ANSWER)
    await eventually(lambda: _stored(redis, caller))
    same = Principal(caller.id, caller.name, caller.scopes, "bbbbbbbbbbbb")
    stranger = Principal(8, "stranger", caller.scopes, caller.key_id)
    assert (await _admit(guard, same)).replay == ANSWER
    assert (await _admit(guard, stranger)).replay is None


async def test_another_body_under_the_key_goes_on_to_the_books(
    guards: GuardFactory, caller: Principal, redis: Redis, eventually: Eventually
) -> None:
    here, elsewhere = guards(), guards()
    leader = await _admit(here, caller)
    # In flight: at once, not after the wait for a twin.
    for process in (here, elsewhere):
        async with asyncio.timeout(1):
            other = await _admit(process, caller, fingerprint=OTHER_FINGERPRINT)
        assert other.replay is None
        other.release()
    leader.finish(ANSWER)
    await eventually(lambda: _stored(redis, caller))
    for process in (here, elsewhere):
        other = await _admit(process, caller, fingerprint=OTHER_FINGERPRINT)
        assert other.replay is None
        other.release()
        assert (await _admit(process, caller)).replay == ANSWER


@pytest.mark.parametrize("same_process", [True, False])
async def test_a_twin_takes_over_what_was_released(
    guards: GuardFactory, caller: Principal, *, same_process: bool
) -> None:
    here = guards()
    there = here if same_process else guards()
    leader = await _admit(here, caller)
    waiting = [asyncio.create_task(_admit(there, caller)) for _ in range(3)]
    await asyncio.wait(waiting, timeout=0.05)
    assert not any(task.done() for task in waiting)
    leader.release()
    done, still_waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    assert len(done) == 1
    successor = done.pop().result()
    assert successor.replay is None
    successor.finish(ANSWER)
    assert [admission.replay for admission in await asyncio.gather(*still_waiting)] == [ANSWER, ANSWER]


@pytest.mark.parametrize("same_process", [True, False])
async def test_a_twin_that_never_ends_is_left_after_a_bounded_wait(
    guards: GuardFactory, caller: Principal, monkeypatch: pytest.MonkeyPatch, *, same_process: bool
) -> None:
    monkeypatch.setattr("core.access.guard.TWIN_WAIT_SECONDS", 0.1)
    here = guards()
    leader = await _admit(here, caller)
    async with asyncio.timeout(1):
        admission = await _admit(here if same_process else guards(), caller)
    assert admission.replay is None
    admission.release()
    leader.release()


@pytest.mark.parametrize("with_twin", [True, False])
async def test_a_caller_that_goes_away_leaves_no_mark(
    guards: GuardFactory, caller: Principal, redis: Redis, eventually: Eventually, *, with_twin: bool
) -> None:
    here, elsewhere = guards(), guards()
    for turns_of_the_loop in range(6):
        leader = await _admit(elsewhere, caller) if with_twin else None
        task = asyncio.create_task(_admit(here, caller))
        for _ in range(turns_of_the_loop):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        for admission in (leader, None if task.cancelled() else task.result()):
            if admission is not None:
                admission.release()
        await eventually(lambda: _unmarked(redis, caller))
        async with asyncio.timeout(1):
            admission = await _admit(here, caller)
        assert admission.replay is None
        admission.release()
        await eventually(lambda: _unmarked(redis, caller))


async def test_a_mark_that_another_has_taken_over_is_not_taken_away(
    guards: GuardFactory, caller: Principal, redis: Redis
) -> None:
    guard = guards()
    late = await _admit(guard, caller)
    await redis.delete(_name(caller, "k-1"))  # as it does when its time is over
    successor = await _admit(guards(), caller)
    late.release()
    await guard.close()
    assert not await _unmarked(redis, caller)
    successor.release()


async def test_a_rate_limited_request_leaves_no_mark(
    guards: GuardFactory, caller: Principal, redis: Redis
) -> None:
    guard = guards(v1_rate_limit_per_second=1, v1_rate_limit_burst=1)
    await guard.admit(principal=caller, address="192.0.2.1")
    answers = await asyncio.gather(*(_admit(guard, caller) for _ in range(4)), return_exceptions=True)
    assert all(isinstance(answer, RateLimited) for answer in answers)
    assert await _unmarked(redis, caller)


async def test_an_answer_that_is_too_large_is_shared_here_and_not_stored(
    guards: GuardFactory, caller: Principal, redis: Redis, eventually: Eventually
) -> None:
    guard = guards()
    large = ANSWER._replace(body=b"x" * (MAX_ANSWER_BYTES + 1))
    leader = await _admit(guard, caller)
    twin = asyncio.create_task(_admit(guard, caller))
    await asyncio.wait([twin], timeout=0.02)
    leader.finish(large)
    assert (await twin).replay == large

    await eventually(lambda: _unmarked(redis, caller))


async def test_answers_are_written_before_the_process_ends(
    guards: GuardFactory, caller: Principal, redis: Redis
) -> None:
    guard = guards()
    admissions = await asyncio.gather(*(_admit(guard, caller, f"k-{number}") for number in range(600)))
    for admission in admissions:
        admission.finish(ANSWER)
    await guard.close()
    assert [await _stored(redis, caller, f"k-{number}") for number in range(600)] == [True] * 600


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"A",
        b"M",
        b"A" + FINGERPRINT.hex().encode(),
        b"A" + FINGERPRINT.hex().encode() + b"2x1application/json\n{}",
        b"A" + FINGERPRINT.hex().encode() + b"201application/json",
        b"\xff" * 200,
    ],
)
async def test_what_is_not_ours_in_redis_is_passed_by(
    guard: Guard, caller: Principal, redis: Redis, value: bytes
) -> None:
    await redis.set(_name(caller, "k-1"), value)
    admission = await _admit(guard, caller)
    assert admission.replay is None
    admission.release()
    assert answer_in(value, FINGERPRINT.hex()) is None


def test_a_fingerprint_tells_operation_and_body_apart() -> None:
    assert len(FINGERPRINT) == 32
    assert request_fingerprint("a", b"bc") != request_fingerprint("ab", b"c")
    assert FINGERPRINT != OTHER_FINGERPRINT
