"""Payments of the Kaspi contract, call by call, as its clients send them."""

import asyncio
import json
import re
from pathlib import Path
from typing import Any
from uuid import UUID

import aiohttp
import pytest
from aiohttp import ClientSession

from core.payments.kaspi.configs import terms
from core.payments.payments import NewPayment
from core.providers.protocol import Method
from core.settings import Settings
from core.vault import Vault
from handlers.simulator.site import Simulator as Server
from tests.core.providers.scenes import UNKNOWABLE, serving
from tests.handlers.payments.kaspi.conftest import ACCESS, BIN, DEVICE, Stand, standing

pytestmark = pytest.mark.shared

MERCHANT = {"organizationBin": BIN, "deviceToken": DEVICE}
REFUSAL = {"status": False, "data": {"errors": {"-1601": "Client not found", "-2": "x"}}, "http_code": 200}
POOR = {"status": False, "data": {"errors": {"-99000005": "Insufficient funds on the account"}}}


async def test_a_payment_from_the_phone_to_the_refund(stand: Stand) -> None:
    shop = await stand.shop()
    status, told = await stand.create(shop, amount=19.99)
    external_id = told["external_id"]
    assert (status, told) == (
        200,
        {
            "success": True,
            "external_id": external_id,
            "status": "Wait",
            "organization_bin": BIN,
            "error": None,
        },
    )
    assert external_id.isdecimal()
    for path in (
        f"/payments/kaspi/status/{external_id}",
        f"/payments/kaspi/status?external_id={external_id}",
    ):
        assert await stand.call("GET", path) == (
            200,
            {"success": True, "external_id": external_id, "status": "Wait", "error": None},
        )
    stand.proxy.words[external_id] = "Processed"
    # The refund looks for itself whether the payment was paid since.
    assert await stand.refund(shop, external_id, 5) == (
        200,
        {
            "success": True,
            "external_id": external_id,
            "refunded_amount": 5.0,
            "organization_bin": BIN,
            "error": None,
        },
    )
    asked = {"phone": "+7 701 123 45 67", "amount": "19.99", "message": "Order 1", **MERCHANT}
    refunded = {"externalId": external_id, "amount": "5.0", **MERCHANT}
    assert (stand.proxy.asked("create"), stand.proxy.asked("refund")) == ([asked], [refunded])
    assert await stand.log(shop) == [
        ("create", external_id, 1_999, "Wait", None),
        ("refund", external_id, 500, "success", None),
    ]
    (balance,) = await stand.owner.fetchrow(
        "SELECT sum(e.amount)::bigint FROM entries AS e INNER JOIN accounts AS a ON e.account_id = a.id"
        " WHERE a.code = 'system:payments_collected:KZT'"
    )
    assert balance == 1_499
    # The end is known, so the bank is not asked any more.
    questions = len(stand.proxy.asked("status"))
    _, told = await stand.call("GET", f"/payments/kaspi/status/{external_id}")
    assert (told["status"], len(stand.proxy.asked("status"))) == ("Processed", questions)


async def test_a_link(stand: Stand) -> None:
    shop = await stand.shop()
    body = {"shop_id": shop, "amount": 100, "message": "Two teas"}
    _, told = await stand.call("POST", "/payments/kaspi/create-link", body)
    name = told["payment_id"]
    assert told == {
        "success": True,
        "payment_link": f"https://pay.kaspi.kz/pay/{name}",
        "payment_id": name,
        "expire_date": "2026-11-29T17:10:50.717+05:00",
        "organization_bin": BIN,
        "error": None,
    }
    assert stand.proxy.asked("create-link") == [{"amount": "100.0", "message": "Two teas", **MERCHANT}]
    # Within a minute the same order is the same link; afterwards it is for somebody else.
    assert (await stand.call("POST", "/payments/kaspi/create-link", body))[1] == told
    await stand.owner.execute("UPDATE payments SET created_at = created_at - interval '61 seconds'")
    assert (await stand.call("POST", "/payments/kaspi/create-link", body))[1]["payment_id"] != name
    # Nobody has a link whose answer was lost, so the next try makes another one.
    stand.proxy.troubles.after += ["reset"]
    lost = body | {"message": "Lost"}
    status, refused = await stand.call("POST", "/payments/kaspi/create-link", lost)
    assert (status, refused["detail"][:22]) == (503, "Max retries exceeded: ")
    assert (await stand.call("POST", "/payments/kaspi/create-link", lost))[0] == 200
    bare = await stand.shop(device_token=None)
    assert await stand.call("POST", "/payments/kaspi/create-link", body | {"shop_id": bare}) == (
        400,
        {"detail": f"Device token not configured for shop_id={bare}. Payment links require device token."},
    )
    rows = await stand.log(shop)
    assert [(row[0], row[3]) for row in rows] == [
        ("create-link", "QrTokenCreated"),
        ("create-link", "QrTokenCreated"),
        ("create-link", "Wait"),
        ("create-link", "QrTokenCreated"),
    ]


