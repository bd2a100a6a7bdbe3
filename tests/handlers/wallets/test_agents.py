"""Cash agents: who appoints them, whom they see, what they may complete, and what a customer gets back."""

import asyncio
from typing import Any

import pytest

from core.payables import expiry
from core.phones import masked
from core.platform import Platform
from core.settings import Settings
from tests.chaos.staging import BARRIER, LOCK, Raw, Wait, at_barrier, install
from tests.handlers.wallets.conftest import Administrator, ApiClient, MakePerson, Person, Said, told

IN, OUT = "/cash/cashin/request", "/cash/cashout/request"


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """Small limits, for figures that a person can follow."""
    small = {"kyc_l0_daily_max_cents": 10_000, "fraud_p2p_max_tx_per_hour": 2}
    return Settings.model_validate(settings.model_dump() | small)


async def ask(who: Person, path: str, amount: int, agent: Person | None = None) -> dict[str, Any]:
    body = {"amount_cents": amount} | ({} if agent is None else {"agent_phone": agent.phone})
    said = await who.post(path, body)
    assert said.status == 200, said
    made: dict[str, Any] = said.json
    return made


async def do(who: Person, request: dict[str, Any], action: str) -> Said:
    return await who.post(f"/cash/requests/{request['id']}/{action}")


async def incoming(agent: Person, **query: str) -> list[tuple[str, str]]:
    said = await agent.get("/cash/requests", **query)
    return [(one["id"], one["user_phone"]) for one in said.json["incoming"]]


async def test_an_administrator_appoints_and_suspends(person: MakePerson, admin: Administrator) -> None:
    ann, bob = await person(balance=1_000), await person()
    request = await ask(ann, OUT, 100)
    assert (await do(bob, request, "accept")).refusal == (403, "Not an agent")
    bounds = {"request_max_cents": 500, "float_max_cents": 10_000}
    said = await admin.post("/admin/agents", {"phone": bob.phone, **bounds})
    shown = {"user_id": str(bob.user.id), "phone": bob.phone, "name": None, "status": "active"}
    assert said.json.items() >= {**shown, **bounds, "day_max_cents": None}.items()
    by_id = f"/admin/agents/{bob.user.id}"
    assert (await admin.post(f"{by_id}/appoint", {})).json == said.json
    assert (await do(bob, request, "accept")).json == {"detail": "completed"}
    second = await ask(ann, OUT, 100)
    said = await admin.post(f"{by_id}/suspend", {"reason": "lost the till"})
    assert (said.json["status"], said.json["request_max_cents"]) == ("suspended", 500)
    assert (await do(bob, second, "accept")).refusal == (403, "Not an agent")
    assert (await bob.get("/cash/requests")).json["incoming"] == []
    listed = (await admin.get("/admin/agents", status="suspended")).json
    assert (listed["items"], listed["next"]) == ([said.json], None)
    said = await admin.post(f"{by_id}/limits", {"request_max_cents": None, "day_max_cents": 7})
    assert [said.json[f"{name}_max_cents"] for name in ("request", "day", "float")] == [None, 7, 10_000]
    records = [one for one in await admin.audit(user=str(bob.user.id)) if one["type"].startswith("agents.")]
    assert [one["type"] for one in records] == ["agents.limits", "agents.suspend", "agents.appoint"]
    assert records[1]["data"] == {
        "before": {"state": "active", "request_max": 500, "day_max": None, "float_max": 10_000},
        "after": {"state": "suspended", "request_max": 500, "day_max": None, "float_max": 10_000},
        "reason": "lost the till",
    }
    for path, body in (("suspend", {"reason": "x"}), ("limits", {"day_max_cents": 1})):
        assert (await admin.post(f"/admin/agents/{ann.user.id}/{path}", body)).refusal[0] == 404
    assert (await admin.post("/admin/agents", {"phone": "+963900000000"})).refusal[0] == 404


