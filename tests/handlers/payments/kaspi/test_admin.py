"""Configs and the log of the Kaspi contract, its own port, and those who may call."""

import asyncio
import re
from typing import Any

import pytest

from core.payments.reconciling import reconcile
from core.settings import Settings
from handlers.app import LISTENERS
from handlers.http.parts import Parts
from handlers.payments.kaspi.routes import KASPI
from handlers.payments.kaspi.surface import trusting
from tests.handlers.payments.kaspi.conftest import ACCESS, ADMIN, BIN, DEVICE, Stand, standing

pytestmark = pytest.mark.shared

NAIVE = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{6})?"


async def test_the_config_of_a_shop(stand: Stand) -> None:
    body = {"shop_id": 901, "organization_bin": BIN, "device_token": DEVICE, "description": "ignored"}
    status, config = await stand.call("POST", "/admin/configs", body)
    assert status == 200
    times = [config.pop(name) for name in ("created_at", "updated_at")]
    assert all(re.fullmatch(NAIVE, moment) for moment in times)
    assert isinstance(config.pop("id"), int)
    known = {"organization_bin": BIN, "device_token": DEVICE, "is_active": True, "provider": "kaspi"}
    assert config == {"shop_id": 901, **known}
    (stored,) = await stand.owner.fetchrow("SELECT device_token FROM kaspi_configs WHERE shop_id = 901")
    assert stored.startswith("sealed:v1:")
    assert DEVICE not in stored
    assert await stand.call("POST", "/admin/configs", body) == (
        400,
        {"detail": "Config already exists for shop_id=901"},
    )
    for changes, expected in (
        ({"provider": "site", "description": "x"}, {**known, "provider": "site"}),
        ({"device_token": None}, {**known, "provider": "site", "device_token": None}),
        ({"is_active": False}, {**known, "provider": "site", "device_token": None, "is_active": False}),
        ({}, {**known, "provider": "site", "device_token": None, "is_active": False}),
    ):
        status, config = await stand.call("PUT", "/admin/configs/901", changes)
        assert (status, {name: config[name] for name in known}) == (200, expected)
        assert await stand.call("GET", "/admin/configs/901") == (200, config)
    for _ in range(2):
        assert await stand.call("DELETE", "/admin/configs/901") == (
            200,
            {"message": "Config deactivated for shop_id=901"},
        )
    for method, path in (("GET", "902"), ("PUT", "902"), ("DELETE", "902")):
        status, told = await stand.call(method, f"/admin/configs/{path}", {} if method == "PUT" else None)
        assert (status, told) == (404, {"detail": "Config not found for shop_id=902"})
    acts = await stand.owner.fetch("SELECT type, data::text FROM audit_events WHERE object_id = 'shop:901'")
    assert {row["type"] for row in acts} == {"kaspi.config.add", "kaspi.config.change"}
    assert not [row for row in acts if DEVICE in row["data"]]
    # Two at the same time are one config, and one refusal.
    twins = await asyncio.gather(
        *(stand.call("POST", "/admin/configs", body | {"shop_id": 903}) for _ in range(2))
    )
    assert sorted(status for status, _ in twins) == [200, 400]


FAULTS: list[tuple[str, str, Any, list[Any]]] = [
    ("POST", "/admin/configs", {}, ["body", "shop_id"]),
    ("POST", "/admin/configs", {"shop_id": 2**31, "organization_bin": BIN}, ["body", "shop_id"]),
    ("POST", "/admin/configs", {"shop_id": 1, "organization_bin": "12345678901"}, ["body", "organization_bin"]),
    ("POST", "/admin/configs", {"shop_id": 1, "organization_bin": f"{BIN}0"}, ["body", "organization_bin"]),
    ("POST", "/admin/configs", {"shop_id": 1, "organization_bin": "97124000131x"}, ["body", "organization_bin"]),
    (
        "POST", "/admin/configs",
        {"shop_id": 1, "organization_bin": BIN, "device_token": DEVICE * 5}, ["body", "device_token"],
    ),
    ("PUT", "/admin/configs/1", {"is_active": None}, ["body", "is_active"]),
    ("PUT", "/admin/configs/1", {"organization_bin": None}, ["body", "organization_bin"]),
    ("PUT", "/admin/configs/1", {"provider": None}, ["body", "provider"]),
    ("PUT", "/admin/configs/1", {"provider": "\x00"}, ["body", "provider"]),
    ("GET", "/admin/configs/x", None, ["path", "shop_id"]),
    ("GET", "/admin/logs?limit=-1", None, ["query", "limit"]),
    ("GET", "/admin/logs?skip=-1", None, ["query", "skip"]),
    ("GET", "/admin/logs?shop_id=x", None, ["query", "shop_id"]),
    ("GET", "/api/payment/config", None, ["query", "shop_id"]),
]  # fmt: skip


