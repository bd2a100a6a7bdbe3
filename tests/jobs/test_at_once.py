"""Events that are fanned out with the posting that they tell of: which, in what order, and what a crash leaves."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

import pytest

from core.database import Row
from core.errors import Unavailable
from core.inbox import applying
from core.inbox.processing import Processor
from core.inbox.rules import Admission
from core.ledger import posting
from core.ledger.accounts import Opening, open_account
from core.ledger.items import Outcome, Posting
from core.outbox.breakers import FIRST_SLOTS, MOST_SLOTS
from core.outbox.events import new_event, write_events
from core.outbox.fanout import FanOut, Room
from core.outbox.recording import take_over_deliveries
from core.outbox.sender import SLOTS, SLOTS_KEPT, SLOTS_OF_OTHERS, Sender
from core.work.leases import Worker
from tests.core.outbox.hand import sent, states
from tests.core.outbox.office import Office
from tests.jobs.merchant import Thread, payment

Eventually = Callable[..., Awaitable[Any]]


@pytest.fixture
async def office(thread: Thread) -> Office:
    """The shop of the thread, with an account and open system accounts."""
    await thread.open_account("shop:main")
    pool = thread.service.database.connections.pool
    principal_id = await pool.fetchval("SELECT id FROM principals WHERE name = 'shop'")
    office = Office(thread.api, thread.service, "shop", thread.key, principal_id)
    await thread.send(payment("pi_first", "shop:main"))
    await processor(thread).step()
    await office.fan_out()
    return office


def processor(
    thread: Thread, sender: Any = None, wake: Callable[[str], None] = lambda topic: None
) -> Processor:
    service = thread.service
    return Processor(
        service.database,
        service.ledger,
        Worker() if sender is None else sender._worker,
        admission=Admission.of(service.settings),
        wake=wake,
        sender=sender,
    )


@asynccontextmanager
async def sending(office: Office) -> AsyncIterator[Sender]:
    sender = office.sender()
    await sender._worker.beat(office.service.database)
    try:
        yield sender
    finally:
        await office.close(sender)


async def waiting(office: Office) -> int:
    (row,) = await office.sql("SELECT count(*) FROM outbox_events WHERE fanned_out_at IS NULL")
    count: int = row["count"]
    return count


async def test_few_events_are_told_with_the_commit_of_their_postings(office: Office, thread: Thread) -> None:
    endpoint = await office.listen(thread.receiver, event_types=["payment.*"])
    office.breakers.note(UUID(endpoint["id"]), good=True, seconds=0.01)
    woken: list[str] = []
    async with sending(office) as sender:
        for number in range(3):
            await thread.send(payment(f"pi_{number}", "shop:main"))
        assert await processor(thread, sender, woken.append).step() == 3
        assert await waiting(office) == 0
        await sent(sender)
        assert sender._offered == 0
    assert await states(office) == [("delivered", 1)] * 3
    assert woken == []
    for delivery in thread.receiver.deliveries:
        thread.receiver.verify(delivery)
    events = (await office.get("/v1/events"))["data"]
    assert [event["position"] for event in events] == [1, 2, 3, 4]
    told = {delivery.headers["webhook-id"] for delivery in thread.receiver.deliveries}
    assert told == {event["id"] for event in events[1:]}


async def test_a_receiver_without_room_gets_the_rest_by_claims(office: Office, thread: Thread) -> None:
    """One that is not known yet gets two at a time, here of four at two endpoints."""
    for name in ("one", "two"):
        await office.endpoint(f"{thread.receiver.url}?{name}")
    woken: list[str] = []
    async with sending(office) as sender:
        for number in range(4):
            await thread.send(payment(f"pi_{number}", "shop:main"))
        await processor(thread, sender, woken.append).step()
        assert woken == ["deliveries"]
        assert sorted(await states(office)) == [("leased", 1)] * 4 + [("pending", 0)] * 4
    assert await waiting(office) == 0


@pytest.mark.parametrize("why", ["ordered", "batches", "off", "many endpoints", "one waits", "many events"])
async def test_what_is_left_to_the_fan_out(
    office: Office, thread: Thread, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    wishes: dict[str, dict[str, Any]] = {"ordered": {"ordered": True}, "batches": {"batch_size": 2}}
    endpoint = await office.listen(thread.receiver, **wishes.get(why, {}))
    if why == "off":
        await office.call("PATCH", f"/v1/webhook-endpoints/{endpoint['id']}", {"enabled": False})
    for number in range(4 if why == "many endpoints" else 0):
        await office.endpoint(f"{thread.receiver.url}?{number}", event_types=["vouchers.*"])
    if why == "one waits":
        async with office.service.database.transaction() as connection:
            await write_events(connection, [new_event(office.principal_id, "payment.failed", {})])
    if why == "many events":
        monkeypatch.setattr(applying, "MOST_AT_ONCE", 0)
    woken: list[str] = []
    async with sending(office) as sender:
        await thread.send(payment("pi_1", "shop:main"))
        assert await processor(thread, sender, woken.append).step() == 1
        assert await waiting(office) == (2 if why == "one waits" else 1)
        assert woken == ["outbox"]
        assert sender._offered == 0
        assert not sender._sending
    await office.fan_out()
    types = [event["type"] for event in (await office.get("/v1/events?after=1"))["data"]]
    assert types == (["payment.failed"] if why == "one waits" else []) + ["payment.succeeded"]


@pytest.mark.parametrize(("table", "waits"), [("webhook_endpoints", 0), ("outbox_positions", 1)])
async def test_money_waits_for_no_row_of_its_telling(
    office: Office, thread: Thread, table: str, waits: int
) -> None:
    """A transaction that hangs would else hold up a provider's clearing account."""
    await office.listen(thread.receiver)
    await thread.send(payment("pi_1", "shop:main"))
    async with sending(office) as sender, office.service.database.transaction() as hanging:
        await hanging.raw.fetch(f"SELECT FROM {table} FOR UPDATE")
        assert await processor(thread, sender).step() == 1
        assert (await thread.inbox("evt_pi_1"))["state"] == "done"
        assert await waiting(office) == waits
        assert sender._offered == 0
    await office.deliver()
    assert await states(office) == [("delivered", 1)]