async def test_an_identical_order_is_the_open_one(stand: Stand) -> None:
    shop, other = await stand.shop(), await stand.shop()
    answers = await asyncio.gather(*(stand.create(shop) for _ in range(64)))
    (first,) = {told["external_id"] for _, told in answers}
    assert len(stand.proxy.asked("create")) == 1
    assert (await stand.create(other))[1]["external_id"] != first
    for changed in ({"amount": 1_990.51}, {"message": "Order 2"}, {"phone": "+77011234568"}):
        assert (await stand.create(shop, **changed))[1]["external_id"] != first
    for days, same in ((0, True), (2, False)):
        await stand.owner.execute(
            "UPDATE payments SET created_at = created_at - make_interval(days => $1)", days
        )
        assert ((await stand.create(shop))[1]["external_id"] == first) is same
    # A payment that has ended is never given for a new order.
    ended = await stand.paid(shop)
    assert (await stand.create(shop))[1]["external_id"] != ended


@pytest.mark.parametrize("trouble", [*UNKNOWABLE, "503"])
async def test_a_lost_answer_leaves_the_payment_open_and_is_asked_for_once(
    stand: Stand, trouble: str
) -> None:
    shop = await stand.shop()
    stand.proxy.troubles.after += [trouble]
    tries = [await stand.create(shop) for _ in range(4)]
    unreadable = trouble in {"html", "cut"}
    if trouble == "html":
        status, told = tries.pop(0)
        assert (status, told["code"], told["detail"]) == (
            502,
            "kaspi_unreadable",
            "kaspi's answer cannot be read.",
        )
    told = tries[0][1]
    assert all(one == (200, told) for one in tries)
    assert told["status"] == "Wait"
    assert str(UUID(told["external_id"])) == told["external_id"]
    _, later = await stand.call("GET", f"/payments/kaspi/status/{told['external_id']}")
    assert later == {
        "success": True,
        "external_id": told["external_id"],
        "status": "Wait",
        "error": None,
    }
    assert len(stand.proxy.calls) == 1
    (row,) = await stand.log(shop)
    assert row[:4] == ("create", told["external_id"], 199_050, "Wait")
    assert row[4]
    assert unreadable or "read" not in row[4]
    assert (await stand.refund(shop, told["external_id"], 1))[0] == 400


UNREADABLE: list[Any] = [b"[]", b"{", {"status": True, "data": None}, {"status": True, "data": []}]


async def test_an_answer_that_makes_no_sense_is_a_502_and_one_row(stand: Stand) -> None:
    shop = await stand.shop()
    external_id = await stand.paid(shop)
    opened = (await stand.create(shop, message="open"))[1]["external_id"]
    before = len(await stand.log(shop))
    for no, answer in enumerate([*UNREADABLE, {"status": False, "data": {"errors": ["no"]}}], 1):
        stand.proxy.answers = dict.fromkeys(("create", "create-link", "status", "refund"), answer)
        link = {"shop_id": shop, "amount": no, "message": "link"}
        for call in (
            stand.create(shop, message=f"other {no}"),
            stand.call("POST", "/payments/kaspi/create-link", link),
            stand.call("GET", f"/payments/kaspi/status/{opened}"),
            stand.refund(shop, external_id, no),
        ):
            status, told = await call
            assert (status, told["type"]) == (502, "/problems/kaspi_unreadable"), (answer, told)
            before += 1
            assert len(await stand.log(shop)) == before


async def test_a_refusal_of_the_bank(stand: Stand) -> None:
    shop = await stand.shop()
    paid = await stand.paid(shop, message="paid")
    opened = (await stand.create(shop, message="open"))[1]["external_id"]
    said = "Client not found (code: -1601)"
    stand.proxy.answers = dict.fromkeys(("create", "create-link", "status", "refund"), REFUSAL)
    assert await stand.create(shop) == (500, {"detail": f"Failed to create payment: {said}"})
    link = {"shop_id": shop, "amount": 100, "message": "x"}
    assert await stand.call("POST", "/payments/kaspi/create-link", link) == (
        500,
        {"detail": f"Failed to create payment link: {said}"},
    )
    assert await stand.call("GET", f"/payments/kaspi/status/{opened}") == (
        500,
        {"detail": f"Failed to check status: {said}"},
    )
    assert (await stand.refund(shop, opened, 1))[0] == 500  # whether it was paid is not known
    assert await stand.refund(shop, paid, 1) == (500, {"detail": f"Failed to refund: {said}"})
    stand.proxy.answers["refund"] = POOR
    assert await stand.refund(shop, paid, 1) == (
        400,
        {"detail": "Failed to refund: Insufficient funds on the account (code: -99000005)"},
    )
    rows = await stand.log(shop)
    assert rows[2:5] == [
        ("create", None, 199_050, "error", said),
        ("create-link", None, 10_000, "error", said),
        ("refund", paid, 100, "error", said),
    ]
    # A refused refund gave nothing back, so it may be asked for again.
    stand.proxy.answers = {}
    assert (await stand.refund(shop, paid, 1))[0] == 200


