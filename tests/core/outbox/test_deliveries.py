"""Looking at deliveries and sending them again, as their owner does it over HTTP."""

import uuid
from datetime import UTC, datetime, timedelta

import pytest

from core.outbox import deliveries as core_deliveries
from tests.core.outbox.office import ADMIN_TOKEN, Office, OpenOffice, OpenReceiver, says
from tests.jobs.merchant import Receiver

REFUSED = "http://127.0.0.1:1/closed"


def moment(**ago: float) -> str:
    return (datetime.now(UTC) - timedelta(**ago)).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


async def test_the_list_is_filtered(office: Office, receiver: Receiver) -> None:
    good = await office.listen(receiver)
    bad = await office.endpoint(REFUSED, event_types=["a.*"])
    await office.emit("a.one")
    await office.emit("kyc.submit")
    await office.deliver()

    async def found(query: str) -> set[tuple[str, str]]:
        return {(row["endpoint"], row["type"]) for row in await office.deliveries(f"?{query}")}

    everything = {(good["id"], "a.one"), (good["id"], "kyc.submit"), (bad["id"], "a.one")}
    assert await found("") == everything
    assert await found(f"endpoint={bad['id']}") == {(bad["id"], "a.one")}
    assert await found("state=failed") == {(bad["id"], "a.one")}
    assert await found("state=delivered&type=kyc.submit") == {(good["id"], "kyc.submit")}
    assert await found("state=sending") == set()
    assert await found(f"from={moment(minutes=1)}&to={moment(minutes=-1)}") == everything
    assert await found(f"from={moment(minutes=-1)}") == set()
    assert await found(f"to={moment(minutes=1)}") == set()
    (one,) = await office.deliveries("?type=kyc.submit")
    assert await found(f"event={one['event']}") == {(good["id"], "kyc.submit")}
    assert await found(f"event=msg_{uuid.uuid4().hex}") == set()


async def test_the_list_pages_newest_first(office: Office, receiver: Receiver) -> None:
    await office.listen(receiver)
    await office.endpoint(REFUSED)
    for number in range(13):
        await office.emit(f"a.n{number}")
    await office.deliver()
    seen: list[str] = []
    query = "?limit=5"
    while query:
        page = await office.get(f"/v1/webhook-deliveries{query}")
        seen += [row["id"] for row in page["data"]]
        query = f"?limit=5&after={page['next']}" if page["next"] else ""
    assert len(set(seen)) == len(seen) == 26
    assert seen == sorted(seen, reverse=True)


@pytest.mark.parametrize(
    "query",
    [
        "endpoint=x", "event=x", "event=msg_x", "state=leased", "state=", "type=a%20b", "from=yesterday",
        "from=2026-01-01T00:00:00", "to=0", "limit=0", "limit=101", "limit=x", "after=x", "nonsense=1",
        "state=failed&state=failed",
        "from=0001-01-01T00:00:00Z&to=9999-12-31T23:59:59Z&limit=-1",
    ],
)  # fmt: skip
async def test_a_filter_that_makes_no_sense(office: Office, query: str) -> None:
    status, problem = await office.call("GET", f"/v1/webhook-deliveries?{query}")
    assert (status, problem["error"]["code"]) == (400, "invalid_request")


async def test_times_at_the_ends_of_time(office: Office) -> None:
    assert await office.deliveries("?from=0001-01-01T00:00:00Z&to=9999-12-31T23:59:59Z") == []
    assert await office.deliveries("?from=0001-01-01T00:00:00%2B14:00&to=9999-12-31T23:59:59-14:00") == []


async def test_deliveries_belong_to_their_principal(office: Office, open_office: OpenOffice) -> None:
    await office.endpoint(REFUSED)
    await office.emit()
    await office.deliver()
    (mine,) = await office.deliveries()
    other = await open_office("another shop")
    assert await other.deliveries() == []
    assert await other.deliveries(f"?endpoint={mine['endpoint']}") == []
    path = f"/v1/webhook-deliveries/{mine['id']}"
    assert (await other.call("GET", path))[0] == 404
    assert (await other.call("POST", f"{path}/resend"))[0] == 404
    recover = f"/v1/webhook-endpoints/{mine['endpoint']}/recover"
    assert (await other.call("POST", recover, {"since": moment(hours=1)}))[0] == 404
    replayed = await other.post("/v1/webhook-deliveries/replay", {"from": moment(hours=1)})
    assert replayed == {"replayed": 0, "next": None}
    assert [row["state"] for row in await office.deliveries()] == ["failed"]
    assert (await office.call("GET", f"/v1/webhook-deliveries/{uuid.uuid4()}"))[0] == 404


