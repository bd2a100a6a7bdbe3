"""The ledger's edges over HTTP: reserved codes, times, holds that come in, revisions, frozen accounts, closed dates."""

from __future__ import annotations

import itertools
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as search_settings
from hypothesis import strategies as st

from core.access.api_keys import SCOPES
from core.ledger import holds
from core.service import Service
from core.settings import Settings
from handlers.http.times import Time, read_custom
from tests.handlers.ledger.ledger_client import Answer, ApiClient, Shop

pytestmark = pytest.mark.shared

_numbers = iter(range(1, 10_000))
ADMIN_TOKEN = "an-administrator-of-these-tests"


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """The settings of a service that has an administrator."""
    return settings.model_copy(update={"admin_token": (ADMIN_TOKEN,)})


class Till(Shop):
    """A caller whose accounts no other test knows: each code ends with the till's number."""

    def __init__(self, api: ApiClient, key: str) -> None:
        super().__init__(api, key)
        self.number = next(_numbers)

    def of(self, code: str) -> str:
        return f"{code}.{self.number}"

    async def call(self, *args: Any, if_match: str | None = None, **more: Any) -> Answer:
        if if_match is None:
            return await super().call(*args, **more)
        method, path, body = args
        headers = {"Authorization": f"Bearer {self.key}", "If-Match": if_match}
        headers["Idempotency-Key"] = more.get("key", f"if-{next(_numbers)}")
        return await self._send(method, path, body, headers)

    async def administer(self, method: str, path: str, body: Any, if_match: str = "*") -> Answer:
        return await self._send(method, path, body, {"X-Admin-Token": ADMIN_TOKEN, "If-Match": if_match})

    async def _send(self, method: str, path: str, body: Any, headers: dict[str, str]) -> Answer:
        async with self.api.request(method, path, json=body, headers=headers) as response:
            return Answer(response.status, await response.read(), response.headers)

    async def hold(self, source: str, target: str, amount: int, **more: Any) -> Any:
        answer = await self.post("/v1/holds", {"from": source, "to": target, "amount": amount, **more})
        assert answer.status == 201, answer
        return answer.json

    async def change(self, code: str, **body: Any) -> Answer:
        return await self.call("PATCH", f"/v1/accounts/{code}", body)


@pytest.fixture
async def till(api: ApiClient, api_key: Callable[..., Awaitable[str]]) -> Till:
    """A till with `cash`, and 1,000 on `a`; `b` has nothing."""
    till = Till(api, await api_key(principal=f"till-{next(_numbers)}"))
    await till.open(till.of("cash"), floor=None)
    await till.open(till.of("a"), till.of("b"))
    assert (await till.transfer(till.of("cash"), till.of("a"), 1_000)).status == 201
    return till


@pytest.fixture
async def plain(till: Till, api: ApiClient, api_key: Callable[..., Awaitable[str]]) -> Till:
    """A caller who may do all but touch the platform's own accounts and administer."""
    scopes = [scope for scope in SCOPES if scope not in {"accounts:system", "admin"}]
    other = Till(api, await api_key(*scopes, principal=f"plain-{till.number}"))
    other.number = till.number
    return other


@pytest.mark.parametrize("prefix", ["system:", "wallet:", "provider:", "source:"])
async def test_reserved_codes_want_their_scope(till: Till, plain: Till, prefix: str) -> None:
    a, code = till.of("a"), till.of(f"{prefix}x")
    opening = {"code": code, "currency": "USD", "limits": {"floor": None}}
    assert (await plain.call("POST", "/v1/accounts", opening)).code == "forbidden"
    assert (await till.call("POST", "/v1/accounts", opening)).status == 201
    assert (await plain.change(code, state="frozen")).code == "forbidden"
    took: dict[str, Any] = {"from": code, "to": a, "amount": 5}
    for path, body in (
        ("/v1/transfers", took),
        ("/v1/transfers", took | {"dry_run": True}),
        ("/v1/holds", took),
        ("/v1/transfers/batch", {"transfers": [{"key": "one", **took}]}),
    ):
        answer = await plain.post(path, body)
        assert (answer.status, answer.code) == (403, "forbidden"), path
    # Money may reach the platform; what it has got it keeps.
    paid = await plain.transfer(a, code, 7)
    assert paid.status == 201
    back = await plain.post(f"/v1/transfers/{paid.json['id']}/reversals")
    assert (back.status, back.json["account"]) == (403, code)
    held = await till.hold(code, a, 3)
    for operation, body in (("capture", {}), ("void", {}), ("extend", {"expires_in": 9})):
        assert (await plain.post(f"/v1/holds/{held['id']}/{operation}", body)).code == "forbidden"
    assert (await till.post(f"/v1/holds/{held['id']}/capture")).status == 201
    assert (await plain.get(f"/v1/accounts/{code}")).json["balance"] == 4


