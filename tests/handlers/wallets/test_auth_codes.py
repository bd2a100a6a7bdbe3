"""Signing in with a code: sent by an operator, stored in Redis, good once; and the fixed code of development."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from importlib import resources
from typing import Any

import pytest
from aiohttp.test_utils import TestClient, TestServer

from core.access import addresses
from core.service import Service
from core.settings import Settings
from handlers.app import LISTENERS, contract_app
from handlers.http.parts import PARTS
from ops.embedded import EmbeddedServers
from tests.handlers.wallets.conftest import Person, Said
from tests.handlers.wallets.operator import Operator, open_operator

PHONE = "+963944123456"
# One code in a million is this one.
WRONG = "000000"


@pytest.fixture
async def operator() -> AsyncIterator[Operator]:
    async with open_operator() as opened:
        yield opened


@pytest.fixture
def otp_settings() -> dict[str, Any]:
    """What a test sets beside the mode."""
    return {}


@pytest.fixture
def settings(settings: Settings, operator: Operator, otp_settings: dict[str, Any]) -> Settings:
    more = {
        "otp_mode": "redis",
        "otp_sms_provider": "http",
        "otp_sms_http_url": operator.url,
        "otp_sms_http_auth_token": "operator-token",
        "otp_sms_sender_name": "Wallet",
        # Twenty calls a minute from one address are more than enough elsewhere.
        "rate_limit_enabled": False,
    }
    return Settings.model_validate(settings.model_dump() | more | otp_settings)


async def ask_code(nobody: Person, phone: str = PHONE) -> str:
    said = await nobody.post("/auth/request_otp", {"phone": phone})
    assert said.status == 200, said
    session: str = said.json["otp_session"]
    return session


async def verify(nobody: Person, otp: str, phone: str = PHONE, **more: Any) -> Said:
    return await nobody.post("/auth/verify_otp", {"phone": phone, "otp": otp, **more})


async def test_a_code_signs_in_once(nobody: Person, operator: Operator, owner: Any) -> None:
    said = await nobody.post("/auth/request_otp", {"phone": PHONE})
    assert list(said.json) == ["detail", "otp_session"]
    assert (said.json["detail"], len(said.json["otp_session"])) == ("OTP sent", 22)
    assert operator.got == [
        {"to": PHONE, "message": f"Your verification code is {operator.code()}", "sender": "Wallet"}
    ]
    assert operator.headers[0]["Authorization"] == "Bearer operator-token"
    assert operator.headers[0]["Idempotency-Key"] == said.json["otp_session"]
    signed_in = await verify(
        nobody, operator.code(), session_id=said.json["otp_session"], name="Ann", role="x"
    )
    assert signed_in.status == 200, signed_in
    assert list(signed_in.json) == ["access_token", "token_type"]
    assert signed_in.json["token_type"] == "bearer"
    ann = Person(nobody.client, None, signed_in.json["access_token"])
    assert (await ann.get("/wallet")).json["user"] | {"id": ""} == {
        "id": "", "phone": PHONE, "name": "Ann", "is_merchant": False,
    }  # fmt: skip
    assert (await verify(nobody, operator.code())).refusal == (400, "Invalid OTP")
    assert await owner.fetchval("SELECT count(*) FROM sessions") == 1
    assert (
        await owner.fetchval("SELECT data->>'method' FROM audit_events WHERE type = 'auth.sign_in'") == "otp"
    )


async def test_without_a_session_the_newest_code_counts(nobody: Person, operator: Operator) -> None:
    """Defect 24: the app never sends the session."""
    older_session = await ask_code(nobody)
    older = operator.code()
    await ask_code(nobody)
    newer = operator.code()
    assert (await verify(nobody, newer)).status == 200
    if older != newer:
        # The older one is its own session's, to the end of its life.
        assert (await verify(nobody, older)).refusal == (400, "Invalid OTP")
        assert (await verify(nobody, older, session_id=older_session)).status == 200


async def test_the_code_is_the_phone_s(nobody: Person, operator: Operator) -> None:
    session = await ask_code(nobody)
    said = await verify(nobody, operator.code(), phone="+963944123457", session_id=session)
    assert said.refusal == (400, "Invalid OTP")
    for session_id in ("", "y", "y" * 5_000, "}{", "\u0007"):
        assert (await verify(nobody, WRONG, session_id=session_id)).status in {400, 429}


async def test_exactly_one_of_many_wins(nobody: Person, operator: Operator, owner: Any) -> None:
    await ask_code(nobody)
    code = operator.code()
    answers = await asyncio.gather(*(verify(nobody, code) for _ in range(32)))
    assert sorted(answer.status for answer in answers) == [200] + [400] * 31
    assert await owner.fetchval("SELECT count(*) FROM sessions") == 1


async def test_without_its_end_in_the_script_many_would_win(
    nobody: Person, operator: Operator, service: Service
) -> None:
    """The race above is a real one: a script that leaves the code where it is lets everybody in."""
    application = nobody.client.app
    assert application is not None
    memory = application[PARTS].identity.memory
    text = resources.files("core.identity").joinpath("code_check.lua").read_text()
    consumed = "redis.call('DEL', code, counter .. 'failures')"
    assert text.count(consumed) == 1
    memory._scripts["code_check"] = service.redis.register_script(text.replace(consumed, ""))
    await ask_code(nobody)
    session = (await service.redis.get((await service.redis.keys("*newest"))[0])).decode()
    answers = await asyncio.gather(*(verify(nobody, operator.code(), session_id=session) for _ in range(4)))
    assert [answer.status for answer in answers] == [200] * 4


async def test_guesses_at_once_do_not_outrun_the_lock(nobody: Person, operator: Operator) -> None:
    await ask_code(nobody)
    answers = await asyncio.gather(*(verify(nobody, WRONG) for _ in range(32)))
    assert sorted(answer.status for answer in answers) == [400] * 3 + [429] * 29
    said = await verify(nobody, operator.code())
    assert said.refusal == (429, "Too many wrong codes")
    assert 0 < said.json["retry_after"] <= 120
    assert said.headers["Retry-After"] == str(said.json["retry_after"])


async def test_locks_grow_and_tries_end(nobody: Person, operator: Operator, service: Service) -> None:
    """Locks after the 3rd, the 5th, the 7th and each later failure; five tries at one code."""

    async def unlock() -> None:
        for name in await service.redis.keys("*lock"):
            await service.redis.delete(name)

    locks = []
    for failure in range(1, 10):
        if failure in {1, 6}:
            for name in await service.redis.keys("*sent"):
                await service.redis.delete(name)
            await ask_code(nobody)
        assert (await verify(nobody, WRONG)).refusal == (400, "Invalid OTP")
        ttl = [await service.redis.ttl(name) for name in await service.redis.keys("*lock")]
        locks.append(max(ttl, default=0))
        await unlock()
    assert [-(-lock // 10) * 10 for lock in locks] == [0, 0, 120, 0, 300, 0, 600, 600, 600]
    # The first code had its five tries: right or wrong, it counts no more.
    await service.redis.flushdb()
    session = await ask_code(nobody)
    code = operator.code()
    for _ in range(5):
        await verify(nobody, WRONG, session_id=session)
        await unlock()
    assert (await verify(nobody, code, session_id=session)).refusal == (400, "Invalid OTP")


async def test_a_right_code_forgives_what_was_wrong(nobody: Person, operator: Operator) -> None:
    await ask_code(nobody)
    for _ in range(2):
        assert (await verify(nobody, WRONG)).status == 400
        assert (await verify(nobody, WRONG)).status == 400
        assert (await verify(nobody, operator.code())).status == 200
        await ask_code(nobody)


async def test_three_sends_in_fifteen_minutes(nobody: Person, operator: Operator) -> None:
    for _ in range(3):
        await ask_code(nobody)
    said = await nobody.post("/auth/request_otp", {"phone": PHONE})
    assert said.refusal == (429, "Too many codes were sent")
    assert 0 < int(said.headers["Retry-After"]) <= 900
    assert said.json["retry_after"] == int(said.headers["Retry-After"])
    assert len(operator.got) == 3
    # Another phone of the same gateway is not held up.
    await ask_code(nobody, "+963944000001")


@pytest.mark.parametrize("otp_settings", [{"otp_client_sends": 2, "otp_client_failures": 2}])
async def test_bounds_of_a_client(nobody: Person, operator: Operator) -> None:
    await ask_code(nobody, "+963944000001")
    await ask_code(nobody, "+963944000002")
    said = await nobody.post("/auth/request_otp", {"phone": "+963944000003"})
    assert said.refusal == (429, "Too many codes were sent")
    assert (await verify(nobody, WRONG, phone="+963944000001")).status == 400
    assert (await verify(nobody, WRONG, phone="+963944000002")).status == 400
    said = await verify(nobody, operator.code(), phone="+963944000002")
    assert said.refusal == (429, "Too many wrong codes")
    assert "Retry-After" in said.headers


@pytest.mark.parametrize("otp_settings", [{"otp_ttl_secs": 10}])
async def test_a_code_ends(nobody: Person, operator: Operator, service: Service) -> None:
    await ask_code(nobody)
    names = await service.redis.keys("*code:*")
    assert [0 < await service.redis.ttl(name) <= 10 for name in names] == [True]
    for name in [*names, *await service.redis.keys("*newest")]:
        await service.redis.pexpire(name, 0)
    assert (await verify(nobody, operator.code())).refusal == (400, "Invalid OTP")


async def test_redis_holds_neither_phone_nor_code(
    nobody: Person, operator: Operator, service: Service
) -> None:
    await ask_code(nobody)
    redis: Any = service.redis
    found = []
    for name in await redis.keys("*"):
        is_hash = await redis.type(name) == b"hash"
        values = (await redis.hgetall(name)).values() if is_hash else [await redis.get(name)]
        found += [name.decode(), *(value.decode() for value in values)]
    assert any("code:" in text for text in found)
    assert not any(PHONE[4:] in text for text in found)
    assert operator.code() not in found


async def test_an_operator_that_fails_costs_no_send(nobody: Person, operator: Operator) -> None:
    operator.status = 500
    for _ in range(5):
        said = await nobody.post("/auth/request_otp", {"phone": PHONE})
        assert said.refusal == (503, "The code could not be sent")
        assert "Retry-After" in said.headers
    operator.status = 302
    assert (await nobody.post("/auth/request_otp", {"phone": PHONE})).status == 503
    operator.status = 202
    await ask_code(nobody)
    assert (await verify(nobody, operator.code())).status == 200


@pytest.mark.parametrize("otp_settings", [{"otp_sms_timeout_secs": 0.1}])
async def test_a_silent_operator_may_have_sent_it(nobody: Person, operator: Operator) -> None:
    operator.hold = asyncio.Event()
    for _ in range(3):
        said = await nobody.post("/auth/request_otp", {"phone": PHONE})
        assert said.refusal == (503, "The code could not be sent")
    assert (await nobody.post("/auth/request_otp", {"phone": PHONE})).status == 429
    assert (await verify(nobody, operator.code())).status == 200


@pytest.mark.parametrize("otp_settings", [{"otp_sms_fallback_provider": "log"}])
async def test_a_fallback_takes_over(nobody: Person, operator: Operator) -> None:
    operator.status = 503
    await ask_code(nobody)
    assert (await verify(nobody, operator.code())).status == 200


async def test_no_messages_to_what_is_no_phone_or_a_costly_one(nobody: Person, operator: Operator) -> None:
    for phone in ("+9639", "+9639441234567890", "+99912345678", "+19005551234"):
        assert (await nobody.post("/auth/request_otp", {"phone": phone})).status in {400, 422}
    assert operator.got == []
    for text in (None, 5, "0944123456", "+963 94", "+963944123456 x12", "", "+" + "1" * 40):
        assert (await nobody.post("/auth/request_otp", {"phone": text})).status == 422


async def test_without_redis_codes_wait_and_come_back(
    nobody: Person, operator: Operator, servers: EmbeddedServers, eventually: Callable[..., Awaitable[Any]]
) -> None:
    await ask_code(nobody)
    servers.valkey.kill()
    try:
        for path, body in (
            ("/auth/request_otp", {"phone": PHONE}),
            ("/auth/verify_otp", {"phone": PHONE, "otp": operator.code()}),
        ):
            said = await nobody.post(path, body)
            assert said.refusal == (503, "Sign-in is not available at the moment")
            assert int(said.headers["Retry-After"]) >= 1
        # Who has a password is not held up.
        body = {"username": "ann", "password": "correct horse", "phone": PHONE}
        assert (await nobody.post("/auth/register", body)).status == 200
        assert (await nobody.post("/auth/login", body)).status == 200
    finally:
        servers.valkey.start()

    async def heals() -> bool:
        return (await nobody.post("/auth/request_otp", {"phone": PHONE})).status == 200

    await eventually(heals)
    assert (await verify(nobody, operator.code())).status == 200


async def test_two_first_sign_ins_make_one_user(nobody: Person, operator: Operator, owner: Any) -> None:
    first = await ask_code(nobody)
    one = operator.code()
    second = await ask_code(nobody)
    two = operator.code()
    answers = await asyncio.gather(
        verify(nobody, one, session_id=first), verify(nobody, two, session_id=second)
    )
    assert [answer.status for answer in answers] == [200, 200]
    assert await owner.fetchval("SELECT count(*) FROM users WHERE phone = $1", PHONE) == 1


class TestDevelopment:
    """OTP_MODE=dev: one code for everybody, nothing is stored."""

    @pytest.fixture
    def otp_settings(self) -> dict[str, Any]:
        return {"otp_mode": "dev"}

    async def test_the_fixed_code(self, nobody: Person, operator: Operator) -> None:
        said = await nobody.post("/auth/request_otp", {"phone": PHONE})
        assert said.body == (
            f'{{"detail":"OTP sent","otp_session":"{said.json["otp_session"]}","dev_code":"123456"}}'.encode()
        )
        assert operator.got == []
        for _ in range(5):
            assert (await verify(nobody, WRONG)).refusal == (400, "Invalid OTP")
        for _ in range(2):
            assert (await verify(nobody, "123456", phone="+963944000009")).status == 200
        for otp in (None, 5, ["123456"]):
            assert (await nobody.post("/auth/verify_otp", {"phone": PHONE, "otp": otp})).status == 422

    async def test_what_does_not_fit_shows_no_code(self, nobody: Person) -> None:
        said = await nobody.post("/auth/verify_otp", {"phone": "x", "otp": "123456", "name": "n" * 129})
        assert said.status == 422
        assert b"123456" not in said.body


@pytest.mark.parametrize("otp_settings", [{"otp_mode": "dev", "env": "prod"}])
async def test_in_prod_the_fixed_code_opens_nothing(nobody: Person, operator: Operator) -> None:
    """Defect 11. Such settings do not load; this is the second lock."""
    said = await nobody.post("/auth/request_otp", {"phone": PHONE})
    assert "dev_code" not in said.json
    if operator.code() != "123456":
        assert (await verify(nobody, "123456")).refusal == (400, "Invalid OTP")


@pytest.mark.parametrize("otp_settings", [{"otp_mode": "dev", "env": "dev", "dev_disable_otp": True}])
async def test_codes_can_be_switched_off_in_development(nobody: Person) -> None:
    assert (await nobody.post("/auth/request_otp", {"phone": PHONE})).refusal == (404, "Not Found")


class TestReset:
    """DEV_RESET_USER_STATE_ON_LOGIN: for ENV=dev, and at a sign-in by code or of a fixed account only."""

    @pytest.mark.parametrize("otp_settings", [{"otp_mode": "dev", "env": "dev"}])
    async def test_the_port_of_the_contract_has_it(
        self, nobody: Person, person: Any, wallets: Any, owner: Any
    ) -> None:
        """Without the setting a second sign-in keeps what a person has, but where the contract is wanted."""
        merchant = await person(phone=PHONE, merchant=True, kyc=1)
        state = "SELECT is_merchant, kyc_level FROM users WHERE id = $1"
        assert (await verify(nobody, "123456")).status == 200
        assert tuple(await owner.fetchrow(state, merchant.user.id)) == (True, 1)
        alone = contract_app(wallets.app, LISTENERS["wallet_port"])
        async with TestClient(TestServer(alone)) as client:
            assert (await verify(Person(client, None, None), "123456")).status == 200
        assert tuple(await owner.fetchrow(state, merchant.user.id)) == (False, 0)

    @pytest.fixture(params=["dev", "test"])
    def otp_settings(self, request: pytest.FixtureRequest) -> dict[str, Any]:
        return {"otp_mode": "dev", "env": request.param, "dev_reset_user_state_on_login": True}

    async def test_it(self, nobody: Person, person: Any, settings: Settings, owner: Any) -> None:
        merchant = await person(phone=PHONE, merchant=True, kyc=1)
        assert (await verify(nobody, "123456")).status == 200
        row = await owner.fetchrow(
            "SELECT is_merchant, merchant_status, kyc_level, kyc_status FROM users WHERE id = $1",
            merchant.user.id,
        )
        kept = (True, "approved", 1, "approved")
        assert tuple(row) == ((False, "none", 0, "none") if settings.env == "dev" else kept)


async def test_an_address_is_a_bucket() -> None:
    """A client cannot get around its bound by another address of its own network."""
    assert addresses.bucket("2001:db8::1") == addresses.bucket("2001:db8::2")
