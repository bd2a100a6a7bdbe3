"""Cash: what agents take in and pay out, once, however many of them want to."""

import asyncio
from uuid import uuid4

import pytest

from core.database import Query
from core.ledger.holds import expire_due
from core.phones import masked
from core.platform import Platform
from core.service import Service
from core.settings import Settings
from tests.chaos.staging import BARRIER, LOCK, PAYABLE_LOCK, Raw, Wait, at_barrier, install
from tests.handlers.wallets.conftest import ApiClient, MakePerson, Person, Said

FEES = Query("fees", "SELECT balance FROM accounts WHERE code = $1")
IN, OUT = "/cash/cashin/request", "/cash/cashout/request"


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """With fees: 1 % for cash-in, 5 % for cash-out."""
    return Settings.model_validate(settings.model_dump() | {"cashin_fee_bps": 100, "cashout_fee_bps": 500})


async def ask(who: Person, path: str, amount: int) -> str:
    said = await who.post(path, {"amount_cents": amount})
    assert said.status == 200, said
    request_id: str = said.json["id"]
    return request_id


async def do(who: Person, request_id: str, action: str) -> Said:
    return await who.post(f"/cash/requests/{request_id}/{action}")


async def fees(platform: Platform) -> int:
    row = await platform.database.fetchrow(FEES, await platform.fee_account())
    assert row is not None
    balance: int = row["balance"]
    return balance


async def test_cash_in(person: MakePerson, platform: Platform) -> None:
    ann, agent = await person(), await person(balance=30_000, agent=True)
    said = await ann.post(IN, {"amount_cents": 20_000})
    assert list(said.json.items())[1:7] == [
        ("type", "cashin"),
        ("user_phone", ann.phone),
        ("agent_phone", None),
        ("amount_cents", 20_000),
        ("currency_code", "SYP"),
        ("status", "pending"),
    ]
    assert said.json["created_at"].endswith("Z")
    request_id = said.json["id"]
    assert (await do(agent, request_id, "accept")).body == b'{"detail":"completed"}'
    assert (await do(agent, request_id, "accept")).body == b'{"detail":"already completed"}'
    assert (await do(ann, request_id, "cancel")).json == {"detail": "already completed"}
    assert (await ann.balance(), await agent.balance(), await fees(platform)) == (20_000, 9_800, 200)
    (mine,) = (await ann.get("/cash/requests")).json["my"]
    assert mine == {**said.json, "agent_phone": agent.phone, "status": "completed"}
    assert said.json["named_agent_phone"] is None


async def test_cash_out(person: MakePerson, platform: Platform, owner: Raw) -> None:
    ann, agent = await person(balance=20_000, merchant=True), await person(agent=True)
    said = await ann.post(OUT, {"amount_cents": 15_000}, key="k")
    assert (said.json["type"], said.json["status"]) == ("cashout", "pending")
    # Set aside at once: the notes are in the agent's hand before the wallet could be empty.
    body = {"to_phone": agent.phone, "amount_cents": 4_251, "idempotency_key": "k2"}
    assert (await ann.post("/wallet/transfer", body)).refusal == (400, "Insufficient balance")
    assert (await do(agent, said.json["id"], "accept")).body == b'{"detail":"completed"}'
    assert (await ann.balance(), await agent.balance(), await fees(platform)) == (4_250, 15_000, 750)
    assert (await ann.post(OUT, {"amount_cents": 15_000}, key="k")).body == said.body
    events = await owner.fetch("SELECT event_type, body FROM outbox_events ORDER BY id")
    assert [row["event_type"] for row in events] == ["cash.request", "cash.accept"]
    assert f'"id":"{said.json["id"]}"'.encode() in events[1]["body"]
    audit = await owner.fetch("SELECT type, actor FROM audit_events WHERE type LIKE 'cash.%' ORDER BY id")
    assert [tuple(row) for row in audit] == [
        ("cash.request", f"user:{ann.user.id}"),
        ("cash.accept", f"user:{agent.user.id}"),
    ]


@pytest.mark.shared
async def test_cash_out_without_money(person: MakePerson) -> None:
    ann = await person(balance=10_000)
    assert (await ann.post(OUT, {"amount_cents": 10_000}, key="k")).refusal == (400, "Insufficient balance")
    assert (await ann.get("/cash/requests")).json["my"] == []
    await ann.top_up(500)
    assert (await ann.post(OUT, {"amount_cents": 10_000}, key="k")).status == 200


@pytest.mark.shared
async def test_cash_out_within_the_limits(person: MakePerson) -> None:
    ann = await person(balance=600_000_000)
    assert (await ann.post(OUT, {"amount_cents": 100_000_001})).refusal == (
        400,
        "KYC transaction limit exceeded",
    )
    for _ in range(4):
        assert (await ann.post(OUT, {"amount_cents": 100_000_000})).status == 200
    assert (await ann.post(OUT, {"amount_cents": 90_000_000})).refusal == (400, "KYC daily limit exceeded")