async def test_what_was_delivered_is_sent_again_the_same(office: Office, receiver: Receiver) -> None:
    await office.listen(receiver)
    await office.emit("payment.succeeded", {"id": "pi_1"})
    await office.deliver()
    (delivery,) = await office.deliveries()
    path = f"/v1/webhook-deliveries/{delivery['id']}"
    assert await office.post(f"{path}/resend") == {"replayed": 1, "next": None}
    again = (await office.get(path))["delivery"]
    assert (again["state"], again["attempts"], again["finished_at"]) == ("pending", 0, None)
    await office.deliver()
    first, second = receiver.deliveries
    receiver.verify(second)
    assert first.body == second.body
    for name in ("webhook-id", "X-Delivery-ID"):
        assert first.headers[name] == second.headers[name]
    shown = await office.get(path)
    assert (shown["delivery"]["state"], shown["delivery"]["attempts"]) == ("delivered", 1)
    assert len(shown["attempts"]) == 2, "what was before is not forgotten"


async def test_what_is_being_sent_or_has_no_receiver_cannot_be_sent_again(office: Office) -> None:
    endpoint = await office.endpoint(REFUSED)
    await office.emit()
    await office.deliver()
    (delivery,) = await office.deliveries()
    path = f"/v1/webhook-deliveries/{delivery['id']}/resend"
    await office.sql(
        "UPDATE webhook_deliveries SET state = 'leased', finished_at = NULL, lease_worker = id, lease_token = id,"
        " lease_until = now() + interval '1 h'"
    )
    assert (await office.post(path, status=409))["error"]["code"] == "delivery_in_progress"
    assert [row["state"] for row in await office.deliveries()] == ["sending"]
    await office.call("DELETE", f"/v1/webhook-endpoints/{endpoint['id']}")
    assert (await office.post(path, status=409))["error"]["code"] == "endpoint_missing"
    assert len(await office.deliveries()) == 1, "what was sent to a deleted endpoint can still be looked at"


async def test_an_operator_puts_back_what_belongs_to_anybody(office: Office, receiver: Receiver) -> None:
    endpoint = await office.listen(receiver)
    receiver.answers += [says(500)] * 3
    await office.emit()
    await office.deliver()
    (failed,) = await office.deliveries("?state=failed")
    path = f"/admin/webhooks/deliveries/{failed['id']}/requeue"

    async def requeue(path: str, **headers: str) -> tuple[int, str]:
        answer = await office.api.post(path, headers=headers)
        said = await answer.json()
        return answer.status, said["error"]["message"] if "error" in said else said["detail"]

    assert (await requeue(path))[0] == 401
    assert (await requeue(path, Authorization=f"Bearer {office.key}"))[0] == 401
    assert await requeue(path, **{"X-Admin-Token": ADMIN_TOKEN}) == (200, "requeued")
    await office.deliver()
    assert [row["state"] for row in await office.deliveries()] == ["delivered"]
    nobody = f"/admin/webhooks/deliveries/{uuid.uuid4()}/requeue"
    assert await requeue(nobody, **{"X-Admin-Token": ADMIN_TOKEN}) == (404, "Not found")
    await office.call("DELETE", f"/v1/webhook-endpoints/{endpoint['id']}")
    assert await requeue(path, **{"X-Admin-Token": ADMIN_TOKEN}) == (404, "Endpoint missing")


