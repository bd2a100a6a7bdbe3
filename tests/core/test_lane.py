"""The lane: sends at once when idle, gathers while it is busy, keeps the order, and never loses anybody's result."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from core.errors import Refusal
from core.lane import PATIENT_TURNS, Lane


class Sender:
    """Records the batches it is given, and holds each one up until it is let go."""

    def __init__(self) -> None:
        self.batches: list[list[Any]] = []
        self.entered = asyncio.Semaphore(0)
        self.go_on = asyncio.Semaphore(0)
        self.fails: BaseException | None = None

    async def __call__(self, items: Sequence[Any]) -> Sequence[Any]:
        self.batches.append(list(items))
        self.entered.release()
        await self.go_on.acquire()
        if self.fails is not None:
            raise self.fails
        return [ValueError(item) if item == "bad" else f"<{item}>" for item in items]


def lane_of(sender: Sender, **more: Any) -> Lane[Any, Any]:
    return Lane(sender, **{"max_batch": 100, "max_waiting": 100} | more)


async def test_first_goes_at_once_and_the_rest_gathers() -> None:
    sender = Sender()
    lane = lane_of(sender)
    first = asyncio.create_task(lane.submit("a"))
    await sender.entered.acquire()
    rest = [asyncio.create_task(lane.submit(item)) for item in "bcde"]
    await asyncio.sleep(0)
    assert (sender.batches, lane.waiting) == ([["a"]], 4)
    for _ in range(2):
        sender.go_on.release()
    assert await asyncio.gather(first, *rest) == ["<a>", "<b>", "<c>", "<d>", "<e>"]
    assert sender.batches == [["a"], ["b", "c", "d", "e"]]
    sender.go_on.release()
    assert await lane.submit("f") == "<f>"
    assert sender.batches[2:] == [["f"]]


async def test_a_patient_lane_takes_along_what_has_arrived() -> None:
    sender = Sender()
    lane = lane_of(sender, patience=0)
    first = asyncio.create_task(lane.submit("a"))
    await asyncio.sleep(0)
    second = asyncio.create_task(lane.submit("b"))
    sender.go_on.release()
    assert [await first, await second] == ["<a>", "<b>"]
    assert sender.batches == [["a", "b"]]


async def test_a_patient_lane_waits_while_turns_of_the_loop_bring_items_and_not_for_ever() -> None:
    sender = Sender()
    lane = lane_of(sender, patience=0)
    sender.go_on = asyncio.Semaphore(100)
    futures = []
    for item in range(20):  # one comes with each turn
        futures.append(lane.enqueue(item))
        await asyncio.sleep(0)
    assert await asyncio.gather(*futures) == [f"<{item}>" for item in range(20)]
    sizes = [len(batch) for batch in sender.batches]
    assert max(sizes) <= PATIENT_TURNS + 1
    assert min(sizes[:-1]) >= PATIENT_TURNS  # before each batch, and not before the first one alone


@pytest.mark.parametrize("at_once", [True, False])
async def test_a_lane_that_gathers_waits_no_longer_once_a_quarter_of_a_batch_has_come(
    *, at_once: bool
) -> None:
    """Items that wait may hold what others need, as results of deliveries hold the slots of a sender."""
    sender = Sender()
    sender.go_on = asyncio.Semaphore(100)
    lane = lane_of(sender, max_batch=12, patience=3600.0)
    async with asyncio.timeout(10):
        for first in (0, 3):
            futures = []
            for item in range(first, first + 3):
                futures.append(lane.enqueue(item))
                if not at_once:
                    await asyncio.sleep(0)
            assert await asyncio.gather(*futures) == [f"<{item}>" for item in range(first, first + 3)]
    assert sender.batches == [[0, 1, 2], [3, 4, 5]]


async def test_a_share_of_what_waits() -> None:
    sender = Sender()
    lane = lane_of(sender, share=3)
    tasks = [asyncio.create_task(lane.submit(item)) for item in range(20)]
    for _ in range(9):
        sender.go_on.release()
    assert await asyncio.gather(*tasks) == [f"<{item}>" for item in range(20)]
    assert [len(batch) for batch in sender.batches] == [5, 3, 3, 3, 3, 3]
    assert [item for batch in sender.batches for item in batch] == list(range(20))


async def test_batches_are_bounded_by_weight_and_keep_the_order() -> None:
    sender = Sender()
    lane = lane_of(sender, max_batch=10, weigh=lambda item: item)
    tasks = [asyncio.create_task(lane.submit(item)) for item in (4, 6, 1, 10, 25, 3, 3, 3, 3)]
    for _ in range(9):
        sender.go_on.release()
    assert await asyncio.gather(*tasks) == [f"<{item}>" for item in (4, 6, 1, 10, 25, 3, 3, 3, 3)]
    assert sender.batches == [[4, 6], [1], [10], [25], [3, 3, 3], [3]]


async def test_batches_are_bounded_by_number() -> None:
    sender = Sender()
    lane = lane_of(sender, max_batch=3)
    tasks = [asyncio.create_task(lane.submit(item)) for item in range(7)]
    for _ in range(3):
        sender.go_on.release()
    await asyncio.gather(*tasks)
    assert [len(batch) for batch in sender.batches] == [3, 3, 1]


async def test_error_of_one_item_is_nobody_elses() -> None:
    sender = Sender()
    lane = lane_of(sender)
    tasks = [asyncio.create_task(lane.submit(item)) for item in ("a", "bad", "c")]
    sender.go_on.release()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert (results[0], results[2]) == ("<a>", "<c>")
    assert isinstance(results[1], ValueError)


async def test_batch_that_fails_fails_alone() -> None:
    sender = Sender()
    lane = lane_of(sender)
    first = asyncio.create_task(lane.submit("a"))
    await sender.entered.acquire()
    second = asyncio.create_task(lane.submit("b"))
    sender.fails = OSError("gone")
    sender.go_on.release()
    with pytest.raises(OSError, match="gone"):
        await first
    await sender.entered.acquire()
    sender.fails = None
    sender.go_on.release()
    assert await second == "<b>"


async def test_answer_that_is_too_short_fails_the_batch_and_not_the_lane() -> None:
    async def send(items: Sequence[Any]) -> Sequence[Any]:
        return [] if "bad" in items else list(items)

    lane: Lane[Any, Any] = Lane(send, max_batch=10, max_waiting=10)
    with pytest.raises(RuntimeError, match="0 results for 1 items"):
        await lane.submit("bad")
    assert await lane.submit("good") == "good"


async def test_full_lane_refuses_and_forgets() -> None:
    sender = Sender()
    lane = lane_of(sender, max_waiting=2)
    first = asyncio.create_task(lane.submit("a"))
    await sender.entered.acquire()
    waiting = [asyncio.create_task(lane.submit(item)) for item in "bc"]
    await asyncio.sleep(0)
    with pytest.raises(Refusal) as refused:
        await lane.submit("d")
    assert (refused.value.code, refused.value.retry_after) == ("overloaded", 1.0)
    for _ in range(2):
        sender.go_on.release()
    await asyncio.gather(first, *waiting)
    assert sender.batches == [["a"], ["b", "c"]]
    sender.go_on.release()
    assert await lane.submit("e") == "<e>"


async def test_caller_that_goes_away_cancels_nothing() -> None:
    sender = Sender()
    lane = lane_of(sender)
    caller = asyncio.create_task(lane.submit("a"))
    await sender.entered.acquire()
    other = asyncio.create_task(lane.submit("b"))
    leaver = asyncio.create_task(lane.submit("c"))
    await asyncio.sleep(0)
    for task in (caller, leaver):
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    for _ in range(2):
        sender.go_on.release()
    assert await other == "<b>"
    assert sender.batches == [["a"], ["b", "c"]]


async def test_error_for_a_caller_that_went_away_is_silent(caplog: pytest.LogCaptureFixture) -> None:
    sender = Sender()
    sender.fails = OSError("gone")
    lane = lane_of(sender)
    caller = asyncio.create_task(lane.submit("a"))
    await sender.entered.acquire()
    caller.cancel()
    sender.go_on.release()
    await lane.close()
    assert caplog.records == []


async def test_close_refuses_what_comes_and_waits_for_what_came() -> None:
    sender = Sender()
    lane = lane_of(sender)
    tasks = [asyncio.create_task(lane.submit("a"))]
    await sender.entered.acquire()
    tasks.append(asyncio.create_task(lane.submit("b")))
    await asyncio.sleep(0)
    closing = asyncio.create_task(lane.close())
    await asyncio.sleep(0)
    with pytest.raises(Refusal) as refused:
        await lane.submit("c")
    assert refused.value.code == "shutting_down"
    assert not closing.done()
    for _ in range(2):
        sender.go_on.release()
    await closing
    assert [task.result() for task in tasks] == ["<a>", "<b>"]
    await lane.close()
