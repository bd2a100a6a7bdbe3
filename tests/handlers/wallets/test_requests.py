"""Payment requests: asked, accepted once, rejected, canceled, expired; and what races between these."""

import asyncio
import json
import uuid
from typing import Any

import pytest

from core.payables import expiry
from core.platform import Platform
from core.settings import Settings
from tests.chaos.staging import BARRIER, LOCK, PAYABLE_LOCK, Wait, at_barrier, install, waiting
from tests.handlers.wallets.conftest import ApiClient, MakePerson, Person, Said, told

# Whoever pays waits there, having read the payable, and holding its lock where the lock is there.
READ = (LOCK, BARRIER + "\n" + LOCK)


async def ask(requester: Person, target: Person, amount: int = 100, **more: Any) -> str:
    said = await requester.post("/requests", {"to_phone": target.phone, "amount_cents": amount, **more})
    assert said.status == 200, said
    request_id: str = said.json["id"]
    return request_id


async def status_of(somebody: Person, request_id: str) -> str:
    status: str = (await somebody.get(f"/requests/{request_id}")).json["status"]
    return status


@pytest.mark.shared
async def test_metadata_comes_back_as_it_went(person: MakePerson) -> None:
    ann, bob = await person(), await person()
    metadata = {"note": "é", "id": 1.0, "lines": [{"b": 1e16, "a": None}], "": {}}
    body = {"to_phone": bob.phone, "amount_cents": 5, "metadata": metadata}
    made = await ann.post("/requests", body, key="one")
    assert (await ann.post("/requests", body, key="one")).body == made.body
    shown = (await bob.get(f"/requests/{made.json['id']}")).json["metadata"]
    assert json.dumps(shown) == json.dumps(made.json["metadata"]) == json.dumps(metadata)
    assert (await bob.get("/requests")).json["incoming"][0]["metadata"] == metadata


async def test_ask_and_accept(person: MakePerson, owner: Any) -> None:
    ann, shop = await person(balance=1_000), await person(merchant=True)
    body = {"to_phone": ann.phone, "amount_cents": 300, "metadata": {"order": 7, "lines": [1]}}
    said = await shop.post("/requests", body)
    assert said.status == 200
    request = said.json
    assert list(request) == [
        "id",
        "requester_phone",
        "target_phone",
        "amount_cents",
        "currency_code",
        "status",
        "created_at",
        "expires_at",
        "metadata",
    ]
    assert request == request | {
        "requester_phone": shop.phone,
        "target_phone": ann.phone,
        "amount_cents": 300,
        "currency_code": "SYP",
        "status": "pending",
        "metadata": {"order": 7, "lines": [1]},
    }
    assert request["expires_at"].endswith("Z")
    accepted = await ann.post(f"/requests/{request['id']}/accept")
    assert accepted.status == 200
    transfer_id = accepted.json["transfer_id"]
    assert accepted.body == f'{{"detail":"accepted","transfer_id":"{transfer_id}"}}'.encode()
    assert (await ann.post(f"/requests/{request['id']}/accept")).body == b'{"detail":"already accepted"}'
    assert (await ann.post(f"/requests/{request['id']}/reject")).json == {"detail": "already accepted"}
    assert (await shop.post(f"/requests/{request['id']}/cancel")).json == {"detail": "already accepted"}
    assert (await ann.balance(), await shop.balance()) == (700, 300)
    assert await status_of(shop, request["id"]) == "accepted"
    assert await told(owner, shop) == [
        ("requests.create", {"id": request["id"], "amount_cents": 300}),
        ("requests.accept", {"id": request["id"], "transfer_id": transfer_id}),
    ]
    body = await owner.fetchval("SELECT body FROM outbox_events WHERE event_type = 'requests.accept'")
    assert body == (
        f'{{"type":"requests.accept","data":{{"id":"{request["id"]}","transfer_id":"{transfer_id}"}}}}'.encode()
    )
    audits = await owner.fetch(
        "SELECT type, actor FROM audit_events WHERE object_id = $1 ORDER BY id", request["id"]
    )
    assert [(row["type"], row["actor"]) for row in audits] == [
        ("requests.create", f"user:{shop.user.id}"),
        ("requests.accept", f"user:{ann.user.id}"),
    ]