@pytest.mark.parametrize("trouble", ["busy", "401", "away"])
async def test_a_bank_that_was_not_reached_was_asked_for_nothing(stand: Stand, trouble: str) -> None:
    shop = await stand.shop()
    paid = await stand.paid(shop, message="paid")
    if trouble == "away":
        kaspi = stand.payments.providers["kaspi"]
        kaspi._caller.base_url = "http://127.0.0.1:1"
    else:
        stand.proxy.troubles.before += [trouble] * 2
    for call in (stand.create(shop), stand.refund(shop, paid, 1)):
        status, told = await call
        assert (status, told["detail"][:22]) == (503, "Max retries exceeded: ")
        assert "http" not in told["detail"]
        assert "127.0.0.1" not in told["detail"]
    if trouble != "away":
        assert [told[0] for told in (await stand.create(shop), await stand.refund(shop, paid, 1))] == [
            200
        ] * 2


async def test_a_key_decides_alone(stand: Stand) -> None:
    shop = await stand.shop()
    body = {"shop_id": shop, "amount": 5, "phone": "77011234567", "message": "m"}
    ids = [
        (await stand.call("POST", "/payments/kaspi/create", body, Idempotency_Key=key))[1]["external_id"]
        for key in ("one", "one", "two", "k" * 255, "k" * 255)
    ]
    assert [ids.index(name) for name in ids] == [0, 0, 2, 3, 3]
    # A key is answered before any rule: the shop may be switched off since.
    await stand.call("DELETE", f"/admin/configs/{shop}")
    assert (await stand.call("POST", "/payments/kaspi/create", body, Idempotency_Key="one"))[0] == 200
    status, told = await stand.call(
        "POST", "/payments/kaspi/create", body | {"amount": 6}, Idempotency_Key="one"
    )
    assert (status, told["code"]) == (409, "idempotency_conflict")
    status, told = await stand.call("POST", "/payments/kaspi/create", body, Idempotency_Key="ключ")
    assert (status, told["code"]) == (400, "idempotency_key_invalid")
    assert await stand.call("POST", "/payments/kaspi/create", body) == (
        403,
        {"detail": f"Payment config for shop_id={shop} is inactive"},
    )
    status, told = await stand.create(1_000_000)
    assert (status, told["detail"]) == (
        404,
        "Payment config not found for shop_id=1000000. Please configure payment settings in admin panel.",
    )


async def test_a_payment_of_the_service_before_is_asked_for_at_the_bank(stand: Stand) -> None:
    stand.proxy.words["4711"] = "Processed"
    status, told = await stand.call("GET", "/payments/kaspi/status/4711")
    assert (status, told["status"]) == (200, "Processed")
    stand.proxy.answers["status"] = REFUSAL
    status, told = await stand.call("GET", "/payments/kaspi/status/4711")
    assert (status, told["detail"][:24]) == (500, "Failed to check status: ")


async def test_those_who_ask_at_the_same_time_share_one_question(stand: Stand) -> None:
    shop = await stand.shop()
    _, told = await stand.create(shop)
    path = f"/payments/kaspi/status/{told['external_id']}"
    stand.proxy.troubles.before += ["silence"]  # until the time is over, and then it is asked again
    answers = await asyncio.gather(*(stand.call("GET", path) for _ in range(16)))
    assert {status for status, _ in answers} == {200}
    assert len(stand.proxy.asked("status")) <= 2


AMOUNTS: list[tuple[bytes, int | str]] = [
    (b"19.99", 1_999), (b"4.35", 435), (b"1.15", 115), (b"9.95", 995), (b"2.3", 230), (b"0.01", 1),
    (b'"7.10"', 710), (b"1e2", 10_000), (b"9999999999999.99", 999_999_999_999_999),
    (b"0", "greater_than"), (b"-1", "greater_than"), (b"1.001", "decimal_max_places"),
    (b"0.1000000000000000055", 10), (b"0.30000000000000004", 30), (b"1.005", "decimal_max_places"),
    (b"1e-99999", "decimal_max_places"),
    (b"1e99", "less_than_equal"), (b"10000000000000", "less_than_equal"), (b"true", "float_type"),
    (b"null", "float_type"), (b'"x"', "float_parsing"), (b'"NaN"', "finite_number"), (b"[]", "float_type"),
]  # fmt: skip


