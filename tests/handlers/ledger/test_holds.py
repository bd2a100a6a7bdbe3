"""Holds over HTTP: made, captured in parts, voided, extended, expired, and how they are found."""

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from core.ledger.holds import expire_due
from core.service import Service
from tests.handlers.ledger.ledger_client import Answer, ApiClient, Shop, row_counts
from tests.invariants import faults

ABSENT = "00000000-0000-4000-8000-000000000000"
LONG_AGO = "2020-01-01T00:00:00Z"


@pytest.fixture
async def shop(api: ApiClient, api_key: Callable[..., Awaitable[str]]) -> Shop:
    """A shop whose customer `a` has 100."""
    found = Shop(api, await api_key())
    await found.open("cash", floor=None)
    await found.open("a", "b", "fees")
    await found.transfer("cash", "a", 100)
    return found


@pytest.fixture(autouse=True)
async def sound_books(database_url: str, shop: Shop) -> Any:
    """Whatever a test does, the books are sound after it."""
    yield
    assert await faults(database_url) == {}


async def refused(answer: Answer, status: int, code: str) -> Any:
    assert (answer.status, answer.code) == (status, code)
    return answer.json


async def hold(shop: Shop, amount: int = 60, **more: Any) -> Any:
    answer = await shop.post("/v1/holds", {"from": "a", "to": "b", "amount": amount, **more})
    assert answer.status == 201, answer
    return answer.json


async def standing(shop: Shop, code: str = "a") -> tuple[int, int, int]:
    account = await shop.account(code)
    return account["balance"], account["held"], account["available"]


async def test_make_and_show(shop: Shop) -> None:
    end = (datetime.now(UTC) + timedelta(days=7)).replace(microsecond=0)
    made = await hold(shop, kind="booking", reference="r", metadata={"room": "7"}, expires_at=end.isoformat())
    assert made == {
        "id": made["id"], "state": "open", "source": "a", "amount": 60, "captured": 0, "remaining": 60,
        "legs": [{"account": "a", "amount": -60}, {"account": "b", "amount": 60}], "kind": "booking", "reference": "r",
        "metadata": {"room": "7"}, "expires_at": end.isoformat().replace("+00:00", "Z"),
        "created_at": made["created_at"],
    }  # fmt: skip
    shown = await shop.get(f"/v1/holds/{made['id']}")
    assert (shown.status, shown.json) == (200, made)
    assert await standing(shop) == (100, 60, 40)
    await refused(await shop.transfer("a", "b", 41), 422, "insufficient_funds")
    await refused(
        await shop.post("/v1/holds", {"from": "a", "to": "b", "amount": 41}), 422, "insufficient_funds"
    )
    assert (await shop.transfer("a", "b", 40)).status == 201


async def test_hold_that_is_not_there(shop: Shop) -> None:
    transfer = (await shop.transfer("cash", "a", 1)).json
    for identity in (ABSENT, transfer["id"]):
        await refused(await shop.get(f"/v1/holds/{identity}"), 404, "hold_not_found")
        for operation, body in (("capture", {}), ("void", None), ("extend", {"expires_in": 5})):
            path = f"/v1/holds/{identity}/{operation}"
            await refused(await shop.post(path, body), 404, "hold_not_found")


async def test_expires_in_seconds(shop: Shop) -> None:
    made = await hold(shop, expires_in=3600)
    lasts = datetime.fromisoformat(made["expires_at"]) - datetime.fromisoformat(made["created_at"])
    assert timedelta(minutes=59) < lasts <= timedelta(hours=1)
    assert (await hold(shop, 1))["expires_at"] is None


async def test_capture_in_parts_until_nothing_is_left(shop: Shop) -> None:
    made = await hold(shop)
    path = f"/v1/holds/{made['id']}/capture"
    for amount, left in ((10, 50), (25, 25)):
        answer = await shop.post(path, {"amount": amount})
        assert answer.status == 201
        after, transfer = answer.json["hold"], answer.json["transfer"]
        assert (after["state"], after["captured"], after["remaining"]) == ("open", 60 - left, left)
        assert transfer["captures"] == made["id"]
        assert [entry["amount"] for entry in transfer["entries"]] == [-amount, amount]
        assert await standing(shop) == (40 + left, left, 40)
        assert (await shop.get(f"/v1/holds/{made['id']}")).json == after
        assert (await shop.get(f"/v1/transfers/{transfer['id']}")).json == transfer | {"reversed": 0}
    too_much = await refused(await shop.post(path, {"amount": 26}), 422, "exceeds_hold")
    assert too_much["detail"] == "Only 25 is left."
    rest = await shop.post(path, {"reference": "last", "metadata": {"n": "3"}})
    assert (rest.json["hold"]["state"], rest.json["hold"]["remaining"]) == ("captured", 0)
    assert (rest.json["transfer"]["reference"], rest.json["transfer"]["metadata"]) == ("last", {"n": "3"})
    gone = await refused(await shop.post(path), 409, "hold_not_open")
    assert gone["detail"] == "The hold was captured in full before."
    assert await standing(shop) == (40, 0, 40)
    assert await shop.balance("b") == 60


