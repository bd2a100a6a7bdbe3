"""The data of a suite, made through the service's own API before the load: accounts, people, a merchant, keys."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import aiohttp
import msgspec

from core.access.internal_callers import create_caller
from core.database import open_database
from core.payments.orders.merchants import seed_merchant
from core.settings import load_settings
from loadtests.rates import CREDIT
from loadtests.runs.service import RunError, Service
from loadtests.suites.given import Given, Person, Shop

#: Calls at once: enough to be quick, too few to be a load.
AT_ONCE = 8
ANSWER_SECONDS = 30.0
#: Accounts of the ledger, over which transfers spread.
ACCOUNTS = 200
CURRENCY = "KZT"
#: The code of every sign-in in development.
CODE = "123456"
TOP_UP_CENTS = 10_000_000
TOKENS = 100_000_000
#: A payment needs a payer and a payee.
LEAST_PEOPLE = 2

T = TypeVar("T")

NEEDS_ACCOUNTS = {"transfers", "webhooks", "mixed"}
NEEDS_PEOPLE = {"wallets", "qr", "mixed"}
NEEDS_SHOP = {"qr", "mixed"}
NEEDS_PAYMENTS = {"payments", "mixed"}


class Preparer:
    """Makes data at one service. The data of one run serves the next, which may need more of it."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._run = secrets.token_hex(4)
        self._accounts: list[str] = []
        self._people: list[Person] = []
        self._shop: Shop | None = None
        self._keys: tuple[str, str, str] | None = None

    async def prepare(self, suite: str, users: int, results: str, *, once: bool = False) -> Given:
        """Make what a suite needs for so many users, who do each action `once` or go on. Raises RunError."""
        timeout = aiohttp.ClientTimeout(ANSWER_SECONDS)
        async with aiohttp.ClientSession(self._service.url, timeout=timeout) as session:
            calls = _Calls(session, self._service)
            if suite in NEEDS_ACCOUNTS and not self._accounts:
                names = [f"load:{self._run}:{number}" for number in range(ACCOUNTS)]
                self._accounts = await in_turns(names, calls.account)
            if suite in NEEDS_PEOPLE:
                missing = max(users, LEAST_PEOPLE) - len(self._people)
                phones = [_phone() for _ in range(missing)]
                self._people += await in_turns(phones, calls.person)
            if suite in NEEDS_SHOP and self._shop is None:
                self._shop = await calls.shop()
        if suite in NEEDS_PAYMENTS and self._keys is None:
            self._keys = await self._payment_keys()
        orders_key, service_key, name = self._keys or ("", "", "")
        return Given(
            suite=suite,
            results=results,
            once=once,
            api_key=self._service.api_key,
            stripe_secret=self._service.stripe_secret,
            accounts=tuple(self._accounts),
            people=tuple(self._people),
            shop=self._shop,
            orders_key=orders_key,
            service_key=service_key,
            service=name,
            callback_url=self._service.callback_url,
        )

    async def _payment_keys(self) -> tuple[str, str, str]:
        """Make a merchant and a service with keys, which only the owner of the database can, or take those given."""
        service = self._service
        if service.orders_key and service.service_key:
            return service.orders_key, service.service_key, service.service
        if not service.database_url:
            raise RunError(
                "Payments need the key of a merchant (`tallystick seed merchant`) in TALLYSTICK_ORDERS_KEY, and that of"
                " a service (`tallystick keys create --caller load`) in TALLYSTICK_SERVICE_KEY."
            )
        settings = load_settings(env_file=None, env="dev", database_url=service.database_url)
        database = await open_database(settings, role=None, size=1)
        name = f"load-{self._run}"
        try:
            merchant = await seed_merchant(database, TOKENS, f"Load {self._run}")
            key, _ = await create_caller(database, name, [settings.app_service_name], "load tests")
        finally:
            await database.close()
        return merchant.api_key, key, name


class _Calls:
    """The calls that make one thing each."""

    def __init__(self, session: aiohttp.ClientSession, service: Service) -> None:
        self._session = session
        self._service = service

    async def account(self, code: str) -> str:
        """Open an account that may owe."""
        body = {"code": code, "currency": CURRENCY, "limits": {"floor": -CREDIT}}
        await self._call("/v1/accounts", body, self._service.api_key)
        return code

    async def person(self, phone: str) -> Person:
        """Sign in somebody new, who is known well enough to pay, and has money."""
        body = {"phone": phone, "otp": CODE}
        token = str((await self._call("/auth/verify_otp", body))["access_token"])
        await self._call("/kyc/dev/approve", None, token)
        top_up = {"amount_cents": TOP_UP_CENTS, "idempotency_key": secrets.token_hex(16)}
        await self._call("/wallet/topup", top_up, token)
        return Person(phone, token)

    async def shop(self) -> Shop:
        """Make a merchant and their static code."""
        owner = await self.person(_phone())
        await self._call("/payments/dev/become_merchant", None, owner.token)
        code = await self._call("/payments/merchant/qr", {"amount_cents": 100, "mode": "static"}, owner.token)
        return Shop(owner, str(code["code"]))

    async def _call(self, path: str, body: Any, token: str = "") -> Any:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        try:
            async with self._session.post(path, json=body, headers=headers) as response:
                answer = await response.read()
                if response.status >= 400:
                    raise RunError(_refused(path, response.status, answer.decode(errors="replace")))
                return msgspec.json.decode(answer)
        except (aiohttp.ClientError, TimeoutError, OSError, msgspec.DecodeError) as error:
            raise RunError(f"POST {path} at {self._service.url} failed: {error!r}.") from None


def _refused(path: str, status: int, answer: str) -> str:
    text = f"POST {path} was answered {status} while the data was made: {answer[:300]}"
    return text if path.startswith("/v1/") else f"{text}\nPeople can be made in ENV=dev alone (docs/load.md)."


def _phone() -> str:
    """Return a phone that hardly anybody has; the load itself draws others."""
    return f"+9639{secrets.randbelow(10**8):08}"


async def in_turns(items: list[str], make: Callable[[str], Awaitable[T]]) -> list[T]:
    """Make something of each item, a few at once, in the order of the items. Raises what `make` raises first."""
    slots = asyncio.Semaphore(AT_ONCE)

    async def one(item: str) -> T:
        async with slots:
            return await make(item)

    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(item)) for item in items]
    except ExceptionGroup as failed:
        raise failed.exceptions[0] from None
    return [task.result() for task in tasks]
