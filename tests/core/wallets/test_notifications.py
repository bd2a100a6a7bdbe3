"""An event is bounded on every way to write one: a larger one is refused, and its whole transaction with it."""

import ast
import re
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from core.audit import audited
from core.errors import Refusal
from core.ledger.items import Effects, Leg, Posting, operation_id
from core.outbox import trials
from core.outbox.events import MAX_BODY_BYTES, encode, new_event, write_events
from core.wallets import administration
from core.wallets.notifications import tell, tell_all, write
from core.wallets.users import User
from tests.core.payables.conftest import CURRENCY, Bank

ROOT = Path(__file__).resolve().parents[3]
RECORD = audited("told", "admin", {})

Write = Callable[[Bank, User, Mapping[str, Any]], Awaitable[object]]


async def as_an_event(bank: Bank, shop: User, data: Mapping[str, Any]) -> None:
    async with bank.database.transaction() as connection:
        await write_events(connection, [new_event(shop.principal_id, "told", data)])


async def beside_a_good_one(bank: Bank, shop: User, data: Mapping[str, Any]) -> None:
    async with bank.database.transaction() as connection:
        await write(connection, tell(shop, "told", {"id": "good"}), [RECORD])
        await write(connection, tell(shop, "told", data))


async def to_all(bank: Bank, shop: User, data: Mapping[str, Any]) -> None:
    async with bank.database.transaction() as connection:
        await write(connection, tell_all([shop, shop], "told", data), [RECORD])


async def with_a_posting(bank: Bank, shop: User, data: Mapping[str, Any]) -> None:
    ann = await bank.user(100)
    legs = (Leg(ann.account, -100), Leg(shop.account, 100))
    posting = Posting(
        operation_id(ann.principal_id, "told"),
        ann.principal_id,
        legs,
        currency=CURRENCY,
        effects=Effects(told=tell(shop, "told", data), audited=(RECORD,)),
    )
    (outcome,) = await bank.call(posting)
    assert outcome.posted


async def as_a_test(bank: Bank, shop: User, data: Mapping[str, Any]) -> None:
    await trials.send_test_to_all(bank.database, principal_id=shop.principal_id, data=data)


async def by_an_administrator(bank: Bank, shop: User, data: Mapping[str, Any]) -> None:
    await administration.freeze(bank.platform, shop.id, frozen=True, reason=data["filling"])


WAYS: tuple[Write, ...] = (
    as_an_event, beside_a_good_one, to_all, with_a_posting, as_a_test, by_an_administrator,
)  # fmt: skip


async def state(bank: Bank, shop: User) -> list[Any]:
    counts = await bank.owner.fetchrow(
        "SELECT (SELECT count(*) FROM outbox_events), (SELECT count(*) FROM webhook_deliveries),"
        " (SELECT count(*) FROM audit_events WHERE type <> 'user.created')"
    )
    account = await bank.owner.fetchrow("SELECT balance, state FROM accounts WHERE code = $1", shop.account)
    return [*counts, *account]


@pytest.mark.parametrize("way", WAYS)
async def test_an_event_above_the_bound_is_refused_and_nothing_is_written(bank: Bank, way: Write) -> None:
    shop = await bank.user(merchant=True)
    await bank.owner.execute(
        "INSERT INTO webhook_endpoints (id, principal_id, url, event_types, secrets)"
        " VALUES (gen_random_uuid(), $1, 'https://example.org/', '{}', '{whsec_x}')",
        shop.principal_id,
    )
    before = await state(bank, shop)
    with pytest.raises(Refusal) as refused:
        await way(bank, shop, {"filling": "x" * MAX_BODY_BYTES})
    assert refused.value.code == "event_too_large"
    assert await state(bank, shop) == before

    await way(bank, shop, {"filling": "x" * (MAX_BODY_BYTES - 1_000)})
    assert (await state(bank, shop))[0] > before[0]


def test_the_bound_is_that_of_the_whole_body() -> None:
    filling = "x" * (MAX_BODY_BYTES - len(encode("told", {"filling": ""})))
    assert len(new_event(1, "told", {"filling": filling}).body) == MAX_BODY_BYTES
    with pytest.raises(Refusal):
        new_event(1, "told", {"filling": f"{filling}x"})


@pytest.mark.parametrize("event_type", ["", "a b", "a..b", ".a", "a.", "ä", "a" * 101])
def test_a_type_that_nobody_could_subscribe_to_is_an_error_of_ours(event_type: str) -> None:
    with pytest.raises(ValueError, match="not an event type"):
        new_event(1, event_type, {})


def test_one_function_makes_events_and_one_statement_each_writes_events_and_records() -> None:
    makers = {
        path.relative_to(ROOT).as_posix()
        for package in ("core", "handlers", "jobs", "ops")
        for path in (ROOT / package).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Told"
    }
    assert makers == {"core/outbox/events.py"}
    for table, writers in {
        "outbox_events": {
            "functions/posting_effects.sql",
            "queries/outbox/events.sql",
            # Bytes of another form, for one address: see `core.outbox.callbacks`.
            "queries/outbox/callbacks.sql",
        },
        "audit_events": {"functions/posting_effects.sql", "queries/audit.sql"},
    }.items():
        found = {
            path.relative_to(ROOT / "sql").as_posix()
            for path in (ROOT / "sql").rglob("*.sql")
            if re.search(rf"INSERT INTO {table}\b", path.read_text())
        }
        assert found == writers