async def test_amounts_are_exact(stand: Stand) -> None:
    shop = await stand.shop()
    good = []
    for sent, hundredths in AMOUNTS:
        body = b'{"shop_id": %d, "phone": "77011234567", "message": "", "amount": %s}' % (shop, sent)
        status, told = await stand.call("POST", "/payments/kaspi/create", body)
        if isinstance(hundredths, str):
            (fault,) = told["detail"]
            assert (status, fault["loc"], fault["type"]) == (422, ["body", "amount"], hundredths), sent
        else:
            assert status == 200, told
            good.append(hundredths)
    assert [row[2] for row in await stand.log(shop)] == good


async def test_faults_are_a_list(stand: Stand) -> None:
    status, told = await stand.call("POST", "/payments/kaspi/create", {"shop_id": "x", "phone": "1"})
    assert status == 422
    assert [(fault["type"], fault["loc"]) for fault in told["detail"]] == [
        ("int_parsing", ["body", "shop_id"]),
        ("missing", ["body", "amount"]),
        ("missing", ["body", "message"]),
        ("phone", ["body", "phone"]),
    ]
    for body, place in ((None, ["body"]), (b"{", ["body", 1]), (b"[]", ["body"])):
        status, told = await stand.call("POST", "/payments/kaspi/refund", body)
        assert (status, told["detail"][0]["loc"]) == (422, place)
    status, told = await stand.refund(1, 7, 1)  # type: ignore[arg-type]
    assert (status, told["detail"][0]["type"]) == (422, "string_type")
    status, told = await stand.call("GET", "/payments/kaspi/status")
    assert (status, told["detail"][0]["loc"]) == (422, ["query", "external_id"])
    assert ACCESS not in str(told)


async def test_the_examples_of_the_page_are_answered(stand: Stand) -> None:
    page = (Path(__file__).parents[4] / "docs" / "kaspi.md").read_text()
    calls = re.findall(r"curl(?: -X (\w+))? \$KASPI(/\S+)(?:[^'\n]*-d '([^']*)')?", page.replace("\\\n", ""))
    assert len(calls) == 5
    paid = ""
    for method, path, body in calls:
        sent = {**json.loads(body), "shop_id": 70_007} if body else None
        if sent is not None and "external_id" in sent:
            sent["external_id"] = paid
        status, told = await stand.call(method or "GET", path.replace("15401211", paid), sent)
        assert status == 200, (path, told)
        if path.endswith("/create"):
            paid = told["external_id"]
            stand.proxy.words[paid] = "Processed"


async def test_the_simulator_takes_the_place_of_a_bank_that_is_not_set_up(settings: Settings) -> None:
    """Another surface's payment is nobody's here, even where its caller has the name of a shop."""
    async with (
        serving(Server().application()) as url,
        standing(settings, production_api_url="", simulator_url=url) as stand,
    ):
        shop = await stand.shop()
        status, told = await stand.create(shop, amount=10)
        assert (status, told["status"]) == (200, "Wait")
        # The log has the bank's words for what the simulator calls open, paid and failed.
        for outcome in ("paid", "failed"):
            _, told = await stand.create(shop, amount=10, message=outcome)
            name = told["external_id"]
            async with ClientSession() as session:
                await session.post(f"{url}/v1/payments/{name}/pay", json={"outcome": outcome})
            found = await stand.owner.fetchrow(
                "SELECT payment_id, id FROM payment_attempts WHERE provider_id = $1", name
            )
            await stand.payments.look_at(*found, "reconcile")
        assert [row[3] for row in await stand.log(shop)] == ["Wait", "Wait", "Processed", "Wait", "Error"]
        link = {"shop_id": shop, "amount": 5, "message": "m"}
        status, linked = await stand.call("POST", "/payments/kaspi/create-link", link)
        assert (status, linked["payment_link"][:4]) == (200, "http")
        assert (await stand.call("GET", f"/payments/kaspi/status/{linked['payment_id']}"))[1]["status"] == (
            "QrTokenCreated"
        )
        async with aiohttp.request("PUT", f"{url}/faults", json={"rules": [{"fault": "decline"}]}) as answer:
            assert answer.status == 200
        assert await stand.create(shop, amount=11) == (
            500,
            {"detail": "Failed to create payment: The simulator has declined. (code: declined)"},
        )
        async with aiohttp.request("PUT", f"{url}/faults", json={}) as answer:
            assert answer.status == 200
        new = NewPayment(
            surface="tests", caller=f"shop:{shop}", request_id="r", amount=100, currency="KZT",
            method=Method.PHONE, title="m", reference="r", phone="1",
        )  # fmt: skip
        foreign = (await stand.payments.create(new)).payment
        assert await terms(stand.payments.database, Vault(), foreign) == {}
        status, told = await stand.call("GET", f"/payments/kaspi/status/{foreign.id}")
        assert (status, told) == (404, {"detail": f"Payment not found for external_id={foreign.id}"})