async def test_everything_that_failed_since_a_time_is_recovered(
    office: Office, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(core_deliveries, "REPLAY_BATCH", 4)
    endpoint = await office.listen(receiver)
    await office.endpoint(REFUSED)
    receiver.answers += [says(500)] * 3
    await office.emit("a.old")
    await office.deliver()
    await office.sql("UPDATE webhook_deliveries SET finished_at = now() - interval '1 d'")
    receiver.answers += [says(500)] * 30
    for number in range(10):
        await office.emit("a.lost", {"number": number})
    await office.deliver()
    await office.emit("a.good")
    await office.deliver()
    receiver.deliveries.clear()
    path = f"/v1/webhook-endpoints/{endpoint['id']}/recover"
    assert await office.post(path, {"since": moment(hours=1)}) == {"replayed": 10, "next": None}
    assert await office.post(path, {"since": moment(hours=1)}) == {"replayed": 0, "next": None}
    await office.deliver()
    assert sorted(sent.event["data"]["number"] for sent in receiver.deliveries) == list(range(10))
    failed = await office.deliveries(f"?endpoint={endpoint['id']}&state=failed")
    assert [row["type"] for row in failed] == ["a.old"]


async def test_a_replay_goes_in_bounded_steps(office: Office, receiver: Receiver) -> None:
    await office.listen(receiver)
    for number in range(7):
        await office.emit("kyc.submit" if number % 2 else "a.other", {"number": number})
    await office.deliver()
    receiver.deliveries.clear()
    body = {"from": moment(hours=1), "states": ["delivered"], "limit": 2}
    total, after, calls = 0, None, 0
    while True:
        progress = await office.post("/v1/webhook-deliveries/replay", body | {"after": after})
        total, after, calls = total + progress["replayed"], progress["next"], calls + 1
        assert progress["replayed"] <= 2
        if after is None:
            break
    assert (total, calls) == (7, 4)
    await office.deliver()
    assert sorted(sent.event["data"]["number"] for sent in receiver.deliveries) == list(range(7))
    whole = await office.post("/v1/webhook-deliveries/replay", body | {"limit": 7})
    assert whole == {"replayed": 7, "next": None}  # a full last step promises no other
    await office.deliver()
    receiver.deliveries.clear()
    wanted = {"from": moment(hours=1), "states": ["delivered", "failed"], "types": ["kyc.submit"]}
    assert (await office.post("/v1/webhook-deliveries/replay", wanted))["replayed"] == 3
    await office.deliver()
    assert {sent.event["type"] for sent in receiver.deliveries} == {"kyc.submit"}


@pytest.mark.parametrize(
    "body",
    [
        {}, {"from": "x"}, {"from": "2026-01-01T00:00:00Z", "states": []}, {"from": "2026-01-01T00:00:00Z", "limit": 0},
        {"from": "2026-01-01T00:00:00Z", "limit": 5001}, {"from": "2026-01-01T00:00:00Z", "states": ["pending"]},
        {"from": "2026-01-01T00:00:00Z", "types": ["a b"]}, {"from": "2026-01-01T00:00:00Z", "nonsense": 1},
    ],
)  # fmt: skip
async def test_a_replay_that_makes_no_sense(office: Office, body: dict[str, object]) -> None:
    problem = await office.post("/v1/webhook-deliveries/replay", body, status=400)
    assert problem["error"]["code"] == "invalid_request"


async def test_a_key_that_only_reads_sends_nothing_again(
    office: Office, open_receiver: OpenReceiver, api_key: object
) -> None:
    await office.listen(await open_receiver())
    await office.emit()
    await office.deliver()
    (delivery,) = await office.deliveries()
    office.key = await api_key("webhooks:read", principal="shop")  # type: ignore[operator]
    path = f"/v1/webhook-deliveries/{delivery['id']}"
    assert (await office.call("GET", path))[0] == 200
    for write, body in (
        (f"{path}/resend", None),
        ("/v1/webhook-deliveries/replay", {"from": moment(hours=1)}),
        (f"/v1/webhook-endpoints/{delivery['endpoint']}/recover", {"since": moment(hours=1)}),
        (f"/v1/webhook-endpoints/{delivery['endpoint']}/test", None),
        (f"/v1/webhook-endpoints/{delivery['endpoint']}/secret/rotate", {}),
    ):
        assert (await office.call("POST", write, body))[0] == 403, write