async def test_parts_take_their_share_of_every_leg(shop: Shop) -> None:
    legs = [("a", -100), ("b", 97), ("fees", 3)]
    made = (await shop.post("/v1/holds", {"legs": [{"account": a, "amount": n} for a, n in legs]})).json
    assert (made["source"], made["amount"]) == ("a", 100)
    for _ in range(3):
        part = (await shop.post(f"/v1/holds/{made['id']}/capture", {"amount": 33})).json["transfer"]
        assert sum(entry["amount"] for entry in part["entries"]) == 0
    await shop.post(f"/v1/holds/{made['id']}/capture")
    assert [await shop.balance(code) for code in ("a", "b", "fees")] == [0, 97, 3]


async def test_capture_is_sure_whatever_happens_to_the_money_meanwhile(shop: Shop) -> None:
    made = await hold(shop)
    await shop.transfer("a", "cash", 40)
    await shop.call("PATCH", "/v1/accounts/a", {"limits": {"floor": 1000, "transfer_max": 1}})
    assert (await shop.post(f"/v1/holds/{made['id']}/capture")).status == 201
    assert await standing(shop) == (0, 0, 0)


async def test_capture_into_a_closed_account(shop: Shop) -> None:
    made = await hold(shop)
    await shop.call("PATCH", "/v1/accounts/b", {"state": "closed"})
    answer = await shop.post(f"/v1/holds/{made['id']}/capture", key="k")
    assert (await refused(answer, 409, "account_closed"))["account"] == "b"
    assert (await shop.post(f"/v1/holds/{made['id']}/void")).status == 200


async def test_void_gives_back_what_is_left(shop: Shop) -> None:
    made = await hold(shop)
    await shop.post(f"/v1/holds/{made['id']}/capture", {"amount": 10})
    answer = await shop.post(f"/v1/holds/{made['id']}/void", key="v")
    assert answer.status == 200
    assert (answer.json["state"], answer.json["captured"], answer.json["remaining"]) == ("voided", 10, 0)
    assert await standing(shop) == (90, 0, 90)
    again = await shop.post(f"/v1/holds/{made['id']}/void", {}, key="v")
    assert (again.body, again.headers["Idempotent-Replayed"]) == (answer.body, "true")
    for operation, body in (("void", None), ("capture", {}), ("extend", {"expires_in": 5})):
        answer = await shop.post(f"/v1/holds/{made['id']}/{operation}", body)
        assert (await refused(answer, 409, "hold_not_open"))["detail"] == "The hold was voided before."


async def test_extend_moves_the_end(shop: Shop) -> None:
    made = await hold(shop, expires_in=60)
    answer = await shop.post(f"/v1/holds/{made['id']}/extend", {"expires_in": 7200})
    assert answer.status == 200
    assert answer.json["expires_at"] > made["expires_at"]
    end = (datetime.now(UTC) + timedelta(minutes=5)).isoformat().replace("+00:00", "Z")
    answer = await shop.post(f"/v1/holds/{made['id']}/extend", {"expires_at": end})
    assert answer.json["expires_at"] == end
    assert (await shop.get(f"/v1/holds/{made['id']}")).json == answer.json


async def test_hold_whose_time_is_over(shop: Shop, service: Service) -> None:
    made = await hold(shop, expires_at=LONG_AGO)
    for operation, body in (("capture", {}), ("extend", {"expires_in": 5})):
        answer = await shop.post(f"/v1/holds/{made['id']}/{operation}", body)
        await refused(answer, 409, "hold_expired")
    assert await standing(shop) == (100, 60, 40)
    assert await expire_due(service.database) == 1
    assert await expire_due(service.database) == 0
    shown = (await shop.get(f"/v1/holds/{made['id']}")).json
    assert (shown["state"], shown["remaining"]) == ("expired", 0)
    assert await standing(shop) == (100, 0, 100)
    answer = await refused(await shop.post(f"/v1/holds/{made['id']}/capture"), 409, "hold_not_open")
    assert answer["detail"] == "The hold was expired before."


async def test_extended_hold_does_not_expire(shop: Shop, service: Service) -> None:
    soon = await hold(shop, 10, expires_in=1000)
    await shop.post(f"/v1/holds/{soon['id']}/extend", {"expires_in": 2000})
    over = [await hold(shop, 1, expires_at=LONG_AGO) for _ in range(5)]
    assert await expire_due(service.database) == 5
    states = {found["id"]: found["state"] for found in await shop.all("/v1/holds")}
    assert states == {soon["id"]: "open"} | {found["id"]: "expired" for found in over}