@pytest.mark.parametrize("events", [1, 3])
async def test_money_goes_without_a_telling_that_fails(
    office: Office, thread: Thread, events: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here in a database whose functions are those of the version before."""
    query = posting.SQL.post_and_deliver
    text = query.text.replace("outbox_deliver(", "outbox_deliver_of_later(")
    monkeypatch.setattr(posting.SQL, "post_and_deliver", query._replace(text=text))
    await office.listen(thread.receiver)
    for number in range(events):
        await thread.send(payment(f"pi_{number}", "shop:main"))
    woken: list[str] = []
    async with sending(office) as sender:
        assert await processor(thread, sender, woken.append).step() == events
        assert woken == ["outbox"]
        assert sender._offered == 0
    assert await waiting(office) == events
    assert await thread.balance("shop:main") == 1500 * (events + 1)
    (row,) = await office.sql("SELECT count(*) FROM inbox_failures")
    assert row["count"] == 0


async def test_room_for_few_leaves_others_theirs(office: Office, thread: Thread) -> None:
    """Batches that wait for a locked account keep their room meanwhile."""
    endpoint = UUID((await office.listen(thread.receiver))["id"])
    for _ in range(MOST_SLOTS):
        office.breakers.note(endpoint, good=True, seconds=0.01, full=True)
    async with sending(office) as sender:
        # A swift receiver with more than its first slots under way gets more of them, while many are free.
        sender._of_endpoint[endpoint] = FIRST_SLOTS + 1
        rooms = [sender.offer(4)]
        assert (rooms[0].free, rooms[0].free_of_many) == (4, 4)
        assert rooms[0].rooms == [MOST_SLOTS - FIRST_SLOTS - 1]
        rooms += [sender.offer(64) for _ in range(3)]
        assert sum(room.free for room in rooms) == sender._offered == SLOTS_KEPT
        rooms += [sender.offer()]
        assert rooms[-1].free == SLOTS - SLOTS_KEPT
        # All others at once never get more than their part, however many rooms are kept.
        assert sum(room.free_of_others for room in rooms) <= SLOTS_OF_OTHERS
        for room in rooms:
            sender.take(room, ())
        # A fan-out that looks for events has all slots meanwhile, and yet there are some for few.
        rooms = [sender.offer(), sender.offer(2)]
        assert [room.free for room in rooms] == [SLOTS, 2]
        assert rooms[1].free_of_others == 2
        for room in rooms:
            sender.take(room, ())
        assert sender._offered == 0


async def test_an_event_that_comes_again_is_told_once(office: Office, thread: Thread) -> None:
    await office.listen(thread.receiver)
    async with sending(office) as sender:
        for event_id in ("evt_1", "evt_2", "evt_3"):
            await thread.send(payment("pi_1", "shop:main", event_id=event_id))
            await processor(thread, sender).step()
        await sent(sender)
        assert sender._offered == 0
    assert await states(office) == [("delivered", 1)]
    assert await thread.balance("shop:main") == 3000


async def test_a_batch_of_two_principals_is_told_as_one(
    office: Office, thread: Thread, api_key: Callable[..., Awaitable[str]]
) -> None:
    """Beside a twin, an event that is refused, and one whose system accounts have to be opened first."""
    await office.listen(thread.receiver)
    other = Office(thread.api, thread.service, "other", await api_key(principal="other"), 0)
    (row,) = await office.sql("SELECT id FROM principals WHERE name = 'other'")
    await open_account(thread.service.database, Opening("other:eur", "EUR"), row["id"])
    endpoint = await other.endpoint(f"{thread.receiver.url}?other")
    await thread.send(payment("pi_first_of_other", "other:eur", currency="eur"))
    async with sending(office) as sender:
        worker = processor(thread, sender)
        assert await worker.step() == 1
        assert await waiting(office) == 1  # the first of a principal is told by the fan-out
        await office.deliver()
        for event_id, number, account, currency in (
            ("a", 1, "shop:main", "usd"), ("b", 1, "shop:main", "usd"), ("c", 2, "shop:main", "eur"),
            ("d", 3, "other:eur", "eur"), ("e", 4, "other:eur", "eur"),
        ):  # fmt: skip
            await thread.send(payment(f"pi_{number}", account, currency=currency, event_id=event_id))
        assert await worker.step() == 5
        assert await waiting(office) == 0
        await other.call("PATCH", f"/v1/webhook-endpoints/{endpoint['id']}", {"enabled": False})
        for number, account, currency in ((5, "shop:main", "usd"), (6, "other:eur", "eur")):
            await thread.send(payment(f"pi_{number}", account, currency=currency))
        assert await worker.step() == 2
        assert await waiting(office) == 2
        await sent(sender)
        assert sender._offered == 0
    await office.deliver()
    assert [event["position"] for event in (await office.get("/v1/events"))["data"]] == [1, 2, 3]
    assert [event["position"] for event in (await other.get("/v1/events"))["data"]] == [1, 2, 3, 4]
    assert sorted(state for state, _ in await states(office)) == ["delivered"] * 5 + ["failed"]


async def test_a_commit_whose_fate_is_not_known_leaves_no_lease(
    office: Office, thread: Thread, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The connection breaks behind the commit: the delivery is given back, and costs no attempt."""
    await office.listen(thread.receiver)
    async with sending(office) as sender:
        worker = processor(thread, sender)
        ledger = worker._applier._ledger
        real = type(ledger).post_finishing

        async def broken(self: Any, *arguments: Any) -> tuple[list[Outcome], list[Row]]:
            await real(self, *arguments)
            raise Unavailable

        monkeypatch.setattr(type(ledger), "post_finishing", broken)
        await thread.send(payment("pi_1", "shop:main"))
        assert await worker.step() == 1
        monkeypatch.undo()
        assert await states(office) == [("leased", 1)]
        assert sender._offered == 0
        assert await sender.step() == 1
        await sent(sender)
        assert await states(office) == [("delivered", 1)]
    assert (await thread.inbox("evt_pi_1"))["state"] == "done"
    assert len(thread.receiver.deliveries) == 1


async def test_one_poison_keeps_no_room_and_nothing_of_others(
    office: Office, thread: Thread, monkeypatch: pytest.MonkeyPatch
) -> None:
    endpoint = await office.listen(thread.receiver)
    office.breakers.note(UUID(endpoint["id"]), good=True, seconds=0.01)
    async with sending(office) as sender:
        worker = processor(thread, sender)
        ledger = worker._applier._ledger
        real = type(ledger).post_finishing

        async def post(self: Any, postings: Sequence[Posting], *arguments: Any) -> Any:
            if any(leg.amount == 77 for posting in postings for leg in posting.legs):
                raise ValueError("poison")
            return await real(self, postings, *arguments)

        monkeypatch.setattr(type(ledger), "post_finishing", post)
        for number in range(5):
            await thread.send(payment(f"pi_{number}", "shop:main", 77 if number == 3 else 100))
        assert await worker.step() == 5
        await sent(sender)
        assert sender._offered == 0
    assert await waiting(office) == 0
    assert await states(office) == [("delivered", 1)] * 4
    assert (await thread.inbox("evt_pi_3"))["state"] == "pending"


class Killed:
    """A sender whose process dies between the commit and the first request."""

    def __init__(self, sender: Sender) -> None:
        self._sender = sender
        self._worker = sender._worker

    def offer(self, most: int | None = None) -> Room:
        return self._sender.offer(most)

    def take(self, room: Room, rows: Sequence[Row]) -> None:
        self._sender.take(room, ())

    def give_back(self, token: UUID) -> None:
        """Say nothing, being dead."""


async def test_what_a_killed_worker_had_in_hand_is_taken_over(office: Office, thread: Thread) -> None:
    await office.listen(thread.receiver)
    async with sending(office) as sender:
        await thread.send(payment("pi_1", "shop:main"))
        await processor(thread, Killed(sender)).step()
        assert await states(office) == [("leased", 1)]
        await office.sql("UPDATE webhook_deliveries SET lease_until = now() - interval '1 s'")
        assert await take_over_deliveries(office.service.database, office.schedule) == 1
        await office.deliver()
    (delivery,) = thread.receiver.deliveries
    thread.receiver.verify(delivery)
    assert await states(office) == [("delivered", 2)]


async def test_positions_are_dense_and_read_in_order_while_both_ways_write_them(
    office: Office, thread: Thread
) -> None:
    """Two workers apply and fan out while others write events, and a reader follows: it misses nothing."""
    await office.endpoint(thread.receiver.url)
    database = office.service.database
    read: list[int] = []
    done = asyncio.Event()

    async def follow() -> None:
        after = 0
        while True:
            was_done = done.is_set()
            page = await office.get(f"/v1/events?after={after}&limit=100")
            read.extend(event["position"] for event in page["data"])
            after = page["next"]
            if was_done and not page["data"]:
                return

    async def write() -> None:
        for number in range(15):
            await thread.send(payment(f"pi_{number}", "shop:main", event_id=f"evt_{number}"))
            if number % 3 == 0:
                async with database.transaction() as connection:
                    await write_events(connection, [new_event(office.principal_id, "payment.failed", {})])

    async def apply(sender: Sender, written: asyncio.Task[None]) -> None:
        worker, fan_out = processor(thread, sender), FanOut(database, sender, on_due=lambda: None)
        idle = False
        while not idle:
            idle = written.done()
            while await worker.step() or await fan_out.step():
                idle = False

    async with sending(office) as one, sending(office) as other:
        following = asyncio.create_task(follow())
        written = asyncio.create_task(write())
        await asyncio.gather(apply(one, written), apply(other, written))
        await written
        done.set()
        await following
        await office.fan_out()
        assert await waiting(office) == 0
    assert read == list(range(1, 22))
    assert await thread.balance("shop:main") == 16 * 1500
    (row,) = await office.sql("SELECT count(*), count(DISTINCT event_id) AS events FROM webhook_deliveries")
    assert tuple(row) == (20, 20)