@pytest.mark.parametrize("action", ["reject", "cancel"])
async def test_the_money_comes_back(person: MakePerson, action: str, owner: Raw) -> None:
    ann, agent = await person(balance=10_500), await person(agent=True)
    request_id = await ask(ann, OUT, 10_000)
    who, word = (agent, "rejected") if action == "reject" else (ann, "canceled")
    assert (await do(who, request_id, action)).json == {"detail": word}
    assert (await do(who, request_id, action)).json == {"detail": f"already {word}"}
    assert (await do(agent, request_id, "accept")).json == {"detail": f"already {word}"}
    assert await owner.fetchval("SELECT sum(held) FROM accounts") == 0
    (mine,) = (await ann.get("/cash/requests")).json["my"]
    assert (mine["status"], mine["agent_phone"]) == (word, None)
    await ask(ann, OUT, 10_000)


@pytest.mark.shared
async def test_an_end_to_cash_in(person: MakePerson) -> None:
    ann, agent = await person(), await person(agent=True)
    request_id = await ask(ann, IN, 100)
    assert (await do(agent, request_id, "reject")).json == {"detail": "rejected"}
    assert (await do(agent, request_id, "accept")).json == {"detail": "already rejected"}
    assert await ann.balance() == 0


@pytest.mark.shared
async def test_who_may(person: MakePerson, nobody: Person) -> None:
    ann, bob, agent = await person(balance=1_000), await person(), await person(agent=True)
    request_id = await ask(ann, OUT, 100)
    for action in ("accept", "reject"):
        assert (await do(ann, request_id, action)).refusal == (403, "Not an agent")
        assert (await do(ann, "nonsense", action)).refusal == (403, "Not an agent")
        for unknown in (str(uuid4()), "nonsense"):
            assert (await do(agent, unknown, action)).refusal == (404, "Request not found")
    assert (await do(bob, request_id, "cancel")).refusal == (403, "Not owner")
    assert (await do(bob, str(uuid4()), "cancel")).refusal == (404, "Request not found")
    assert (await do(nobody, request_id, "accept")).refusal == (403, "Not authenticated")
    assert (await ann.post("/cash/agents/dev/become_agent")).refusal == (403, "Not allowed")
    for amount in (0, -1, 1.5, "x", None, 2**63):
        assert (await ann.post(IN, {"amount_cents": amount})).refusal[0] == 422


@pytest.mark.shared
async def test_an_agent_without_money(person: MakePerson) -> None:
    ann, agent = await person(), await person(balance=100, agent=True)
    request_id = await ask(ann, IN, 100)
    assert (await do(agent, request_id, "accept")).refusal == (400, "Agent insufficient balance")
    await agent.top_up(1)
    assert (await do(agent, request_id, "accept")).json == {"detail": "completed"}


@pytest.mark.shared
async def test_an_agents_own_requests(person: MakePerson) -> None:
    agent, other = await person(balance=10_000, agent=True), await person(balance=10_000, agent=True)
    for path in (IN, OUT):
        request_id = await ask(agent, path, 1_000)
        assert (await do(agent, request_id, "accept")).refusal == (403, "Not your own request")
        assert (await do(other, request_id, "accept")).json == {"detail": "completed"}


async def test_lists(person: MakePerson) -> None:
    ann, bob, agent = await person(balance=1_000), await person(), await person(agent=True)
    first, second = await ask(ann, IN, 1), await ask(bob, IN, 2)
    third = await ask(ann, OUT, 3)
    listed = (await ann.get("/cash/requests")).json
    assert [one["id"] for one in listed["my"]] == [third, first]
    assert listed["incoming"] == []
    await do(ann, first, "cancel")
    listed = (await agent.get("/cash/requests")).json
    assert [(one["id"], one["user_phone"]) for one in listed["incoming"]] == [
        (second, masked(bob.phone)),
        (third, masked(ann.phone)),
    ]


@pytest.mark.shared
async def test_keys(person: MakePerson) -> None:
    ann, bob = await person(), await person()
    first = await ann.post(IN, {"amount_cents": 5}, key="same")
    assert (await ann.post(IN, {"amount_cents": 5}, key="same")).body == first.body
    assert (await ann.post(IN, {"amount_cents": 6}, key="same")).status == 409
    assert (await ann.post(OUT, {"amount_cents": 5}, key="same")).status == 409
    assert (await bob.post(IN, {"amount_cents": 5}, key="same")).json["id"] != first.json["id"]
    assert (await ann.post(IN, {"amount_cents": 5}, key="x" * 65)).refusal == (
        400,
        "Idempotency key too long",
    )
    many = await asyncio.gather(*(ann.post(IN, {"amount_cents": 7}, key="at once") for _ in range(8)))
    assert {one.status for one in many} == {200}
    assert len({one.body for one in many}) == 1


