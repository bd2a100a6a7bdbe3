"""Changing an endpoint: what may be changed, to what, by whom."""

import uuid

import asyncpg
import pytest

from tests.core.outbox.office import Office, OpenOffice
from tests.jobs.merchant import Receiver

HOOKS = "https://shop.example.com/hooks"


async def test_everything_about_an_endpoint_can_be_changed(office: Office) -> None:
    made = await office.endpoint(HOOKS, event_types=["a.b"], description="the shop")
    assert (made["description"], made["enabled"], made["header_names"]) == ("the shop", True, [])
    path = f"/v1/webhook-endpoints/{made['id']}"
    changes = {
        "url": "https://shop.example.com/new",
        "event_types": ["transfer.*", "a.b", "a.b"],
        "description": "the new shop",
        "headers": {"X-Shop": "7"},
    }
    status, changed = await office.call("PATCH", path, changes)
    assert status == 200
    assert changed == await office.get(path)
    assert changed["url"] == changes["url"]
    assert changed["event_types"] == ["a.b", "transfer.*"]
    assert changed["description"] == "the new shop"
    assert changed["header_names"] == ["X-Shop"]
    # Fields that are left out stay as they are.
    status, again = await office.call("PATCH", path, {"enabled": False})
    assert again == changed | {
        "enabled": False,
        "disabled_at": again["disabled_at"],
        "disabled_reason": "by_owner",
        "revision": changed["revision"] + 1,
    }
    status, again = await office.call("PATCH", path, {"event_types": [], "headers": {}, "enabled": True})
    assert (status, again["event_types"], again["header_names"], again["disabled_at"]) == (200, [], [], None)
    assert (await office.call("PATCH", path, {}))[1] == again


@pytest.mark.shared
@pytest.mark.parametrize(
    "change",
    [
        {"url": "https://10.0.0.1/"}, {"url": ""}, {"url": 5}, {"event_types": ["a b"]}, {"event_types": ["*.a"]},
        {"event_types": ["a*"]}, {"event_types": ["a.*.b"]}, {"event_types": [""]}, {"event_types": ["a"] * 101},
        {"event_types": ["a" * 101]}, {"description": "x" * 501}, {"enabled": "yes"}, {"secret": "x"}, {"nonsense": 1},
        {"headers": {"Host": "inside"}}, {"headers": {"content-LENGTH": "0"}}, {"headers": {"Webhook-Id": "1"}},
        {"headers": {"Webhook_Id": "1"}}, {"headers": {"webhook.signature": "1"}},
        {"headers": {"X_Webhook-Signature": "1"}},
        {"headers": {"Content_Type": "1"}},
        {"headers": {"X-Delivery_Id": "1"}}, {"headers": {"X-A": "1", "X_A": "2"}},
        {"headers": {"X-Webhook-Sign": "1"}}, {"headers": {"X-Delivery-ID": "1"}}, {"headers": {"User-Agent": "x"}},
        {"headers": {"Transfer-Encoding": "chunked"}}, {"headers": {"Proxy-Authorization": "x"}},
        {"headers": {"Bad Name": "1"}}, {"headers": {"": "1"}}, {"headers": {"X-\u00e9": "1"}},
        {"headers": {"X:": "1"}},
        {"headers": {"X": ""}}, {"headers": {"X": " padded "}}, {"headers": {"X": "\u00e9"}}, {"headers": {"X": 5}},
        {"headers": {"X": "x" * 1025}}, {"headers": {"X-A": "1", "x-a": "2"}},
        {"headers": {f"X-{number}": "1" for number in range(17)}},
        {"headers": {f"X-{number}": "x" * 1000 for number in range(5)}},
    ],
)  # fmt: skip
async def test_what_cannot_be_set(office: Office, change: dict[str, object]) -> None:
    made = await office.endpoint(HOOKS)
    status, problem = await office.call("PATCH", f"/v1/webhook-endpoints/{made['id']}", change)
    assert (status, problem["error"]["code"]) == (400, "invalid_request")
    if "enabled" not in change and "nonsense" not in change and "secret" not in change:
        status, problem = await office.call("POST", "/v1/webhook-endpoints", {"url": HOOKS} | change)
        assert (status, problem["error"]["code"]) == (400, "invalid_request")
    assert len((await office.get("/v1/webhook-endpoints"))["data"]) == 1


