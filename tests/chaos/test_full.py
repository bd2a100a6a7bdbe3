"""A short run of `make chaos` as a whole, what its seed decides, what its links do and what its audit finds."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from loadtests.chaos.full.audit import Ledger, in_the_end
from loadtests.chaos.full.links import Link
from loadtests.chaos.full.movers import ACCOUNTS, Book, Moved
from loadtests.chaos.full.plan import KILLS, KINDS, OTHERS, Plan, steps
from loadtests.chaos.full.report import Report, run_full
from tests.chaos.conftest import POSTGRES_OPTIONS
from tests.chaos.test_chaos import parent  # noqa: F401 - a fixture

pytestmark = pytest.mark.drill


async def test_a_short_full_run_loses_nothing_and_doubles_nothing(
    parent: Path,  # noqa: F811
    record_property: Callable[[str, object], None],
) -> None:
    said: list[str] = []
    # The seed has a full disk and a moved clock among its few faults.
    plan = Plan(seed=39, kills=8, events_a_second=15, transfers_a_second=10, checkpoints=1)
    report = await run_full(plan, parent=parent, say=said.append, postgres_options=POSTGRES_OPTIONS)
    for fault, reason in report.left_out.items():
        record_property("left_out", f"the chaos of {fault}: {reason}")
    assert report.findings == [], said
    assert report.kills == plan.kills
    assert report.checkpoints == plan.checkpoints
    for load in (report.events, report.transfers, report.payments):
        assert min(load.values()) >= 0
    assert report.events["sent"] == report.events["acknowledged"] > 0
    assert report.transfers["asked"] == report.transfers["answered"] > 0
    assert report.payments["asked"] == report.payments["answered"] > 0
    assert list(parent.iterdir()) == []
    assert msgspec.json.decode(msgspec.json.encode(report), type=Report) == report


def test_a_full_run_has_every_fault_and_a_thousand_kills() -> None:
    for seed in (1, 12):
        script = steps(Plan(seed=seed))
        assert script == steps(Plan(seed=seed)) != steps(Plan(seed=seed + 1))
        times = Counter(fault.name for step in script for fault in step)
        assert sum(count for name, count in times.items() if KINDS[name].kills) == Plan().kills == 1_000
        assert times.keys() == KINDS.keys()
        # The API and the workers are killed most often, and the servers several dozen times each.
        assert min(times["api.kill"], times["worker.kill"]) > max(
            times[name] for name in KILLS.keys() - {"api.kill", "worker.kill"}
        )
        assert min(times["postgres.kill"], times["valkey.kill"], times["valkey.wipe"]) >= 36
        assert all(times[name] >= 3 for name in OTHERS)
        for step in script:
            # Two faults of one target at once would be one.
            assert len({KINDS[fault.name].target for fault in step}) == len(step)
            assert all(
                KINDS[fault.name].shortest <= fault.seconds <= KINDS[fault.name].longest for fault in step
            )


@contextlib.asynccontextmanager
async def an_echo_behind(link: Link) -> AsyncIterator[list[bytes]]:
    """A server behind the link that notes what it hears and sends it back."""
    heard: list[bytes] = []

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while chunk := await reader.read(1_000):
                heard.append(chunk)
                writer.write(chunk)
        writer.close()

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    link.target = server.sockets[0].getsockname()[1]
    await link.start()
    try:
        yield heard
    finally:
        await link.close()
        server.close()


@pytest.mark.parametrize("way", sorted(Link().ways))
async def test_a_link_fails_in_its_way_and_is_well_again(way: str) -> None:
    link = Link()
    async with an_echo_behind(link) as heard, asyncio.timeout(10):
        reader, writer = await asyncio.open_connection("127.0.0.1", link.port)
        writer.write(b"before")
        assert await reader.readexactly(6) == b"before"
        failing = asyncio.ensure_future(link.ways[way](0.2))
        await asyncio.sleep(0)
        with contextlib.suppress(OSError):
            writer.write(b"during" * 10)
        try:
            answer = await reader.read(1_000)
        except OSError:
            answer = b""
        await failing
        survives = way in {"slow", "stall"}
        assert (answer == b"during" * 10) is survives
        assert answer == (b"during" * 10)[:40] or way != "tear"
        # The server has heard it though the caller does not know.
        assert (b"during" * 10 in heard) or way not in {"mute", "tear", "slow", "stall"}
        writer.close()
        reader, writer = await asyncio.open_connection("127.0.0.1", link.port)
        writer.write(b"after")
        assert await reader.readexactly(5) == b"after"
        writer.close()


def test_each_broken_promise_of_the_movers_is_found() -> None:
    hot, other = ACCOUNTS[:2]

    def moved(key: str, deed: str, **more: Any) -> Moved:
        return Moved(f"move-{key}", deed, other, hot, 50, **{"status": 201, "id": f"id-{key}", **more})

    def transfer(key: str, **more: Any) -> dict[str, Any]:
        return {"reference": f"move-{key}", "id": f"id-{key}", "amount": 50, **more}

    def hold(key: str, **more: Any) -> dict[str, Any]:
        return {"reference": f"move-{key}", "id": f"id-{key}", "state": 1, "captured": 50, "ends": 0, **more}

    def balance(code: str, amount: int, held: int = 0) -> dict[str, Any]:
        return {"code": code, "balance": amount, "held": held}

    asked = (moved("t", "transfer"), moved("h", "hold"), moved("h-end", "capture"))
    late = (moved("l", "hold"), moved("l-end", "capture", status=409, id="", code="hold_expired"))
    book = Book(moved={one.key: one for one in (*asked, *late)}, position=7)
    good: dict[str, Any] = {
        "transfers": [transfer("t"), transfer("h-end")],
        "holds": [hold("h"), hold("l", state=3, captured=0, ends=1)],
        "balances": [balance(hot, 100), balance(other, -100)],
        "events": 7,
    }
    assert not any(in_the_end(book, Ledger(**good), []).values())
    cases: dict[str, dict[str, Any]] = {
        "move_lost": {"transfers": [transfer("h-end")]},
        "move_twice": {"transfers": [*good["transfers"], transfer("t", id="another")]},
        "move_unasked": {"transfers": [*good["transfers"], transfer("z")]},
        "move_balance": {"balances": [balance(hot, 101), balance(other, -100, held=1)]},
        "hold_left": {"holds": [hold("h"), hold("l", state=0)]},
        "hold_ended_twice": {"holds": [hold("h", ends=2), hold("l", state=3)]},
        "time_ran_back": {"backwards": ["(1, 2)"]},
        "feed_gap": {"events": 8},
    }
    for check, changes in cases.items():
        assert in_the_end(book, Ledger(**{**good, **changes}), [])[check], check
    # A capture that was refused must not have moved anything.
    assert in_the_end(book, Ledger(**{**good, "transfers": [*good["transfers"], transfer("l-end")]}), [])[
        "move_lost"
    ]
    book.moved["move-open"] = moved("open", "transfer", status=0)
    assert in_the_end(book, Ledger(**good), ["a fault"])["move_not_answered"] == ["move-open"]
    assert in_the_end(book, Ledger(**good), ["a fault"])["reconcile"] == ["a fault"]
