"""A URL that has to prove itself: what is sent to it, what counts as proof, and what it gets before that."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from aiohttp import web

from core.outbox import challenge as challenge_module
from tests.core.outbox.office import Office, OpenOffice, OpenReceiver, says
from tests.jobs.merchant import Receiver


async def as_text(request: web.Request) -> web.Response:
    return web.Response(text=json.loads(await request.read())["data"]["challenge"] + "\n")


async def as_json(request: web.Request) -> web.Response:
    return web.json_response({"challenge": json.loads(await request.read())["data"]["challenge"]}, status=201)


async def with_an_error(request: web.Request) -> web.Response:
    return web.Response(status=500, text=json.loads(await request.read())["data"]["challenge"])


async def too_late(request: web.Request) -> web.Response:
    return web.Response(text="x" * 20_000 + json.loads(await request.read())["data"]["challenge"])


def state(endpoint: dict[str, Any]) -> tuple[bool, str | None, bool]:
    return endpoint["enabled"], endpoint["disabled_reason"], endpoint["verified_at"] is not None


@pytest.mark.parametrize("echo", [as_text, as_json])
async def test_a_url_that_echoes_is_on_at_once(office: Office, receiver: Receiver, echo: Any) -> None:
    receiver.answers.append(echo)
    endpoint = await office.listen(receiver, verify=True, headers={"X-Shop": "7"}, signature="v1a")
    assert state(endpoint) == (True, None, True)
    (sent,) = receiver.deliveries
    receiver.verify(sent)
    assert sent.headers["X-Shop"] == "7"
    assert sent.event == {
        "type": "webhook.challenge",
        "data": {"endpoint": endpoint["id"], "challenge": sent.event["data"]["challenge"]},
    }
    assert len(sent.event["data"]["challenge"]) >= 40
    await office.emit("a.b")
    await office.deliver()
    assert receiver.deliveries[1].event["type"] == "a.b"


@pytest.mark.parametrize(
    "answer",
    [says(200, "thanks"), says(200), says(200, "[]"), says(302, Location="/"), with_an_error, too_late],
)
async def test_a_url_that_does_not_echo_stays_off(office: Office, receiver: Receiver, answer: Any) -> None:
    receiver.answers.append(answer)
    endpoint = await office.listen(receiver, verify=True)
    assert state(endpoint) == (False, "unverified", False)
    assert len(receiver.deliveries) == 1, "one try, and no redirect is followed"


async def test_its_events_are_kept_until_it_has_proven_itself(office: Office, receiver: Receiver) -> None:
    since = (datetime.now(UTC) - timedelta(seconds=1)).isoformat()
    receiver.answers.append(says(404))
    endpoint = await office.listen(receiver, verify=True)
    path = f"/v1/webhook-endpoints/{endpoint['id']}"
    await office.emit("a.kept")
    await office.deliver()
    assert len(receiver.deliveries) == 1
    assert [row["last_error"] for row in await office.deliveries("?state=failed")] == ["endpoint_disabled"]
    # The endpoint cannot be switched on without the challenge.
    status, problem = await office.call("PATCH", path, {"enabled": True, "description": "x"})
    assert (status, problem["error"]["code"]) == (409, "endpoint_unverified")
    assert (await office.get(path))["description"] == ""
    receiver.answers.append(says(503))
    problem = await office.post(f"{path}/challenge", status=409)
    assert problem["error"]["code"] == "challenge_failed"
    assert "answered 503" in problem["detail"]
    receiver.answers.append(as_json)
    shown = await office.post(f"{path}/challenge", status=200)
    assert state(shown) == (True, None, True)
    challenges = {sent.event["data"]["challenge"] for sent in receiver.deliveries}
    assert len(challenges) == 3, "each try has one of its own"
    assert await office.post(f"{path}/recover", {"since": since}) == {"replayed": 1, "next": None}
    await office.deliver()
    assert receiver.deliveries[-1].event["type"] == "a.kept"


async def test_another_url_has_to_prove_itself_again(
    office: Office, receiver: Receiver, open_receiver: OpenReceiver
) -> None:
    receiver.answers.append(as_text)
    endpoint = await office.listen(receiver, verify=True)
    path = f"/v1/webhook-endpoints/{endpoint['id']}"
    other = await open_receiver()
    status, shown = await office.call("PATCH", path, {"url": receiver.url})
    assert (status, *state(shown)) == (200, True, None, True), "it is the same one"
    status, shown = await office.call("PATCH", path, {"url": other.url})
    assert (status, *state(shown)) == (200, False, "unverified", False)
    other.answers += [as_text]
    status, shown = await office.call("PATCH", path, {"url": other.url + "?2"})
    assert (status, *state(shown)) == (200, True, None, True)
    assert len(receiver.deliveries) == 1
    assert len(other.deliveries) == 2


async def test_it_is_asked_for_later_and_given_up(office: Office, receiver: Receiver) -> None:
    endpoint = await office.listen(receiver)
    assert (endpoint["verify"], *state(endpoint)) == (False, True, None, False)
    path = f"/v1/webhook-endpoints/{endpoint['id']}"
    receiver.answers.append(says(200))
    status, shown = await office.call("PATCH", path, {"verify": True})
    assert (status, *state(shown)) == (200, False, "unverified", False)
    status, shown = await office.call("PATCH", path, {"verify": False, "enabled": True})
    assert (status, *state(shown)) == (200, True, None, False)
    # A URL that has echoed a challenge before need not do it again.
    receiver.answers.append(as_text)
    await office.post(f"{path}/challenge", status=200)
    status, shown = await office.call("PATCH", path, {"verify": True})
    assert (status, *state(shown)) == (200, True, None, True)
    assert len(receiver.deliveries) == 2


async def test_what_its_owner_has_switched_off_stays_off(office: Office, receiver: Receiver) -> None:
    receiver.answers.append(says(404))
    endpoint = await office.listen(receiver, verify=True)
    path = f"/v1/webhook-endpoints/{endpoint['id']}"
    await office.call("PATCH", path, {"enabled": False})
    receiver.answers.append(as_text)
    assert state(await office.post(f"{path}/challenge", status=200)) == (False, "by_owner", True)
    status, shown = await office.call("PATCH", path, {"enabled": True})
    assert (status, *state(shown)) == (200, True, None, True)


async def test_the_proof_of_a_url_is_none_of_the_next_one(office: Office, receiver: Receiver) -> None:
    """The URL is changed while the challenge to the one before it is under way."""
    receiver.answers.append(says(404))
    endpoint = await office.listen(receiver, verify=True)
    path = f"/v1/webhook-endpoints/{endpoint['id']}"

    async def change_and_echo(request: web.Request) -> web.Response:
        await office.call("PATCH", path, {"url": "http://127.0.0.1:1/closed"})
        return await as_text(request)

    receiver.answers.append(change_and_echo)
    problem = await office.post(f"{path}/challenge", status=409)
    assert problem["error"]["code"] == "challenge_failed"
    assert state(await office.get(path)) == (False, "unverified", False)


async def test_a_challenge_goes_only_where_deliveries_may_go_and_is_its_owners(
    office: Office, open_office: OpenOffice, receiver: Receiver
) -> None:
    endpoint = await office.endpoint("http://127.0.0.1:1/closed", verify=True)
    assert state(endpoint) == (False, "unverified", False)
    path = f"/v1/webhook-endpoints/{endpoint['id']}"
    problem = await office.post(f"{path}/challenge", status=409)
    assert "ClientConnectorError" in problem["detail"]
    await office.sql("UPDATE webhook_endpoints SET url = 'http://169.254.169.254/latest'")
    problem = await office.post(f"{path}/challenge", status=409)
    assert "not a public one" in problem["detail"]
    other = await open_office("another shop")
    assert (await other.call("POST", f"{path}/challenge"))[0] == 404


async def test_no_transaction_is_open_while_a_challenge_is_under_way(
    office: Office, receiver: Receiver
) -> None:
    busy: list[Any] = []

    async def look(request: web.Request) -> web.Response:
        busy.extend(
            await office.sql(
                "SELECT query FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
                " AND state LIKE 'idle in transaction%'"
            )
        )
        return await as_text(request)

    receiver.answers.append(look)
    assert state(await office.listen(receiver, verify=True)) == (True, None, True)
    assert busy == []


def test_the_challenge_fits_into_what_is_read_of_an_answer() -> None:
    assert challenge_module.CHALLENGE_BYTES * 2 < 1024