async def test_agents_see_whom_they_are_to_see(person: MakePerson) -> None:
    ann, bob = await person(balance=1_000), await person()
    agent, other = await person(balance=10_000, agent=True), await person(balance=10_000, agent=True)
    open_one, named = await ask(ann, OUT, 1), await ask(bob, IN, 2, agent)
    assert (named["named_agent_phone"], named["agent_phone"]) == (agent.phone, None)
    # Those who have named nobody are seen by all, without their phone and their code.
    assert await incoming(agent) == [(named["id"], bob.phone), (open_one["id"], masked(ann.phone))]
    assert await incoming(other) == [(open_one["id"], masked(ann.phone))]
    codes = {one["code"] for one in (await other.get("/cash/requests")).json["incoming"]}
    assert codes == {None}
    for action in ("accept", "reject"):
        assert (await do(other, named, action)).refusal == (403, "Another agent was named")
    # A code that is shown names the agent, however it is typed.
    typed = f"cash| {open_one['code'][:5].lower()}-{open_one['code'][5:]} "
    assert (await ann.post("/cash/requests/claim", {"code": typed})).refusal == (403, "Not an agent")
    for _ in range(2):
        shown = await other.post("/cash/requests/claim", {"code": typed})
        assert (shown.json["user_phone"], shown.json["named_agent_phone"]) == (ann.phone, other.phone)
    assert await incoming(agent) == [(named["id"], bob.phone)]
    assert await incoming(other, phone=ann.phone) == [(open_one["id"], ann.phone)]
    assert (await do(agent, open_one, "accept")).refusal == (403, "Another agent was named")
    assert (await do(other, open_one, "accept")).json == {"detail": "completed"}
    for code in ("", "nonsense", open_one["code"]):
        assert (await other.post("/cash/requests/claim", {"code": code})).refusal == (
            404,
            "Request not found",
        )
    own = await ask(agent, IN, 5)
    said = await agent.post("/cash/requests/claim", {"code": own["code"]})
    assert said.refusal == (403, "Not your own request")
    # Nobody is named who is no agent, and not oneself.
    for phone in (ann.phone, agent.phone, "+963900000000"):
        said = await agent.post(IN, {"amount_cents": 5, "agent_phone": phone})
        assert said.refusal == (404, "Agent not found")


async def test_a_key_is_answered_before_the_agent_is_asked_about(
    person: MakePerson, admin: Administrator
) -> None:
    ann, agent = await person(balance=1_000), await person(balance=1_000, agent=True)
    body = {"amount_cents": 5, "agent_phone": agent.phone}
    first = await ann.post(OUT, body, key="k")
    path = f"/cash/requests/{first.json['id']}/accept"
    assert (await agent.post(path, key="a")).json == {"detail": "completed"}
    await admin.post(f"/admin/agents/{agent.user.id}/appoint", {"request_max_cents": 1})
    assert (await agent.post(path, key="a")).json == {"detail": "completed"}
    await admin.post(f"/admin/agents/{agent.user.id}/suspend", {"reason": "x"})
    assert (await agent.post(path, key="a")).json == {"detail": "completed"}
    assert (await ann.post(OUT, body, key="k")).body == first.body
    assert (await ann.post(OUT, {"amount_cents": 5}, key="k")).status == 409


async def test_many_requests_of_one_hide_nobodys(person: MakePerson) -> None:
    ann, bob, agent = await person(), await person(), await person(agent=True)
    many = [await ask(ann, IN, 1) for _ in range(6)]
    one = await ask(bob, IN, 1)
    first_two = await incoming(agent, limit="2")
    assert [found for found, _ in first_two] == [many[0]["id"], one["id"]]
    rest = await incoming(agent, limit="3", offset="2")
    assert [found for found, _ in rest] == [request["id"] for request in many[1:4]]
    said = (await ann.get("/cash/requests", limit="4", status="pending", type="cashin")).json
    assert [found["id"] for found in said["my"]] == [request["id"] for request in many[:1:-1]]
    said = (await ann.get("/cash/requests", limit="4", before=said["next"])).json
    assert ([found["id"] for found in said["my"]], said["next"]) == ([many[1]["id"], many[0]["id"]], None)


async def test_bounds_of_an_agent(person: MakePerson, admin: Administrator) -> None:
    ann, agent = await person(balance=1_000), await person(balance=1_000)
    bounds = {"request_max_cents": 300, "day_max_cents": 500, "float_max_cents": 900}
    await admin.post("/admin/agents", {"phone": agent.phone, **bounds})
    refused = (403, "Agent limit exceeded")
    assert (await do(agent, await ask(ann, IN, 301), "accept")).refusal == refused
    for _ in range(2):
        assert (await do(agent, await ask(ann, IN, 250), "accept")).json == {"detail": "completed"}
    said = await do(agent, await ask(ann, IN, 1), "accept")
    assert said.refusal == refused
    assert "SYP\u00a00.00 of SYP\u00a05.00" in said.json["detail"]
    # The wallet has 500 now; cash that is paid out fills it to the bound and not above.
    assert (await do(agent, await ask(ann, OUT, 300), "accept")).json == {"detail": "completed"}
    last = await ask(ann, OUT, 101)
    assert (await do(agent, last, "accept")).refusal == refused
    assert (await do(agent, await ask(ann, OUT, 100), "accept")).json == {"detail": "completed"}
    assert await agent.balance() == 900


async def test_two_agents_tills_at_once_keep_the_bound(
    person: MakePerson, admin: Administrator, elsewhere: ApiClient
) -> None:
    ann, agent = await person(), await person(balance=1_000)
    await admin.post("/admin/agents", {"phone": agent.phone, "day_max_cents": 500})
    made = [await ask(ann, IN, 200) for _ in range(6)]
    tills = [agent, agent.at(elsewhere)] * 3
    said = await asyncio.gather(
        *(do(till, request, "accept") for till, request in zip(tills, made, strict=True))
    )
    assert sorted(one.status for one in said) == [200, 200, 403, 403, 403, 403]