@pytest.mark.shared
async def test_key_of_a_creation(person: MakePerson) -> None:
    ann, bob, eve = await person(), await person(), await person()
    body = {"to_phone": bob.phone, "amount_cents": 300}
    one, again = [await ann.post("/requests", body, key=key) for key in ("k", " k ")]
    assert one.body == again.body
    assert (await ann.post("/requests", {**body, "amount_cents": 301}, key="k")).refusal == (
        409,
        "Idempotency-Key conflict for different request",
    )
    # Somebody else's key of the same text is another key.
    assert (await eve.post("/requests", body, key="k")).json["id"] != one.json["id"]
    assert (await ann.post("/requests", body)).json["id"] != one.json["id"]
    assert (await ann.post("/requests", body, key="x" * 65)).refusal == (400, "Idempotency key too long")
    outgoing = (await ann.get("/requests")).json["outgoing"]
    assert len(outgoing) == 2


async def test_creations_under_one_key_at_once(person: MakePerson, elsewhere: ApiClient) -> None:
    ann, bob = await person(), await person()
    body = {"to_phone": bob.phone, "amount_cents": 300}
    said = await asyncio.gather(
        *(side.post("/requests", body, key="k") for _ in range(8) for side in (ann, ann.at(elsewhere)))
    )
    assert len({one.body for one in said}) == 1


@pytest.mark.shared
async def test_lists_are_newest_first(person: MakePerson) -> None:
    ann, bob = await person(), await person()
    ids = [await ask(ann, bob, amount) for amount in (1, 2, 3)]
    mine, theirs = (await ann.get("/requests")).json, (await bob.get("/requests")).json
    assert [request["id"] for request in mine["outgoing"]] == ids[::-1]
    assert theirs["incoming"] == mine["outgoing"]
    assert (mine["incoming"], theirs["outgoing"]) == ([], [])


async def test_refusals(person: MakePerson, nobody: Person) -> None:
    ann, bob, eve = await person(), await person(balance=50), await person()

    async def creating(**changes: Any) -> tuple[int, str]:
        body = {"to_phone": bob.phone, "amount_cents": 1, **changes}
        return (await ann.post("/requests", body)).refusal

    assert await creating(to_phone="+963999000111") == (404, "Target not found")
    assert await creating(to_phone=ann.phone) == (400, "Cannot request from self")
    deep: dict[str, Any] = {}
    for _ in range(9):
        deep = {"a": deep}
    for bad in (
        {"to_phone": "0999"},
        {"amount_cents": 0},
        {"amount_cents": 2**63},
        {"expires_in_minutes": 0},
        {"expires_in_minutes": 10_081},
        {"metadata": [1]},
        {"metadata": {"a": "x" * 5_000}},
        {"metadata": deep},
        {"metadata": {"a": "\0"}},
    ):
        assert (await creating(**bad))[0] == 422, bad
    request_id = await ask(ann, bob)
    assert (await eve.get(f"/requests/{request_id}")).refusal == (403, "Forbidden")
    for who, action, sentence in (
        (ann, "accept", "Not your request to accept"),
        (eve, "reject", "Not allowed"),
        (bob, "cancel", "Only requester can cancel"),
    ):
        assert (await who.post(f"/requests/{request_id}/{action}")).refusal == (403, sentence)
    for action in ("accept", "reject", "cancel"):
        said = await ann.post(f"/requests/{uuid.uuid4()}/{action}")
        assert said.refusal == (404, "Request not found")
        assert (await ann.post(f"/requests/not-an-id/{action}")).status == 422
    assert (await ann.get(f"/requests/{uuid.uuid4()}")).refusal == (404, "Request not found")
    assert (await bob.post(f"/requests/{request_id}/accept")).refusal == (400, "Insufficient balance")
    # What was refused can be accepted later.
    await bob.top_up(50)
    assert (await bob.post(f"/requests/{request_id}/accept")).json["detail"] == "accepted"
    assert (await nobody.get("/requests")).refusal == (403, "Not authenticated")


