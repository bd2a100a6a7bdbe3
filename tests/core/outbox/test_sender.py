"""Deliveries: the records that they leave, their further attempts, and the effects of a receiver's answers."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from core.outbox.health import LEAST_ATTEMPTS, Patience
from core.outbox.recording import take_over_deliveries
from core.outbox.retention import prune_attempts
from core.outbox.schedule import Schedule
from core.work.leases import Worker
from tests.core.outbox.office import Office, OpenReceiver, says
from tests.jobs.merchant import Receiver

REFUSED = "http://127.0.0.1:1/closed"


async def test_every_attempt_is_kept_with_what_was_answered(office: Office, receiver: Receiver) -> None:
    receiver.answers += [says(500, "mail someone@example.com, card 4242 4242 4242 4242"), says(302)]
    await office.listen(receiver)
    await office.emit("payment.succeeded", {"id": "pi_1"}, object_id="pi_1")
    await office.deliver()
    (delivery,) = await office.deliveries()
    assert (delivery["state"], delivery["attempts"], delivery["last_status"]) == ("delivered", 3, 200)
    assert (delivery["type"], delivery["object"], delivery["last_error"]) == (
        "payment.succeeded",
        "pi_1",
        None,
    )
    shown = await office.get(f"/v1/webhook-deliveries/{delivery['id']}")
    assert shown["delivery"] == delivery
    assert [attempt["status"] for attempt in shown["attempts"]] == [200, 302, 500]
    assert [attempt["excerpt"] for attempt in shown["attempts"]] == [
        "thanks",
        "",
        "mail ***EMAIL***, card ***CARD***",
    ]
    assert all(attempt["error"] is None for attempt in shown["attempts"])
    assert all(0 <= attempt["latency_ms"] < 5000 for attempt in shown["attempts"])
    times = [datetime.fromisoformat(attempt["at"]) for attempt in shown["attempts"]]
    assert times == sorted(times, reverse=True)
    # One id and the same bytes each time, and both signatures are good each time.
    assert len({sent.headers["webhook-id"] for sent in receiver.deliveries}) == 1
    assert len({sent.headers["X-Delivery-ID"] for sent in receiver.deliveries}) == 1
    assert {sent.body for sent in receiver.deliveries} == {
        b'{"type":"payment.succeeded","data":{"id":"pi_1"}}'
    }
    assert receiver.deliveries[0].headers["webhook-id"] == delivery["event"]
    for sent in receiver.deliveries:
        receiver.verify(sent)


async def test_no_answer_is_an_attempt_too(office: Office) -> None:
    await office.endpoint(REFUSED)
    await office.emit()
    await office.deliver()
    (delivery,) = await office.deliveries()
    assert (delivery["state"], delivery["attempts"]) == ("failed", 3)
    assert delivery["finished_at"] is not None
    shown = await office.get(f"/v1/webhook-deliveries/{delivery['id']}")
    assert [attempt["status"] for attempt in shown["attempts"]] == [None] * 3
    assert all("ClientConnectorError" in attempt["error"] for attempt in shown["attempts"])


async def test_a_lost_worker_leaves_an_attempt_whose_outcome_is_not_known(
    office: Office, receiver: Receiver
) -> None:
    await office.listen(receiver)
    await office.emit()
    await office.fan_out()
    await office.sql(
        "UPDATE webhook_deliveries SET state = 'leased', attempts = 1, lease_worker = $1, lease_token = $1,"
        " lease_until = now() + interval '1 h'",
        Worker().id,
    )
    assert await take_over_deliveries(office.service.database, office.schedule) == 1
    (delivery,) = await office.deliveries()
    (attempt,) = (await office.get(f"/v1/webhook-deliveries/{delivery['id']}"))["attempts"]
    assert "outcome is not known" in attempt["error"]


async def test_old_attempts_are_pruned(office: Office, receiver: Receiver) -> None:
    await office.listen(receiver)
    await office.emit()
    await office.deliver()
    await office.sql(
        "INSERT INTO webhook_attempts (delivery_id, at, status, latency_ms, excerpt)"
        " SELECT id, now() - make_interval(days => days), 500, 1, '' FROM webhook_deliveries, unnest('{31,29}'::int[])"
        " AS days"
    )
    assert await prune_attempts(office.service.database, 30) == 1
    assert await prune_attempts(office.service.database, 30) == 0
    kept = await office.sql("SELECT status FROM webhook_attempts ORDER BY at DESC")
    assert [attempt["status"] for attempt in kept] == [200, 500]


async def test_the_receiver_may_ask_for_time(office: Office, receiver: Receiver) -> None:
    office.schedule = Schedule(1.0, 2.0, max_attempts=5)
    receiver.answers += [says(503, **{"Retry-After": "3600"})]
    await office.listen(receiver)
    await office.emit()
    await office.deliver()
    (delivery,) = await office.deliveries("?state=pending")
    wait = datetime.fromisoformat(delivery["next_attempt_at"]) - datetime.now(UTC)
    assert timedelta(seconds=3500) < wait <= timedelta(seconds=3600)
    assert (delivery["attempts"], delivery["last_status"]) == (1, 503)


async def test_410_switches_the_endpoint_off_and_tells_its_owner(
    office: Office, receiver: Receiver, open_receiver: OpenReceiver
) -> None:
    other = await open_receiver()
    gone = await office.listen(receiver, event_types=["a.*"])
    await office.listen(other, event_types=["webhook_endpoint.disabled"])
    receiver.answers.append(says(410))
    await office.emit("a.first")
    await office.deliver()
    shown = await office.get(f"/v1/webhook-endpoints/{gone['id']}")
    assert (shown["enabled"], shown["disabled_reason"]) == (False, "gone")
    assert shown["disabled_at"] is not None
    (failed,) = await office.deliveries(f"?endpoint={gone['id']}")
    assert (failed["state"], failed["attempts"], failed["last_status"]) == ("failed", 1, 410)
    await office.deliver()
    (told,) = other.deliveries
    other.verify(told)
    assert told.event["type"] == "webhook_endpoint.disabled"
    assert told.event["data"] == {
        "id": gone["id"],
        "url": receiver.url,
        "reason": "gone",
        "failing_since": told.event["data"]["failing_since"],
        "disabled_at": told.event["data"]["disabled_at"],
    }


async def test_what_comes_while_an_endpoint_is_off_is_kept_and_recovered(
    office: Office, receiver: Receiver
) -> None:
    endpoint = await office.listen(receiver)
    path = f"/v1/webhook-endpoints/{endpoint['id']}"
    since = datetime.now(UTC).isoformat()
    await office.emit("a.due")
    await office.fan_out()
    status, shown = await office.call("PATCH", path, {"enabled": False})
    assert (status, shown["enabled"], shown["disabled_reason"]) == (200, False, "by_owner")
    for number in range(5):
        await office.emit("a.later", {"number": number})
    await office.deliver()
    assert receiver.deliveries == []
    kept = await office.deliveries()
    assert {delivery["state"] for delivery in kept} == {"failed"}
    assert {delivery["last_error"] for delivery in kept} == {"endpoint_disabled"}
    assert {delivery["attempts"] for delivery in kept} == {0}
    for refused in (f"{path}/recover", f"/v1/webhook-deliveries/{kept[0]['id']}/resend", f"{path}/test"):
        problem = await office.post(refused, {"since": since} if "recover" in refused else None, status=409)
        assert problem["error"]["code"] == "endpoint_disabled"
    await office.call("PATCH", path, {"enabled": True})
    assert await office.post(f"{path}/recover", {"since": since}) == {"replayed": 6, "next": None}
    await office.deliver()
    assert len(receiver.deliveries) == 6
    assert {delivery["state"] for delivery in await office.deliveries()} == {"delivered"}


async def test_an_endpoint_is_switched_off_after_so_many_given_up(office: Office, receiver: Receiver) -> None:
    office.patience = Patience(deliveries=2, span_seconds=0)
    endpoint = await office.listen(receiver)
    receiver.answers += [says(500)] * 3
    await office.emit()
    await office.deliver()
    path = f"/v1/webhook-endpoints/{endpoint['id']}"
    shown = await office.get(path)
    assert (shown["enabled"], shown["failed_deliveries"]) == (True, 1)
    assert shown["failing_since"] is not None
    # A delivery that arrives in between begins the count anew.
    await office.emit()
    await office.deliver()
    shown = await office.get(path)
    assert (shown["failed_deliveries"], shown["failing_since"]) == (0, None)
    receiver.answers += [says(500)] * 6
    for _ in range(2):
        await office.emit()
        await office.deliver()
    shown = await office.get(path)
    assert (shown["enabled"], shown["disabled_reason"], shown["failed_deliveries"]) == (False, "failing", 2)


async def test_an_endpoint_is_switched_off_after_a_span_of_only_failures(
    office: Office, receiver: Receiver
) -> None:
    office.patience = Patience(deliveries=0, span_seconds=3600)
    office.schedule = Schedule(0.0, 1.0, max_attempts=LEAST_ATTEMPTS + 2)
    endpoint = await office.listen(receiver)
    receiver.answers += [says(500)] * (LEAST_ATTEMPTS + 2)
    await office.emit()
    await office.deliver()
    path = f"/v1/webhook-endpoints/{endpoint['id']}"
    assert (await office.get(path))["enabled"], "the span is not over"
    await office.sql("UPDATE webhook_endpoints SET failing_since = now() - interval '2 h'")
    receiver.answers.append(says(500))
    await office.emit()
    await office.deliver()
    shown = await office.get(path)
    assert (shown["enabled"], shown["disabled_reason"]) == (False, "failing")
    status, shown = await office.call("PATCH", path, {"enabled": True})
    assert (status, shown["enabled"], shown["failing_since"], shown["failed_deliveries"]) == (
        200,
        True,
        None,
        0,
    )


async def test_a_secret_is_rotated_with_an_overlap(office: Office, receiver: Receiver) -> None:
    endpoint = await office.listen(receiver)
    path = f"/v1/webhook-endpoints/{endpoint['id']}"
    old = endpoint["secret"]
    rotated = await office.post(f"{path}/secret/rotate", {"overlap_seconds": 600}, status=200)
    new = rotated["secret"]
    assert new != old
    assert (await office.get(path))["old_secrets_until"] == rotated["old_secrets_until"]
    await office.emit()
    await office.deliver()
    sent = receiver.deliveries[-1]
    receiver.verify(sent)
    Webhook(new).verify(sent.body, _lower(sent.headers))
    await office.sql("UPDATE webhook_endpoints SET old_secrets_until = now() - interval '1 s'")
    await office.emit()
    await office.deliver()
    sent = receiver.deliveries[-1]
    receiver.secret = new
    receiver.verify(sent)
    with pytest.raises(WebhookVerificationError):
        Webhook(old).verify(sent.body, _lower(sent.headers))
    # A secret that has leaked ends at once, and one may be given.
    given = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    rotated = await office.post(f"{path}/secret/rotate", {"overlap_seconds": 0, "secret": given}, status=200)
    assert rotated["secret"] == given
    await office.emit()
    await office.deliver()
    sent = receiver.deliveries[-1]
    receiver.secret = given
    receiver.verify(sent)
    with pytest.raises(WebhookVerificationError):
        Webhook(new).verify(sent.body, _lower(sent.headers))


async def test_headers_of_the_owner_are_sent_and_never_shown(office: Office, receiver: Receiver) -> None:
    endpoint = await office.listen(receiver, headers={"Authorization": "Bearer abc", "X-Shop": "7"})
    assert endpoint["header_names"] == ["Authorization", "X-Shop"]
    assert "Bearer abc" not in json.dumps(await office.get("/v1/webhook-endpoints"))
    await office.emit()
    await office.deliver()
    (sent,) = receiver.deliveries
    receiver.verify(sent)
    assert (sent.headers["Authorization"], sent.headers["X-Shop"]) == ("Bearer abc", "7")
    assert sent.headers["User-Agent"] == "Payments-Webhooks/0.1"


@pytest.mark.parametrize(
    ("patterns", "wanted"),
    [
        ([], {"a", "transfer.posted", "transfer.posted.late", "transfers.posted"}),
        (["*"], {"a", "transfer.posted", "transfer.posted.late", "transfers.posted"}),
        (["transfer.*"], {"transfer.posted", "transfer.posted.late"}),
        (["transfer.posted"], {"transfer.posted"}),
        (["transfer.posted.*", "a"], {"transfer.posted.late", "a"}),
        (["transfer"], set()),
    ],
)
async def test_patterns_of_types(
    office: Office, receiver: Receiver, patterns: list[str], wanted: set[str]
) -> None:
    await office.listen(receiver, event_types=patterns)
    for event_type in ("a", "transfer.posted", "transfer.posted.late", "transfers.posted"):
        await office.emit(event_type)
    await office.deliver()
    assert {delivery.event["type"] for delivery in receiver.deliveries} == wanted


async def test_a_test_event_is_for_one_endpoint_alone(
    office: Office, receiver: Receiver, open_receiver: OpenReceiver
) -> None:
    other = await open_receiver()
    await office.listen(other)
    endpoint = await office.listen(receiver, event_types=["nothing.at.all"])
    sent = await office.post(f"/v1/webhook-endpoints/{endpoint['id']}/test")
    await office.deliver()
    (delivery,) = receiver.deliveries
    receiver.verify(delivery)
    assert delivery.event == {"type": "webhook.test", "data": {"endpoint": endpoint["id"]}}
    assert delivery.headers["webhook-id"] == sent["event"]
    assert delivery.headers["X-Delivery-ID"] == sent["delivery"]
    assert other.deliveries == []
    assert (await office.get("/v1/events"))["data"] == []
    shown = await office.get(f"/v1/webhook-deliveries/{sent['delivery']}")
    assert shown["delivery"]["state"] == "delivered"


def _lower(headers: Mapping[str, str]) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}
