"""`tallystick pos` as a till uses it, against the application on a socket."""

import asyncio
import json
import subprocess
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import asyncpg
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from core.identity.tokens import Tokens
from core.platform import Platform, open_platform
from core.service import Service
from core.settings import Settings
from handlers.app import create_app
from ops.commands.develop.pos import Refused, Till, _wait
from tests.commands import tallystick

Run = Callable[..., Coroutine[Any, Any, "subprocess.CompletedProcess[str]"]]
ApiClient = TestClient[web.Request, web.Application]


@pytest.fixture
def settings(settings: Settings) -> Settings:
    more = {"jwt_secret": "test-jwt-secret-of-32-characters", "starting_credit_cents": 10_000}
    return Settings.model_validate(settings.model_dump() | more)


@pytest.fixture
async def client(settings: Settings, service: Service) -> Any:
    async with TestClient(TestServer(create_app(settings, service))) as client:
        yield client


@pytest.fixture
async def owner(settings: Settings) -> AsyncIterator[Any]:
    """The test's own connection, as the owner of the schema."""
    connection = await asyncpg.connect(str(settings.database_url))
    yield connection
    await connection.close()


@pytest.fixture
async def people(settings: Settings, service: Service, owner: Any) -> Any:
    """The tokens of a merchant and of a customer, whose phone is +963944000002."""
    async with open_platform(service) as platform:
        merchant, customer = (
            await _person(owner, platform, 1, merchant=True),
            await _person(owner, platform, 2),
        )
        tokens = Tokens(settings)
        yield tokens.issue(merchant, None), tokens.issue(customer, None)


async def _person(owner: Any, platform: Platform, number: int, *, merchant: bool = False) -> Any:
    user = await platform.users.ensure(f"+96394400000{number}")
    await owner.execute(
        "UPDATE users SET kyc_level = 1, kyc_status = 'approved', is_merchant = $2,"
        " phone_proven_at = created_at WHERE id = $1",
        user.id,
        merchant,
    )
    return await platform.users.by_id(user.id)


@pytest.fixture
def pos(client: ApiClient, people: tuple[str, str]) -> Run:
    """Runs `tallystick pos` in a process of its own, with the merchant's token unless another is given."""

    async def run(*arguments: str, token: str | None = people[0], base: str | None = None) -> Any:
        environment = {"PAYMENTS_BASE_URL": base or str(client.make_url("/"))}
        if token is not None:
            environment["PAYMENTS_MERCHANT_TOKEN"] = token
        return await tallystick("pos", *arguments, **environment)

    return run


async def pay(client: ApiClient, token: str, code: str) -> None:
    body = {"code": code, "idempotency_key": "k"}
    headers = {"Authorization": f"Bearer {token}"}
    async with client.post("/payments/merchant/pay", json=body, headers=headers) as response:
        assert response.status == 200, await response.text()


async def test_a_code_is_made_and_paid(pos: Run, client: ApiClient, people: tuple[str, str]) -> None:
    made = await pos("create_qr", "2550")
    assert made.returncode == 0, made.stderr
    code = json.loads(made.stdout)["code"]
    assert code.startswith("PAY:v1;code=")
    stands = json.loads((await pos("qr_status", code)).stdout)
    assert (stands["status"], stands["mode"], stands["amount_cents"]) == ("active", "dynamic", 2_550)
    waiting = asyncio.create_task(pos("wait_paid", code, "30"))
    await pay(client, people[1], code)
    paid = await waiting
    assert (paid.returncode, paid.stdout.splitlines()[-1]) == (0, "status=used")


async def test_static_codes_and_scanned_customers(pos: Run) -> None:
    code = json.loads((await pos("create_qr", "100", "--static")).stdout)["code"]
    assert json.loads((await pos("qr_status", code)).stdout)["mode"] == "static"
    asked = json.loads((await pos("cpm_request", "CPM:v1;phone=+963944000002", "700")).stdout)
    assert asked["deeplink"] == f"payments://request/{asked['id']}"


async def test_a_wait_that_ends_without_a_payment(pos: Run, owner: Any) -> None:
    code = json.loads((await pos("create_qr", "100")).stdout)["code"]
    late = await pos("wait_paid", code, "1")
    assert (late.returncode, late.stdout) == (1, "status=active\n")
    await owner.execute("UPDATE payables SET expires_at = now() - interval '1 s'")
    over = await pos("wait_paid", code)
    assert (over.returncode, over.stdout) == (1, "status=expired\n")


async def test_refusals(pos: Run, people: tuple[str, str]) -> None:
    for arguments, reason in (
        (("qr_status", "PAY:v1;code=none"), "404: QR not found"),
        (("qr_status", "nonsense"), "400: Invalid QR format"),
        (("wait_paid", "PAY:v1;code=none"), "404: QR not found"),
        (("cpm_request", "nonsense", "5"), "400: Unsupported CPM format"),
    ):
        said = await pos(*arguments)
        assert (said.returncode, said.stdout) == (1, ""), arguments
        assert reason in said.stderr
    assert "403: Not a merchant" in (await pos("create_qr", "5", token=people[1])).stderr
    assert "401: Invalid token" in (await pos("create_qr", "5", token="x.y.z")).stderr


async def test_wrong_usage(pos: Run) -> None:
    for arguments, more in (
        (("create_qr", "5"), {"token": None}),
        (("create_qr", "0"), {}),
        (("create_qr", "12.5"), {}),
        (("wait_paid", "x", "0"), {}),
        (("create_qr", "5"), {"base": "localhost:8080"}),
        (("create_qr", "5"), {"token": "two words"}),
        (("sell",), {}),
    ):
        said = await pos(*arguments, **more)
        assert said.returncode == 2, (arguments, said.stderr)


async def test_help_needs_no_token(pos: Run) -> None:
    said = await pos("wait_paid", "--help", token=None)
    assert (said.returncode, "status=..." in said.stdout) == (0, True)


async def test_nobody_there(pos: Run) -> None:
    said = await pos("create_qr", "5", base="http://127.0.0.1:9")
    assert said.returncode == 1
    assert "does not answer" in said.stderr


async def test_the_wait_outlives_a_service_that_is_away(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("ops.commands.develop.pos.POLL_SECONDS", 0.01)
    answers: list[Any] = [Refused("503: Busy", later=True), {"status": "active"}, {"status": "used"}]

    async def call(*_: Any, **__: Any) -> Any:
        answer = answers.pop(0)
        if isinstance(answer, Refused):
            raise answer
        return answer

    monkeypatch.setattr(Till, "call", call)
    assert await _wait(Till(None, "", ""), "code", 10) == "used"  # type: ignore[arg-type]
    told = capsys.readouterr()
    assert (told.out, told.err) == ("status=unknown\nstatus=active\nstatus=used\n", "503: Busy\n")