@pytest.mark.shared
async def test_metadata_nested_as_deep_as_can_be(person: MakePerson) -> None:
    ann, bob = await person(), await person()
    for depth in (500, 1_000, 10_000):
        metadata = '{"a":' * depth + "1" + "}" * depth
        text = f'{{"to_phone":"{bob.phone}","amount_cents":1,"metadata":{metadata}}}'
        headers = {"Authorization": f"Bearer {ann.token}", "Content-Type": "application/json"}
        async with ann.client.post("/requests", data=text, headers=headers) as response:
            assert response.status == 422, depth


@pytest.mark.shared
async def test_limits_count_before_funds(person: MakePerson, settings: Settings) -> None:
    ann, bob = await person(), await person()
    request_id = await ask(ann, bob, settings.kyc_l0_tx_max_cents + 1)
    said = await bob.post(f"/requests/{request_id}/accept")
    assert said.refusal == (400, "KYC transaction limit exceeded")


@pytest.mark.parametrize(
    ("action", "by", "state"),
    [
        ("reject", "target", "rejected"),
        ("reject", "requester", "rejected"),
        ("cancel", "requester", "canceled"),
    ],
)
async def test_ends(person: MakePerson, owner: Any, action: str, by: str, state: str) -> None:
    ann, bob = await person(merchant=True), await person(balance=100)
    request_id = await ask(ann, bob)
    said = await (bob if by == "target" else ann).post(f"/requests/{request_id}/{action}")
    assert said.body == f'{{"detail":"{state}"}}'.encode()
    for who, again in ((bob, "accept"), (bob, "reject"), (ann, "cancel")):
        assert (await who.post(f"/requests/{request_id}/{again}")).json == {"detail": f"already {state}"}
    assert await status_of(bob, request_id) == state
    assert await bob.balance() == 100
    assert (await told(owner, ann))[1:] == [(f"requests.{action}", {"id": request_id})]


async def test_expired_is_seen_at_once(person: MakePerson, platform: Platform, owner: Any) -> None:
    ann, bob = await person(merchant=True), await person(balance=100)
    request_id = await ask(ann, bob, expires_in_minutes=1)
    await owner.execute("UPDATE payables SET expires_at = clock_timestamp()")
    assert await status_of(ann, request_id) == "expired"
    assert (await bob.get("/requests")).json["incoming"][0]["status"] == "expired"
    for who, action in ((bob, "accept"), (bob, "reject"), (ann, "cancel")):
        assert (await who.post(f"/requests/{request_id}/{action}")).json == {"detail": "already expired"}
    assert await owner.fetchval("SELECT state FROM payables") == "open"
    assert tuple(await expiry.expire(platform)) == (1, 0)
    assert tuple(await expiry.expire(platform)) == (0, 0)
    assert await owner.fetchval("SELECT state FROM payables") == "expired"
    assert await status_of(ann, request_id) == "expired"
    assert (await told(owner, ann))[1:] == [("requests.expire", {"id": request_id})]
    assert await bob.balance() == 100


async def test_accepting_takes_three_round_trips(person: MakePerson, round_trips: list[str]) -> None:
    ann, bob = await person(), await person(balance=100)
    request_id = await ask(ann, bob)
    round_trips.clear()
    assert (await bob.post(f"/requests/{request_id}/accept")).status == 200
    assert round_trips == ["users_by_id", "payables_to_pay", "post_with_effects"]


# --- Races


async def test_many_accepts(person: MakePerson, elsewhere: ApiClient) -> None:
    ann, bob = await person(), await person(balance=10_000)
    request_id = await ask(ann, bob, 100)
    said = await asyncio.gather(
        *(side.post(f"/requests/{request_id}/accept") for _ in range(16) for side in (bob, bob.at(elsewhere)))
    )
    details = [one.json["detail"] for one in said]
    assert sorted(details) == ["accepted"] + ["already accepted"] * 31
    assert (await bob.balance(), await ann.balance()) == (9_900, 100)