@pytest.mark.parametrize("path", [IN, OUT])
async def test_round_trips(person: MakePerson, path: str, round_trips: list[str]) -> None:
    ann, agent = await person(balance=10_000), await person(balance=10_000, agent=True)
    await do(agent, await ask(ann, path, 100), "accept")  # which makes the fee wallet
    round_trips.clear()
    request_id = await ask(ann, path, 100)
    # The bound on open requests is looked at under a lock that a statement of its own takes.
    assert len(round_trips) <= 4, round_trips
    round_trips.clear()
    assert (await do(agent, request_id, "accept")).json == {"detail": "completed"}
    assert len(round_trips) <= 3, round_trips


@pytest.mark.parametrize("path", [IN, OUT])
async def test_eight_agents(person: MakePerson, elsewhere: ApiClient, path: str) -> None:
    ann = await person(balance=2_000)
    agents = [await person(balance=2_000, agent=True) for _ in range(8)]
    request_id = await ask(ann, path, 1_000)
    agents[::2] = [agent.at(elsewhere) for agent in agents[::2]]
    said = await asyncio.gather(*(do(agent, request_id, "accept") for agent in agents))
    assert sorted(one.json["detail"] for one in said) == ["already completed"] * 7 + ["completed"]
    assert await ann.balance() == (3_000 if path == IN else 950)


async def test_two_agents_without_the_lock(
    person: MakePerson, elsewhere: ApiClient, owner: Raw, eventually: Wait
) -> None:
    ann = await person()
    agents = [await person(balance=10_000, agent=True) for _ in range(2)]
    agents[1] = agents[1].at(elsewhere)

    async def both() -> list[str]:
        request_id = await ask(ann, IN, 1_000)
        calls = [do(agent, request_id, "accept") for agent in agents]
        return sorted(said.json["detail"] for said in await at_barrier(owner, calls, eventually))

    # Both find it open, before either pays.
    await install(owner, (PAYABLE_LOCK, ""), (LOCK, BARRIER + "\n" + LOCK))
    assert await both() == ["completed", "completed"]
    assert await ann.balance() == 2_000
    await install(owner, (LOCK, BARRIER + "\n" + LOCK))
    assert await both() == ["already completed", "completed"]
    assert await ann.balance() == 3_000


async def test_accepted_and_canceled_at_once(person: MakePerson, elsewhere: ApiClient, owner: Raw) -> None:
    for _ in range(8):
        ann, agent = await person(balance=1_050), await person(agent=True)
        request_id = await ask(ann, OUT, 1_000)
        there = ann.at(elsewhere)
        said = await asyncio.gather(do(agent, request_id, "accept"), do(there, request_id, "cancel"))
        words = [one.json["detail"] for one in said]
        assert words in (["completed", "already completed"], ["already canceled", "canceled"])
        assert await ann.balance() == (0 if words[0] == "completed" else 1_050)
    assert await owner.fetchval("SELECT sum(held) FROM accounts") == 0


class TestWithAnEnd:
    @pytest.fixture
    def settings(self, settings: Settings) -> Settings:
        return Settings.model_validate(settings.model_dump() | {"cash_request_expiry_minutes": 5})

    async def test_expired(self, person: MakePerson, owner: Raw, service: Service) -> None:
        ann, agent = await person(balance=1_050), await person(agent=True)
        request_id = await ask(ann, OUT, 1_000)
        # The clock is the database's, so the ends are moved, not it.
        await owner.execute("UPDATE payables SET expires_at = now() - interval '1 second'")
        await owner.execute("UPDATE holds SET expires_at = now() - interval '1 second'")
        assert (await do(agent, request_id, "accept")).json == {"detail": "already expired"}
        assert (await do(ann, request_id, "cancel")).json == {"detail": "already expired"}
        assert (await agent.get("/cash/requests")).json["incoming"] == []
        assert await expire_due(service.database) == 1
        assert await owner.fetchval("SELECT sum(held) FROM accounts") == 0


class TestInDevelopment:
    @pytest.fixture
    def settings(self, settings: Settings) -> Settings:
        return Settings.model_validate(settings.model_dump() | {"env": "dev"})

    @pytest.mark.shared
    async def test_becoming_an_agent(self, person: MakePerson) -> None:
        ann = await person()
        for _ in range(2):
            assert (await ann.post("/cash/agents/dev/become_agent")).json == {"detail": "agent enabled"}
        assert (await do(ann, str(uuid4()), "accept")).refusal == (404, "Request not found")
