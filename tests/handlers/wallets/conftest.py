"""A wallet platform for a test: settings with keys, people who are signed in, and the books, which must be right."""

import itertools
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Self

import asyncpg
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from core import metrics
from core.identity.tokens import Tokens
from core.platform import Platform
from core.service import Service, open_service
from core.settings import Settings
from core.wallets.users import User
from handlers.app import create_app
from handlers.http.parts import PARTS
from tests.handlers.pay_page.page_reader import Browser
from tests.invariants import faults
from tests.sharing import Part, named

ApiClient = TestClient[web.Request, web.Application]
ADMIN = "test-admin-token-of-32-characters"
INTERNAL = "test-internal-secret-of-32-chars"

_phones = itertools.count(963_900_000_001)
_keys = itertools.count(1)

WALLET_SETTINGS: dict[str, Any] = {
    "jwt_secret": "test-jwt-secret-of-32-characters",
    "admin_token": ADMIN,
    "internal_api_secret": INTERNAL,
    "dev_enable_topup": True,
    # Far from every limit: what a test does is not counted against it.
    "rate_limit_per_minute": 1_000_000,
    "v1_rate_limit_address_per_second": 100_000,
    "v1_rate_limit_address_burst": 100_000,
}


@dataclass(frozen=True)
class Said:
    """One answer, read to its end."""

    status: int
    body: bytes
    headers: Mapping[str, str]

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def refusal(self) -> tuple[int, str]:
        """The status and the contract's sentence of a refusal, and the proof that it is a whole one."""
        problem = self.json
        assert problem["status"] == self.status, problem
        assert problem["type"] == f"/problems/{problem['code']}", problem
        if problem["code"] != "rate_limited":
            assert problem["error"]["code"] == f"http_{self.status}", problem
        return self.status, problem["error"]["message"]


class Person:
    """Somebody who is signed in, or nobody."""

    def __init__(self, client: ApiClient, user: User | None, token: str | None) -> None:
        self.client = client
        self._user = user
        self.token = token

    def at(self, client: ApiClient) -> "Person":
        """The same one at another process."""
        return Person(client, self._user, self.token)

    @property
    def user(self) -> User:
        assert self._user is not None
        return self._user

    @property
    def phone(self) -> str:
        return self.user.phone

    async def ask(self, method: str, path: str, body: Any = None, **more: Any) -> Said:
        """Send a request; `headers` and `params` as aiohttp takes them."""
        headers = dict(more.pop("headers", {}))
        if self.token is not None:
            headers.setdefault("Authorization", f"Bearer {self.token}")
        async with self.client.request(method, path, json=body, headers=headers, **more) as response:
            return Said(response.status, await response.read(), response.headers)

    async def get(self, path: str, **params: str) -> Said:
        return await self.ask("GET", path, params=params)

    async def post(self, path: str, body: Any = None, *, key: str | None = None, **headers: str) -> Said:
        if key is not None:
            headers["Idempotency-Key"] = key
        return await self.ask("POST", path, {} if body is None else body, headers=headers)

    async def delete(self, path: str) -> Said:
        return await self.ask("DELETE", path)

    async def top_up(self, amount: int) -> Self:
        """Put money into the wallet."""
        body = {"amount_cents": amount, "idempotency_key": f"topup-{next(_keys)}"}
        said = await self.post("/wallet/topup", body)
        assert said.status == 200, said
        return self

    async def balance(self) -> int:
        balance: int = (await self.get("/wallet")).json["wallet"]["balance_cents"]
        return balance


@pytest.fixture
def changed() -> dict[str, Any]:
    """What a test has otherwise: `@pytest.mark.parametrize("changed", [{"env": "dev"}])`."""
    return {}


@pytest.fixture
def settings(settings: Settings, changed: dict[str, Any]) -> Settings:
    """The settings of a test, with wallets switched on."""
    return Settings.model_validate(settings.model_dump() | WALLET_SETTINGS | changed)


@pytest.fixture
async def wallets(settings: Settings, service: Service, part: Part, owner: Any) -> AsyncIterator[ApiClient]:
    """A client of the whole application. After the test the ledger is sound and sums to zero."""
    async with part(
        named("wallets", settings), lambda: TestClient(TestServer(create_app(settings, service)))
    ) as client:
        yield client
    # A transaction that the test has left open might see what nobody else does.
    usable = not (owner.is_closed() or owner.is_in_transaction())
    assert await faults(owner if usable else str(settings.database_url)) == {}


@pytest.fixture
def platform(wallets: ApiClient) -> Platform:
    """The platform of the process under test."""
    assert wallets.app is not None
    return wallets.app[PARTS].platform