async def test_what_does_not_fit_is_a_422_with_its_place(stand: Stand) -> None:
    for method, path, body, place in FAULTS:
        status, told = await stand.call(method, path, body)
        assert (status, told["detail"][0]["loc"]) == (422, place), (path, body)
        assert DEVICE not in str(told)


async def test_several_shops_of_one_organization(stand: Stand) -> None:
    number = "210440028324"
    shops = [await stand.shop(organization_bin=number) for _ in range(3)]
    path, label = f"/admin/configs/by-bin/{number}", "\u0411\u0418\u041d"
    for shop in shops:
        assert (await stand.call("GET", path))[1]["shop_id"] == shop
        await stand.call("DELETE", f"/admin/configs/{shop}")
    assert await stand.call("GET", path) == (403, {"detail": f"Config for {label}={number} is inactive"})
    assert await stand.call("GET", "/admin/configs/by-bin/1") == (
        404,
        {"detail": f"Config not found for {label}=1"},
    )
    _, every = await stand.call("GET", "/admin/configs")
    assert [one["shop_id"] for one in every if one["organization_bin"] == number] == shops


async def test_a_row_for_each_look_of_the_job(stand: Stand) -> None:
    shop = await stand.shop()
    created = (await stand.create(shop))[1]["external_id"]
    link = {"shop_id": shop, "amount": 5, "message": "m"}
    linked = (await stand.call("POST", "/payments/kaspi/create-link", link))[1]["payment_id"]

    async def look() -> None:
        await stand.owner.execute(
            "UPDATE payment_attempts SET next_look_at = now() WHERE next_look_at > now()"
        )
        await reconcile(stand.payments)

    await look()
    stand.proxy.troubles.after += ["reset"] * 8
    await look()
    stand.proxy.troubles.after.clear()
    stand.proxy.words |= {created: "Processed", linked: "Error"}
    await look()
    await look()  # both have ended, so nobody asks any more
    rows = [row for row in await stand.log(shop) if row[0] == "status"]
    for name, amount, end in ((created, 199_050, "Processed"), (linked, 500, "Error")):
        found = [row for row in rows if row[1] == name]
        assert [(row[2], row[3]) for row in found] == [(amount, "Wait"), (amount, "error"), (amount, end)]
        assert [bool(row[4]) for row in found] == [False, True, False]
        assert ACCESS not in str(found)
    assert (await stand.call("GET", f"/payments/kaspi/status/{linked}"))[1]["status"] == "Error"


async def test_a_shop_that_was_switched_off_is_still_asked_for(stand: Stand) -> None:
    shop = await stand.shop()
    paid = await stand.paid(shop, message="paid")
    external_id = (await stand.create(shop))[1]["external_id"]
    # Another organization takes the shop over; what was paid to the first one is given back by it.
    await stand.call("PUT", f"/admin/configs/{shop}", {"organization_bin": "123456789012"})
    status, told = await stand.refund(shop, paid, 1)
    assert (status, told["organization_bin"]) == (200, BIN)
    assert stand.proxy.asked("refund") == [{"externalId": paid, "amount": "1.0", "organizationBin": BIN}]
    await stand.call("DELETE", f"/admin/configs/{shop}")
    stand.proxy.words[external_id] = "Processed"
    _, told = await stand.call("GET", f"/payments/kaspi/status/{external_id}")
    assert told["status"] == "Processed"
    assert (await stand.refund(shop, paid, 2))[0] == 403


async def test_rows_are_filtered_and_bounded(stand: Stand) -> None:
    shop = await stand.shop()
    for number in range(3):
        body = {"shop_id": shop, "operation_type": "callback", "external_id": str(number), "amount": 5}
        status, row = await stand.call("POST", "/api/payment/log", body)
        assert (status, row["organization_bin"], row["provider"]) == (200, BIN, "kaspi")
        assert re.fullmatch(NAIVE, row["created_at"])
    await stand.create(shop)

    async def found(query: str) -> list[str | None]:
        status, rows = await stand.call("GET", f"/admin/logs?shop_id={shop}{query}")
        assert status == 200
        return [row["external_id"] if row["operation_type"] == "callback" else "paid" for row in rows]

    assert await found("") == ["paid", "2", "1", "0"]
    assert await found("&operation_type=callback&limit=2&skip=1&other=x") == ["1", "0"]
    assert await found("&operation_type=&limit=999999999999") == ["paid", "2", "1", "0"]
    assert await found("&limit=0") == []
    _, every = await stand.call("GET", "/admin/logs?shop_id=0&limit=2")
    assert len(every) == 2
    assert await stand.call("GET", f"/api/payment/config?shop_id={shop}") == (
        200,
        {"shop_id": shop, "organization_bin": BIN, "is_active": True, "provider": "kaspi"},
    )
    assert (await stand.call("GET", "/api/payment/config?shop_id=999999"))[0] == 404
    (kept,) = await stand.owner.fetchrow("SELECT count(*) FROM kaspi_log WHERE shop_id = $1", shop)
    assert kept == 4