async def test_calls_that_are_repeated_later_get_the_first_answer(shop: Shop) -> None:
    body = {"from": "a", "to": "b", "amount": 60, "expires_in": 1000, "metadata": {"b": "1", "a": "2"}}
    made = await shop.post("/v1/holds", body, key="make")
    path = f"/v1/holds/{made.json['id']}"
    calls: list[tuple[str, Any]] = [
        ("capture", {"amount": 10}),
        ("extend", {"expires_in": 5000}),
        ("void", None),
    ]
    first = {name: await shop.post(f"{path}/{name}", sent, key=name) for name, sent in calls}
    assert [answer.status for answer in first.values()] == [201, 200, 200]
    assert (await shop.post("/v1/holds", body, key="make")).body == made.body
    for name, sent in calls:
        again = await shop.post(f"{path}/{name}", sent, key=name)
        assert (again.status, again.body) == (first[name].status, first[name].body)
    other = await shop.post(f"{path}/capture", {"amount": 11}, key="capture")
    assert (await refused(other, 409, "idempotency_conflict"))["differs"] == ["target"]


async def test_list_with_every_filter_to_the_end(shop: Shop, service: Service) -> None:
    await shop.transfer("cash", "b", 100)
    made = []
    for n in range(24):
        source, target = ("a", "b") if n % 3 else ("b", "a")
        body = {"from": source, "to": target, "amount": 1, "expires_at": LONG_AGO if n % 4 == 1 else None}
        made.append((await shop.post("/v1/holds", body)).json)
    for n in range(0, 24, 4):
        await shop.post(f"/v1/holds/{made[n]['id']}/capture")
        await shop.post(f"/v1/holds/{made[n + 2]['id']}/void")
    await expire_due(service.database)
    state_of = ("captured", "expired", "voided", "open")

    async def found(**query: Any) -> list[str]:
        return [item["id"] for item in await shop.all("/v1/holds", **query)]

    def wanted(keep: Callable[[int], bool]) -> list[str]:
        return [made[n]["id"] for n in reversed(range(24)) if keep(n)]

    for limit in (1, 5, 24, None):
        assert await found(limit=limit) == wanted(lambda _: True)
    for place, state in enumerate(state_of):
        assert await found(state=state, limit=2) == wanted(lambda n, place=place: n % 4 == place)  # type: ignore[misc] # the default binds it
    assert await found(account="b", limit=3) == wanted(lambda n: n % 3 == 0)
    assert await found(account="a", state="open", limit=3) == wanted(lambda n: n % 3 != 0 and n % 4 == 3)
    assert await found(account="fees") == []
    await refused(await shop.get("/v1/holds", account="nobody"), 404, "account_not_found")


BAD_HOLDS: dict[str, dict[str, Any]] = {
    "two ends": {"expires_in": 5, "expires_at": "2030-01-01T00:00:00Z"},
    "too far ahead": {"expires_at": "2090-01-01T00:00:00Z"},
    "too long": {"expires_in": 366 * 86400 + 1},
    "no time at all": {"expires_in": 0},
    "negative": {"amount": -1},
    "zero": {"amount": 0},
    "to itself": {"to": "a"},
    "unknown field": {"expires": 5},
    "beyond the calendar": {"expires_at": "0001-01-01T00:00:00+05:00"},
}


async def test_bad_holds(shop: Shop, service: Service) -> None:
    before = await row_counts(service)
    good = {"from": "a", "to": "b", "amount": 5}
    for name, bad in BAD_HOLDS.items():
        answer = await shop.post("/v1/holds", good | bad, key="k")
        assert (answer.status, answer.code) == (400, "invalid_request"), name
    assert await row_counts(service) == before
    assert (await shop.post("/v1/holds", good, key="k")).status == 201


async def test_bad_legs_of_a_hold(shop: Shop, service: Service) -> None:
    await shop.open("euro", currency="EUR")
    before = await row_counts(service)
    for legs, status, code in (
        ([("b", 5), ("a", -5)], 400, "invalid_request"),
        ([("a", -5), ("b", 6), ("a", -1)], 400, "invalid_request"),
        ([("a", -5), ("b", 4)], 422, "legs_unbalanced"),
        ([("a", -5), ("euro", 5)], 422, "currency_mismatch"),
        ([("a", -5), ("nobody", 5)], 404, "account_not_found"),
    ):
        body = {"legs": [{"account": account, "amount": amount} for account, amount in legs]}
        await refused(await shop.post("/v1/holds", body, key="k"), status, code)
    assert await row_counts(service) == before


async def test_bad_changes_of_a_hold(shop: Shop, service: Service) -> None:
    made = await hold(shop)
    before = await row_counts(service)
    path = f"/v1/holds/{made['id']}"
    for operation, body in (
        ("capture", {"amount": 0}),
        ("capture", {"amount": -1}),
        ("capture", {"amount": 1.0}),
        ("extend", {}),
        ("extend", {"expires_in": 0}),
        ("extend", {"expires_in": 5, "expires_at": "2030-01-01T00:00:00Z"}),
        ("void", {"amount": 1}),
    ):
        await refused(await shop.post(f"{path}/{operation}", body, key="k"), 400, "invalid_request")
    assert await row_counts(service) == before
    assert (await shop.post(f"{path}/capture", key="k")).status == 201
