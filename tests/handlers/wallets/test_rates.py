"""Rate limits of the wallet surface: whose bucket it is, what a refusal looks like, what is set at run time."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from core.settings import Settings
from tests.handlers.wallets.conftest import ADMIN, Person
from tests.handlers.wallets.small_surface import anybody, process, signed_in
from tests.handlers.wallets.test_edges import HEADERS

Wait = Callable[..., Awaitable[Any]]


async def test_limits_of_a_user(settings: Settings) -> None:
    """60 a minute times the boost for each user, whatever their address; nobody else is held up by them."""
    async with process(settings, rate_limit_per_minute=60, rate_limit_auth_boost=2) as client:
        ann, bob = await signed_in(client, settings), await signed_in(client, settings, "+963900000998")
        said = await asyncio.gather(*(ann.get("/wallet") for _ in range(240)))
        statuses = [one.status for one in said]
        assert statuses.count(200) == 120
        limited = next(one for one in said if one.status == 429)
        assert limited.json["error"] == {
            "code": "rate_limited",
            "message": "Too many requests",
            "details": {"retry_after": int(limited.headers["Retry-After"])},
        }
        assert int(limited.headers["Retry-After"]) >= 1
        assert {name: limited.headers[name] for name in HEADERS} == HEADERS
        assert limited.headers["X-Request-ID"]
        assert limited.headers["Content-Type"] == "application/json"
        assert (await bob.get("/wallet")).status == 200


async def test_forged_tokens_share_the_bucket_of_their_address(settings: Settings) -> None:
    """A new text in the header opened a new bucket in the old service: anybody could guess without a limit."""
    async with process(settings, rate_limit_per_minute=60) as client:
        said = await asyncio.gather(
            *(Person(client, None, f"forged-{number}").get("/wallet") for number in range(140))
        )
        statuses = [one.status for one in said]
        assert statuses.count(401) == 60
        assert statuses.count(429) == 140 - statuses.count(401)


async def test_sign_in_has_a_bucket_of_its_own(settings: Settings) -> None:
    """20 a minute from one address; what else comes from there leaves them to it, and the other way round."""
    body = {"amount_cents": 1}
    async with process(settings, rate_limit_per_minute=60) as client:
        somebody = anybody(client)
        await asyncio.gather(*(somebody.get("/small/open") for _ in range(60)))
        said = await asyncio.gather(*(somebody.post("/auth/login", body) for _ in range(45)))
        assert [one.status for one in said].count(200) == 20
        ann = await signed_in(client, settings)
        assert (await ann.get("/wallet")).status == 200


async def test_sign_in_is_never_freer_than_the_rest(settings: Settings) -> None:
    async with process(settings, rate_limit_per_minute=5) as client:
        said = await asyncio.gather(
            *(anybody(client).post("/auth/login", {"amount_cents": 1}) for _ in range(15))
        )
        assert [one.status for one in said].count(200) == 5


@pytest.mark.parametrize(
    ("env", "exempt", "limited"), [("dev", True, False), ("dev", False, True), ("test", True, True)]
)
async def test_codes_are_exempt_in_development(
    settings: Settings,
    env: str,
    exempt: bool,  # noqa: FBT001
    limited: bool,  # noqa: FBT001
) -> None:
    changes = {"env": env, "rl_exempt_otp": exempt, "rate_limit_per_minute": 60}
    async with process(settings, **changes) as client:
        said = await asyncio.gather(
            *(anybody(client).post("/auth/request_otp", {"amount_cents": 1}) for _ in range(30))
        )
        assert (429 in {one.status for one in said}) is limited


async def test_limits_set_at_run_time(settings: Settings) -> None:
    async with process(settings) as client:
        ann = await signed_in(client, settings)
        said = await anybody(client).post(
            "/admin/config/rate_limit", {"per_minute": 3, "auth_boost": 1}, **{"X-Admin-Token": ADMIN}
        )
        assert said.status == 200
        statuses = [(await ann.get("/wallet")).status for _ in range(5)]
        assert statuses == [200, 200, 200, 429, 429]


async def test_limits_without_redis_are_kept_and_bounded(settings: Settings, eventually: Wait) -> None:
    changes = {"redis_url": "redis://127.0.0.1:1/0", "rate_limit_per_minute": 60}
    async with process(settings, **changes) as client:
        ann = await signed_in(client, settings)
        said = await asyncio.gather(*(ann.get("/wallet") for _ in range(130)))
        statuses = [one.status for one in said]
        assert set(statuses) == {200, 429}


async def test_guessing_the_admin_token_is_limited(settings: Settings) -> None:
    changes = {"v1_rate_limit_address_per_second": 1, "v1_rate_limit_address_burst": 5}
    async with process(settings, **changes) as client:
        said = await asyncio.gather(
            *(
                anybody(client).ask("GET", "/admin/config", headers={"X-Admin-Token": f"{n}"})
                for n in range(9)
            )
        )
        assert sorted({one.status for one in said}) == [401, 429]


@pytest.mark.parametrize("path", ["/auth/login", "/small/open"])
async def test_a_client_is_counted_by_its_ipv6_network(settings: Settings, path: str) -> None:
    """A customer has 2^64 addresses in one /64; a neighbour's /64 is another client."""
    changes = {"rate_limit_per_minute": 20, "trusted_proxies": "127.0.0.1"}
    async with process(settings, **changes) as client:

        async def status(address: str) -> int:
            headers = {"X-Forwarded-For": address}
            method = "GET" if path.endswith("open") else "POST"
            return (await anybody(client).ask(method, path, {"amount_cents": 1}, headers=headers)).status

        said = [await status(f"2001:db8:5:7::{number:x}") for number in range(25)]
        assert said == [200] * 20 + [429] * 5
        assert await status("2001:db8:5:8::1") == 200