@pytest.mark.alone
async def test_the_port_answers_as_the_service_before(stand: Stand) -> None:
    endpoints = {"payments": "/payments/kaspi", "admin": "/admin"}
    index = {"service": "Payment Service", "version": "1.0.0", "docs": "/docs", "health": "/health"}
    health = {"status": "ok", "service": "payment-service", "version": "1.0.0"}
    for path, told in (
        ("/", {**index, "endpoints": endpoints}),
        ("/health", health),
        ("/api/health", health),
    ):
        assert await stand.call("GET", path) == (200, told)
    assert await stand.call("GET", "/nowhere") == (404, {"detail": "Not Found"})
    assert await stand.call("POST", "/admin/migrate") == (
        200,
        {"message": "Migrations executed successfully"},
    )
    response = await stand.port.get("/admin/logs/", allow_redirects=False)
    assert (response.status, response.headers["Location"]) == (307, "/admin/logs")
    await stand.owner.execute("DELETE FROM schema_migrations WHERE name LIKE '%0036%'")
    status, told = await stand.call("POST", "/admin/migrate")
    assert (status, told["detail"][:18]) == (500, "Migration failed: ")


PLACES = {
    "shop_id": "1", "organization_bin": BIN, "external_id": "1",
}  # fmt: skip


@pytest.mark.parametrize(
    ("env", "networks", "admin", "payments"),
    [
        ("dev", "127.0.0.0/8", "open", "open"),
        ("dev", "", "token", "key"),
        ("test", "192.0.2.0/24", "token", "key"),
    ],
)
async def test_who_may_call(
    settings: Settings, api_key: Any, env: str, networks: str, admin: str, payments: str
) -> None:
    """Every route on both ports: without anything, with the admin token, with keys of each scope."""
    keys = {scope: await api_key(scope) for scope in ("kaspi:read", "kaspi:write", "accounts:read")}
    async with standing(
        settings, env=env, trusted_networks=networks, outbound_allow_hosts="127.0.0.0/8"
    ) as stand:
        contract = next(iter(LISTENERS["kaspi_port"].surfaces)).routes
        for client, routes, own in ((stand.port, contract, True), (stand.beside, KASPI.routes, False)):
            for route in routes:
                path = route.path.format_map(PLACES)

                async def status(
                    headers: dict[str, str], client: Any = client, route: Any = route, path: str = path
                ) -> int:
                    async with client.request(route.method, path, headers=headers) as response:
                        return int(response.status)

                rule = admin if route.admin else payments if route.scope else "open"
                rule = rule if own or not (route.admin or route.scope) else "token" if route.admin else "key"
                assert ((await status({})) != 401) is (rule == "open"), route.path
                assert (await status({"X-Forwarded-For": "192.0.2.7"}) == 401) is bool(
                    route.admin or route.scope
                )
                if route.admin:
                    assert await status(ADMIN) not in {401, 403}, route.path
                    assert (await status({"X-Admin-Token": "wrong"}) == 401) is (rule == "token")
                if route.scope:
                    for scope, key in keys.items():
                        expected = {401, 403} if scope != route.scope and rule == "key" else set()
                        found = await status({"Authorization": f"Bearer {key}"})
                        assert found in expected or (not expected and found not in {401, 403}), (
                            route.path,
                            scope,
                        )


async def test_a_strange_page_in_a_trusted_browser_is_not_trusted(settings: Settings) -> None:
    async with standing(settings, allowed_origins=" http://a.test , http://b.test/, *") as stand:
        for origin, status in (("http://B.test", 200), ("http://evil.test", 401), ("null", 401), ("*", 401)):
            for path in ("/admin/configs", "/payments/kaspi/status/1"):
                assert ((await stand.call("GET", path, Origin=origin))[0] == 401) is (status == 401), origin


async def test_production_trusts_nobody_with_administration(settings: Settings) -> None:
    for env, admin in (("dev", True), ("test", True), ("prod", False)):
        parts = Parts(settings.model_copy(update={"env": env}))
        by_kind = {bool(route.admin): trusting(route, parts, own_port=True) for route in KASPI.routes}
        assert by_kind == {True: admin, False: True}
        assert not any(trusting(route, parts, own_port=False) for route in KASPI.routes)