async def test_a_key_used_before_is_answered_before_the_scope_is_asked(
    api: ApiClient, api_key: Callable[..., Awaitable[str]]
) -> None:
    principal = f"both-{next(_numbers)}"
    rich = Till(api, await api_key(principal=principal))
    poor = Till(api, await api_key("transfers:write", principal=principal))
    code, other = rich.of("system:keys"), rich.of("y")
    await rich.open(code, floor=None)
    await rich.open(other)
    done = await rich.transfer(code, other, 5, key="k")
    again = await poor.transfer(code, other, 5, key="k")
    assert (again.status, again.body) == (201, done.body)
    assert (await poor.transfer(code, other, 5, key="new")).code == "forbidden"


@search_settings(
    max_examples=40, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
@given(
    at=st.datetimes(datetime(1970, 1, 1), datetime(2200, 1, 1)),  # noqa: DTZ001 - the offset is added as text
    digits=st.text("0123456789", min_size=0, max_size=30),
    offset=st.sampled_from(["Z", "+00:00", "-05:30", "+14:00"]),
)
def test_times_are_floored(at: datetime, digits: str, offset: str) -> None:
    text = f"{at:%Y-%m-%dT%H:%M:%S}.{at.microsecond:06}{digits}{offset}"
    assert read_custom(Time, text) == datetime.fromisoformat(
        f"{at.isoformat()}{offset.replace('Z', '+00:00')}"
    )


async def test_more_digits_of_a_second_stay_in_their_year(till: Till) -> None:
    last = "2025-12-31T23:59:59.999999999999Z"
    moved = await till.transfer(till.of("cash"), till.of("a"), 1, effective_at=last)
    assert moved.json["effective_at"] == "2025-12-31T23:59:59.999999Z"
    path = f"/v1/accounts/{till.of('a')}/balance"
    shown = await till.get(path, at=last, by="effective")
    assert (shown.json["at"], shown.json["balance"]) == ("2025-12-31T23:59:59.999999Z", 1)
    before = await till.get(path, at="2025-12-31T23:59:59.999998999Z", by="effective")
    assert before.json["balance"] == 0
    refused = await till.transfer(
        till.of("cash"), till.of("a"), 1, effective_at="2025-02-30T00:00:00.1234567Z"
    )
    assert (refused.status, refused.json["path"]) == (400, "$.effective_at")


async def test_a_ceiling_counts_what_open_holds_will_bring(till: Till) -> None:
    a, b = till.of("a"), till.of("b")
    await till.change(b, limits={"ceiling": 100})
    first = await till.hold(a, b, 60)
    body = {"from": a, "to": b, "amount": 41}
    for path in ("/v1/holds", "/v1/transfers"):
        refused = await till.post(path, body)
        assert (refused.code, refused.json["detail"]) == (
            "ceiling_exceeded", f"Account '{b}' can take at most 40 more.",
        )  # fmt: skip
    await till.post(f"/v1/holds/{first['id']}/capture", {"amount": 20})
    assert {name: (await till.account(b))[name] for name in ("balance", "incoming")} == {
        "balance": 20, "incoming": 40,
    }  # fmt: skip
    assert (await till.post("/v1/transfers", body)).code == "ceiling_exceeded"
    await till.post(f"/v1/holds/{first['id']}/void")
    assert (await till.post("/v1/transfers", body)).status == 201
    legs = [{"account": a, "amount": -40}, *({"account": b, "amount": 20} for _ in range(2))]
    assert (await till.post("/v1/holds", {"legs": legs})).code == "ceiling_exceeded"
    assert (await till.account(b))["incoming"] == 0


async def test_conditions_see_holds_and_revisions(till: Till) -> None:
    a, b = till.of("a"), till.of("b")
    held = await till.hold(a, b, 900)
    revision = (await till.account(a))["revision"]
    for demand, outcome in (
        ({"available_at_least": 91}, "available_too_low"),
        ({"available_at_most": 89}, "available_too_high"),
        ({"revision": revision - 1}, "revision_mismatch"),
        ({"available_at_least": 90, "available_at_most": 90, "revision": revision}, None),
    ):
        answer = await till.transfer(a, b, 10, conditions=[{"account": a, **demand}])
        assert (answer.status == 201) if outcome is None else answer.code == outcome
    steps: list[Callable[[], Awaitable[Answer]]] = [
        lambda: till.transfer(a, b, 1),
        lambda: till.post("/v1/holds", {"from": a, "to": b, "amount": 1}),
        lambda: till.post(f"/v1/holds/{held['id']}/extend", {"expires_in": 60}),
        lambda: till.post(f"/v1/holds/{held['id']}/capture", {"amount": 1}),
        lambda: till.post(f"/v1/holds/{held['id']}/void"),
        lambda: till.change(a, limits={"ceiling": 10_000}),
        lambda: till.change(a, metadata={"x": "y"}),
        lambda: till.change(a, state="frozen"),
    ]
    seen = [(await till.account(a))["revision"]]
    for step in steps:
        assert (await step()).status < 300
        shown = await till.get(f"/v1/accounts/{a}")
        seen.append(shown.json["revision"])
        assert shown.headers["ETag"] == f'"{seen[-1]}"'
    assert all(before < after for before, after in itertools.pairwise(seen)), seen


async def test_if_match_guards_every_change(till: Till) -> None:
    a, b = till.of("a"), till.of("b")

    async def stale(method: str, path: str, body: Any, of: str) -> None:
        """A change with the ETag of before a change is refused, and done with that of now under the same key."""
        tag = (await till.get(of)).headers["ETag"]
        key = f"k{next(_numbers)}"
        for wrong in ('"999999"', '"x"', f"W/{tag}"):
            refused = await till.call(method, path, body, if_match=wrong, key=key)
            assert (refused.status, refused.code) == (412, "precondition_failed"), wrong
        assert (await till.call(method, path, body, if_match="x", key=key)).code == "invalid_request"
        done = await till.call(method, path, body, if_match=tag, key=key)
        assert done.status in {200, 201}, done
        if method == "POST":  # a repeated key is answered before any rule
            again = await till.call(method, path, body, if_match=tag, key=key)
            assert again.body == done.body
        else:
            assert (await till.call(method, path, body, if_match=tag)).code == "precondition_failed"
        assert (await till.get(of)).headers["ETag"] != tag

    await stale("PATCH", f"/v1/accounts/{a}", {"metadata": {"x": "1"}}, f"/v1/accounts/{a}")
    hold = f"/v1/holds/{(await till.hold(a, b, 10))['id']}"
    await stale("POST", f"{hold}/capture", {"amount": 1}, hold)
    await stale("POST", f"{hold}/extend", {"expires_in": 60}, hold)
    await stale("POST", f"{hold}/void", {}, hold)
    paid = f"/v1/transfers/{(await till.transfer(a, b, 10)).json['id']}"
    await stale("POST", f"{paid}/reversals", {"amount": 1}, paid)


async def test_metadata_are_merged(till: Till) -> None:
    a = till.of("a")
    await till.change(a, metadata={"x": "1", "y": "2"})
    changed = await till.change(a, metadata={"y": None, "z": "3", "never": None})
    assert changed.json["metadata"] == {"x": "1", "z": "3"}
    assert (await till.change(a, metadata={})).json["metadata"] == {"x": "1", "z": "3"}
    many = {f"n{number}": "" for number in range(49)}
    refused = await till.change(a, metadata=many)
    assert (refused.code, (await till.account(a))["metadata"]) == ("invalid_request", {"x": "1", "z": "3"})
    assert len((await till.change(a, metadata=many | {"x": None})).json["metadata"]) == 50


async def test_nothing_leaves_or_reaches_a_frozen_account(till: Till, plain: Till) -> None:
    a, b = till.of("a"), till.of("b")
    out = await till.hold(a, b, 5)
    paid = (await till.transfer(a, b, 100)).json
    await till.change(b, state="frozen")
    answers = [
        await till.post(f"/v1/holds/{out['id']}/capture", {"amount": 1}),
        await till.transfer(a, b, 1),
        await till.transfer(b, a, 1),
        await plain.post(f"/v1/transfers/{paid['id']}/reversals", {"amount": 40}),
    ]
    assert [(answer.code, answer.json["account"]) for answer in answers] == [("account_frozen", b)] * 4
    assert (await till.post(f"/v1/transfers/{paid['id']}/reversals", {"amount": 40})).status == 201
    assert await till.balance(b) == 60
    # A reversal that would bring money to a frozen account is refused to everybody.
    await till.change(b, state="open")
    await till.change(a, state="frozen")
    assert (await till.post(f"/v1/transfers/{paid['id']}/reversals", {"amount": 1})).code == "account_frozen"
    assert (await till.post(f"/v1/holds/{out['id']}/void")).status == 200


async def test_a_refusal_by_holds_whose_time_is_over_is_not_kept(till: Till, service: Service) -> None:
    a, b = till.of("a"), till.of("b")
    await till.change(b, limits={"ceiling": 1_000})
    past = (datetime.now(UTC) - timedelta(days=1)).isoformat()
    await till.hold(a, b, 900, expires_at=past)
    path, low = "/v1/transfers", [{"account": a, "available_at_least": 900}]
    bodies: dict[str, dict[str, Any]] = {
        "funds": {"from": a, "to": b, "amount": 90},
        "demand": {"from": a, "to": b, "amount": 1, "conditions": low},
        "kept": {"from": a, "to": b, "amount": 1_001},
        "ceiling": {"from": till.of("cash"), "to": b, "amount": 800},
    }
    await till.transfer(a, till.of("cash"), 50)
    expected = {
        "funds": "insufficient_funds", "demand": "available_too_low", "kept": "insufficient_funds",
        "ceiling": "ceiling_exceeded",
    }  # fmt: skip
    for key, body in bodies.items():
        assert (await till.post(path, body, key=key)).code == expected[key]
    while await holds.expire_due(service.database):
        pass
    await till.transfer(till.of("cash"), a, 10_000)
    for key, body in bodies.items():
        answer = await till.post(path, body, key=key)
        assert (answer.status == 201) is (key != "kept"), answer


async def test_part_reversals_count_in_the_largest_leg(till: Till) -> None:
    a, b, fees = till.of("a"), till.of("b"), till.of("cash")
    legs = [(fees, 3), (b, 97), (a, -100)]
    paid = await till.post("/v1/transfers", {"legs": [{"account": code, "amount": n} for code, n in legs]})
    path = f"/v1/transfers/{paid.json['id']}"
    for amount in (50, 1, 48):
        answer = await till.post(f"{path}/reversals", {"amount": amount})
        assert answer.status == 201
        assert {entry["account"]: entry["amount"] for entry in answer.json["entries"]}[a] == amount
    assert (await till.get(path)).json["reversed"] == 99
    assert (await till.post(f"{path}/reversals", {"amount": 2})).code == "exceeds_reversible"
    assert (await till.post(f"{path}/reversals")).status == 201
    assert (await till.balance(a), await till.balance(b)) == (1_000, 0)


async def test_effective_times_have_bounds(till: Till, settings: Settings) -> None:
    a, b = till.of("a"), till.of("b")
    now, future = datetime.now(UTC), {"id": ""}
    for days, status in (
        (-settings.effective_max_past_days - 1, 422), (-settings.effective_max_past_days + 1, 201),
        (settings.effective_max_future_days + 1, 422), (settings.effective_max_future_days - 1, 201),
    ):  # fmt: skip
        at = (now + timedelta(days=days)).isoformat()
        answer = await till.transfer(a, b, 1, effective_at=at)
        assert answer.status == status
        assert status == 201 or answer.code == "effective_time_out_of_range"
        future = answer.json
    path = f"/v1/transfers/{future['id']}/reversals"
    early = await till.post(path, {"effective_at": now.isoformat()})
    assert early.code == "effective_before_original"
    back = await till.post(path, key="back")
    assert back.json["effective_at"] == future["effective_at"]
    assert (await till.post(path, key="back")).body == back.body


async def test_a_closed_date_is_moved_by_an_administrator_alone(
    till: Till, plain: Till, database_url: str
) -> None:
    currency = f"X{till.number:03}"
    a, b = till.of("x"), till.of("y")
    await till.open(a, b, currency=currency, floor=None)
    path = f"/v1/closed-dates/{currency}"
    body = {"closed_before": "2026-01-01T00:00:00Z", "reason": "reported"}
    before = {"effective_at": "2025-12-31T23:59:59.999999999Z"}
    assert (await till.get(path)).code == "not_found"
    assert (await till.transfer(a, b, 1, key="early", **before)).status == 201
    assert (await till.call("PUT", path, body)).code == "unauthorized"
    moved = await till.administer("PUT", path, body)
    assert (moved.status, moved.json["closed_before"], moved.headers["ETag"]) == (
        200,
        body["closed_before"],
        '"1"',
    )
    assert (await till.transfer(a, b, 1, key="early", **before)).headers["Idempotent-Replayed"] == "true"
    assert (await till.transfer(a, b, 1, key="late", **before)).code == "period_closed"
    assert (await till.transfer(a, b, 1, effective_at="2026-01-01T00:00:00Z")).status == 201
    assert (await till.transfer(a, b, 1)).status == 201
    soon = {"closed_before": (datetime.now(UTC) + timedelta(days=1)).isoformat(), "reason": "too early"}
    assert (await till.administer("PUT", path, soon)).code == "invalid_request"
    reopened = {"closed_before": None, "reason": "a mistake"}
    assert (await till.administer("PUT", path, reopened, if_match='"9"')).code == "precondition_failed"
    assert (await till.administer("PUT", path, reopened, if_match='"1"')).status == 200
    assert (await till.transfer(a, b, 1, key="late", **before)).status == 201
    assert currency in [
        row["currency"] for row in (await plain.get("/v1/closed-dates", limit=1000)).json["data"]
    ]
    owner = await asyncpg.connect(database_url)
    records = await owner.fetch(
        "SELECT data ->> 'reason' AS reason FROM audit_events WHERE object_id = $1", currency
    )
    await owner.close()
    assert [row["reason"] for row in records] == ["reported", "a mistake"]


async def test_a_span_ends_by_the_clock_of_the_database(till: Till, monkeypatch: pytest.MonkeyPatch) -> None:
    class Ahead(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Ahead:
            return super().now(tz) + timedelta(days=3)

    monkeypatch.setattr("core.ledger.movements.datetime", Ahead)
    made = await till.hold(till.of("a"), till.of("b"), 5, expires_in=60)
    lasts = datetime.fromisoformat(made["expires_at"]) - datetime.fromisoformat(made["created_at"])
    assert timedelta(seconds=59) < lasts <= timedelta(seconds=60)
    moved = await till.post(f"/v1/holds/{made['id']}/extend", {"expires_in": 600}, key="e")
    lasts = datetime.fromisoformat(moved.json["expires_at"]) - datetime.fromisoformat(made["created_at"])
    assert timedelta(seconds=600) <= lasts < timedelta(days=1)
    assert (
        await till.post(f"/v1/holds/{made['id']}/extend", {"expires_in": 600}, key="e")
    ).body == moved.body