@pytest.mark.parametrize("path", [IN, OUT])
@pytest.mark.parametrize("side", ["customer", "agent"])
async def test_a_freeze_is_not_overtaken(
    person: MakePerson, admin: Administrator, owner: Raw, eventually: Wait, path: str, side: str
) -> None:
    """The acceptance has read both wallets before the freeze, and reaches the lock after it."""
    ann, agent = await person(balance=1_000), await person(balance=1_000, agent=True)
    request = await ask(ann, path, 100)
    frozen = ann if side == "customer" else agent
    at = f"/admin/wallets/{frozen.user.id}"

    async def freeze() -> None:
        assert (await admin.post(f"{at}/freeze", {"reason": "a court"})).json == {"detail": "frozen"}

    await install(owner, (LOCK, BARRIER + "\n" + LOCK))
    (said,) = await at_barrier(owner, [do(agent, request, "accept")], eventually, meanwhile=freeze())
    assert said.refusal == (403, "Wallet frozen")
    assert "wallet:" not in said.body.decode()
    assert (await ann.balance(), await agent.balance()) == (1_000, 1_000)
    await admin.post(f"{at}/unfreeze", {"reason": "done"})
    assert (await do(agent, request, "accept")).json == {"detail": "completed"}


@pytest.mark.parametrize("end", ["cancel", "reject", "expire"])
async def test_what_was_not_paid_out_gives_the_days_limit_back(
    person: MakePerson, platform: Platform, owner: Raw, end: str
) -> None:
    ann, agent, bob = await person(balance=50_000), await person(agent=True), await person()
    kept = await ask(ann, OUT, 1_000)
    request = await ask(ann, OUT, 9_000)
    refused = await ann.post(OUT, {"amount_cents": 1})
    assert refused.refusal == (400, "KYC daily limit exceeded")
    # The sentence is for a person: amounts, the rest, the end, and no account.
    assert refused.json["detail"] == (
        "SYP\u00a00.00 of SYP\u00a0100.00 may still be sent today. The next day begins at 00:00 UTC."
    )
    assert (refused.json["limit_cents"], refused.json["left_cents"]) == (10_000, 0)
    assert refused.json["resets_at"].endswith("T00:00:00Z")
    if end == "expire":
        await owner.execute("UPDATE payables SET expires_at = now() WHERE id = $1", request["id"])
        assert (await expiry.expire(platform)).done == 1
    else:
        assert (await do(ann if end == "cancel" else agent, request, end)).status == 200
    assert await owner.fetchval("SELECT held FROM accounts WHERE code = $1", ann.user.account) == 1_000
    said = await ann.post(OUT, {"amount_cents": 9_001})
    assert "SYP\u00a090.00 of SYP\u00a0100.00" in said.json["detail"]
    # A use of the hour came back, too, and only once: the other request still counts as the first of two.
    await do(ann, request, "cancel")
    body = {"to_phone": bob.phone, "amount_cents": 1}
    assert (await ann.post("/wallet/transfer", {**body, "idempotency_key": "1"})).status == 200
    said = await ann.post("/wallet/transfer", {**body, "idempotency_key": "2"})
    assert said.refusal == (429, "Velocity limit")
    assert 0 < int(said.headers["Retry-After"]) <= 3_660
    assert said.json["retry_after"] == int(said.headers["Retry-After"])
    assert (await do(agent, kept, "accept")).json == {"detail": "completed"}
    assert (await ann.post(OUT, {"amount_cents": 9_000})).refusal[0] == 400
    assert await told(owner, ann) == []


async def test_the_ledgers_own_limits_speak_to_people(person: MakePerson, owner: Raw) -> None:
    ann, bob = await person(balance=5_000), await person()
    body = {"to_phone": bob.phone, "amount_cents": 501, "idempotency_key": "k"}
    await owner.execute("UPDATE accounts SET transfer_max = 500 WHERE code = $1", ann.user.account)
    said = await ann.post("/wallet/transfer", body)
    assert said.refusal == (400, "KYC transaction limit exceeded")
    assert said.json["detail"] == "At most SYP\u00a05.00 may be sent at once."
    await owner.execute("UPDATE accounts SET transfer_max = NULL, ceiling = 3 WHERE code LIKE 'wallet:%'")
    await owner.execute("UPDATE accounts SET ceiling = NULL WHERE code = $1", ann.user.account)
    said = await ann.post("/wallet/transfer", body)
    assert said.json["code"] == "ceiling_exceeded"
    assert "wallet:" not in said.body.decode()
    assert "account" not in said.json


async def test_requests_end_by_default(person: MakePerson) -> None:
    ann = await person(balance=1_000)
    for path in (IN, OUT):
        assert (await ask(ann, path, 5))["expires_at"] is not None