@pytest.mark.shared
@pytest.mark.parametrize("value", ["a\r\nX-Injected: 1", "a\nb", "a\x00b", "a\x7fb"])
async def test_a_header_cannot_bring_another(office: Office, value: str) -> None:
    status, problem = await office.call(
        "POST", "/v1/webhook-endpoints", {"url": HOOKS, "headers": {"X-A": value}}
    )
    assert (status, problem["error"]["code"]) == (400, "invalid_request")


@pytest.mark.shared
@pytest.mark.parametrize(
    "body",
    [{"overlap_seconds": -1}, {"overlap_seconds": 604_801}, {"secret": "short"}, {"secret": 5}, {"x": 1}],
)
async def test_a_rotation_that_makes_no_sense(office: Office, body: dict[str, object]) -> None:
    made = await office.endpoint(HOOKS)
    problem = await office.post(f"/v1/webhook-endpoints/{made['id']}/secret/rotate", body, status=400)
    assert problem["error"]["code"] == "invalid_request"


async def test_another_principals_endpoint_is_not_there(office: Office, open_office: OpenOffice) -> None:
    made = await office.endpoint(HOOKS)
    other = await open_office("another shop")
    for endpoint_id in (made["id"], str(uuid.uuid4())):
        path = f"/v1/webhook-endpoints/{endpoint_id}"
        assert (await other.call("PATCH", path, {"enabled": False}))[0] == 404
        assert (await other.call("POST", f"{path}/secret/rotate", {}))[0] == 404
        assert (await other.call("POST", f"{path}/test"))[0] == 404
    assert await office.get(f"/v1/webhook-endpoints/{made['id']}") == {
        name: value for name, value in made.items() if name != "secret"
    }


async def test_a_fifth_secret_within_one_overlap_is_refused(office: Office) -> None:
    made = await office.endpoint(HOOKS)
    path = f"/v1/webhook-endpoints/{made['id']}/secret/rotate"
    for _ in range(3):
        await office.post(path, {"overlap_seconds": 3600}, status=200)
    before = await office.sql("SELECT secrets FROM webhook_endpoints WHERE id = $1", uuid.UUID(made["id"]))
    status, problem = await office.call("POST", path, {"overlap_seconds": 3600})
    assert (status, problem["error"]["code"]) == (409, "too_many_secrets")
    assert before == await office.sql(
        "SELECT secrets FROM webhook_endpoints WHERE id = $1", uuid.UUID(made["id"])
    )
    status, _ = await office.call("POST", f"/v1/webhook-endpoints/{uuid.uuid4()}/secret/rotate", {})
    assert status == 404
    # A leaked secret ends at once, whatever counts; and the end of an overlap makes room.
    await office.post(path, {"overlap_seconds": 0}, status=200)
    for _ in range(3):
        await office.post(path, {"overlap_seconds": 3600}, status=200)
    await office.sql("UPDATE webhook_endpoints SET old_secrets_until = now()")
    await office.post(path, {"overlap_seconds": 3600}, status=200)


async def test_an_endpoint_gets_its_events_though_the_clock_was_moved_back(
    office: Office, receiver: Receiver
) -> None:
    await office.emit("too.early")
    await office.listen(receiver)
    # The endpoint was made at a time that the database's clock has yet to reach again.
    owner = await asyncpg.connect(str(office.service.settings.database_url))
    await owner.execute("UPDATE webhook_endpoints SET created_at = now() + interval '2 h'")
    await owner.close()
    await office.emit("just.now")
    await office.deliver()
    assert [delivery["type"] for delivery in await office.deliveries()] == ["just.now"]