async def test_two_accepts_staged(
    person: MakePerson, elsewhere: ApiClient, owner: Any, eventually: Wait
) -> None:
    ann, bob = await person(), await person(balance=1_000)

    async def both() -> list[str]:
        path = f"/requests/{await ask(ann, bob, 100)}/accept"
        said = await at_barrier(owner, [bob.post(path), bob.at(elsewhere).post(path)], eventually)
        return sorted(one.json["detail"] for one in said)

    await install(owner, (PAYABLE_LOCK, ""), READ)
    assert await both() == ["accepted", "accepted"]
    assert await bob.balance() == 800
    await install(owner, READ)
    assert await both() == ["accepted", "already accepted"]
    assert await bob.balance() == 700


async def test_accept_against_cancel_staged(
    person: MakePerson, elsewhere: ApiClient, owner: Any, eventually: Wait
) -> None:
    ann, bob = await person(), await person(balance=1_000)

    async def first_ask() -> tuple[str, str]:
        request_id = await ask(ann, bob, 100)
        return f"/requests/{request_id}/accept", f"/requests/{request_id}/cancel"

    await install(owner, (PAYABLE_LOCK, ""), READ)
    accept, cancel = await first_ask()
    canceled: list[Said] = []

    async def meanwhile() -> None:
        canceled.append(await ann.at(elsewhere).post(cancel))

    (accepted,) = await at_barrier(owner, [bob.post(accept)], eventually, meanwhile())
    assert (accepted.json["detail"], canceled[0].json["detail"]) == ("accepted", "canceled")
    await install(owner, READ)
    accept, cancel = await first_ask()
    late: list[asyncio.Task[Said]] = []

    async def behind() -> None:
        late.append(asyncio.create_task(ann.at(elsewhere).post(cancel)))
        await eventually(lambda: waiting(owner, 2))

    (accepted,) = await at_barrier(owner, [bob.post(accept)], eventually, behind())
    assert (accepted.json["detail"], (await late[0]).json["detail"]) == ("accepted", "already accepted")
    assert await bob.balance() == 800


@pytest.mark.parametrize("margin_ms", [0, 5, 10, 20, 40])
async def test_accept_against_cancel_against_expiry(
    person: MakePerson, platform: Platform, elsewhere: ApiClient, owner: Any, margin_ms: int
) -> None:
    ann, bob = await person(), await person(balance=1_000)
    request_id = await ask(ann, bob, 100)

    async def expired() -> int:
        ended = 0
        while await owner.fetchval("SELECT state FROM payables") == "open":
            ended += (await expiry.expire(platform)).done
        return ended

    await owner.execute(
        "UPDATE payables SET expires_at = clock_timestamp() + make_interval(secs => $1::float8 / 1000)",
        margin_ms,
    )
    calls = asyncio.gather(
        *(
            who.post(f"/requests/{request_id}/{action}")
            for _ in range(4)
            for who, action in ((bob.at(elsewhere), "accept"), (ann, "cancel"), (bob, "reject"))
        )
    )
    marked, said = await asyncio.gather(expired(), calls)
    done = [one.json["detail"] for one in said if not one.json["detail"].startswith("already")]
    state = await status_of(ann, request_id)
    assert len(done) + marked == 1
    assert state == (done[0] if done else "expired")
    assert await bob.balance() == (900 if state == "accepted" else 1_000)
    # Whoever came too late was told what had won, or that the time was over before it was marked.
    late = {one.json["detail"] for one in said} - set(done)
    assert late <= {f"already {state}", "already expired"}


async def test_events_of_a_race_are_told_once(person: MakePerson, elsewhere: ApiClient, owner: Any) -> None:
    shop, bob = await person(merchant=True), await person(balance=1_000)
    request_id = await ask(shop, bob, 100)
    await asyncio.gather(
        *(side.post(f"/requests/{request_id}/accept") for _ in range(4) for side in (bob, bob.at(elsewhere)))
    )
    assert [event for event, _ in await told(owner, shop)] == ["requests.create", "requests.accept"]