@pytest.fixture
def nobody(wallets: ApiClient) -> Person:
    """A caller without a token."""
    return Person(wallets, None, None)


MakePerson = Callable[..., Awaitable[Person]]


@pytest.fixture
def person(wallets: ApiClient, platform: Platform, settings: Settings, owner: Any) -> MakePerson:
    """What makes somebody who is signed in, with a balance, a KYC level, as a merchant, as an agent."""
    tokens = Tokens(settings)

    async def make(
        *,
        balance: int = 0,
        kyc: int = 0,
        merchant: bool = False,
        agent: bool = False,
        phone: str | None = None,
        proven: bool = True,
    ) -> Person:
        user = await platform.users.ensure(phone or f"+{next(_phones)}")
        await owner.execute(
            """
            UPDATE users SET
                kyc_level = $2::integer, kyc_status = CASE WHEN $2::integer > 0 THEN 'approved' ELSE 'none' END,
                is_merchant = $3, merchant_status = CASE WHEN $3 THEN 'approved' ELSE 'none' END, is_agent = $4,
                phone_proven_at = CASE WHEN $5 THEN clock_timestamp() END
            WHERE id = $1
            """,
            user.id,
            kyc,
            merchant,
            agent,
            proven,
        )
        found = await platform.users.by_id(user.id)
        assert found is not None
        somebody = Person(wallets, found, tokens.issue(found, None))
        return await somebody.top_up(balance) if balance else somebody

    return make


@pytest.fixture
async def owner(settings: Settings, part: Part) -> AsyncIterator[Any]:
    """A connection as the owner of the schema. Tests that share a database share it."""

    @asynccontextmanager
    async def connected() -> AsyncIterator[Any]:
        connection = await asyncpg.connect(str(settings.database_url))
        yield connection
        await connection.close()

    async with part("owner", connected) as connection:
        yield connection


@pytest.fixture
async def elsewhere(settings: Settings) -> AsyncIterator[ApiClient]:
    """A client of another process's application: with a posting lane and connections of its own."""
    async with (
        open_service(settings) as service,
        TestClient(TestServer(create_app(settings, service))) as client,
    ):
        yield client


@pytest.fixture
def round_trips(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the statements that are sent, but for those of the refresher beside every process."""
    sent: list[str] = []
    observe = metrics.observe_query

    def record(query: str, seconds: float, *, ok: bool = True) -> None:
        if query != "platform_settings":
            sent.append(query)
        observe(query, seconds, ok=ok)

    monkeypatch.setattr(metrics, "observe_query", record)
    return sent


async def told(owner: Any, somebody: Person) -> list[tuple[str, Any]]:
    """The events for somebody, oldest first: type and data."""
    rows = await owner.fetch(
        "SELECT body FROM outbox_events WHERE principal_id = $1 ORDER BY id", somebody.user.principal_id
    )
    events = [json.loads(row["body"]) for row in rows]
    return [(event["type"], event["data"]) for event in events]


def new_key() -> str:
    """Return an idempotency key that no test has used."""
    return f"key-{next(_keys)}"


class Administrator(Person):
    """Whoever has the admin token."""

    def __init__(self, client: ApiClient, token: str = ADMIN) -> None:
        super().__init__(client, None, None)
        self._headers = {"X-Admin-Token": token}

    async def ask(self, method: str, path: str, body: Any = None, **more: Any) -> Said:
        more["headers"] = self._headers | dict(more.get("headers", {}))
        return await super().ask(method, path, body, **more)

    async def audit(self, **params: str) -> list[dict[str, Any]]:
        said = await self.get("/admin/audit", **params)
        assert said.status == 200, said
        items: list[dict[str, Any]] = said.json["items"]
        return items


@pytest.fixture
def admin(wallets: ApiClient) -> Administrator:
    return Administrator(wallets)


OpenBrowser = Callable[[], Browser]


@pytest.fixture
async def browser(wallets: ApiClient) -> AsyncIterator[OpenBrowser]:
    """What opens a browser without scripts, for the payment page."""
    opened: list[Browser] = []

    def open_browser() -> Browser:
        opened.append(Browser(str(wallets.make_url("/"))))
        return opened[-1]

    yield open_browser
    for one in opened:
        await one.close()


@pytest.fixture
async def shop(person: MakePerson, owner: Any) -> Person:
    """A merchant with a name."""
    made = await person(kyc=1, merchant=True)
    await owner.execute("UPDATE users SET name = 'Corner shop' WHERE id = $1", made.user.id)
    return made
