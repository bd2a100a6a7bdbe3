"""What the tests of the ledger's routes drive: a client with a key, and the rows that its calls leave behind."""

import itertools
import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any

from aiohttp import web
from aiohttp.test_utils import TestClient

from core.service import Service

ApiClient = TestClient[web.Request, web.Application]

# Everything that a posting may write, the sequencer's tables aside.
TABLES = (
    *(
        "accounts",
        "account_profiles",
        "account_windows",
        "window_usage",
        "batches",
        "keys",
        "refusals",
        "transfers",
    ),
    *("entries", "backdated_entries", "reversed_amounts", "holds", "hold_events", "account_events"),
)


@dataclass(frozen=True)
class Answer:
    """One answer, read to its end."""

    status: int
    body: bytes
    headers: Mapping[str, str]

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str:
        """The problem's code, and the proof that it is a whole problem with a sentence."""
        problem = self.json
        assert self.headers["Content-Type"] == "application/problem+json", self
        assert problem["status"] == self.status, problem
        assert problem["type"] == f"/problems/{problem['error']['code']}", problem
        detail = problem["detail"]
        assert detail == problem["error"]["message"], problem
        assert len(detail) > 10, problem
        assert detail[-1] == ".", problem
        code: str = problem["error"]["code"]
        return code


class Shop:
    """One caller of the API."""

    def __init__(self, api: ApiClient, key: str) -> None:
        self.api = api
        self.key = key
        self._keys = itertools.count(1)

    async def call(
        self, method: str, path: str, body: Any = None, *, key: str | None = None, data: bytes | None = None
    ) -> Answer:
        """Send `body` as JSON, or `data` as it is, under the idempotency key `key`."""
        headers = {"Authorization": f"Bearer {self.key}"}
        if key is not None:
            headers["Idempotency-Key"] = key
        if body is not None:
            data = json.dumps(body).encode()
        if data is not None:
            headers["Content-Type"] = "application/json"
        async with self.api.request(method, path, data=data, headers=headers) as response:
            return Answer(response.status, await response.read(), response.headers)

    async def get(self, path: str, **query: Any) -> Answer:
        params = {name: str(value) for name, value in query.items() if value is not None}
        headers = {"Authorization": f"Bearer {self.key}"}
        async with self.api.get(path, params=params, headers=headers) as response:
            return Answer(response.status, await response.read(), response.headers)

    async def post(self, path: str, body: Any = None, *, key: str | None = None) -> Answer:
        """POST under a key, a new one if none is given."""
        return await self.call("POST", path, body, key=key or f"key-{next(self._keys)}")

    async def open(
        self, *codes: str, currency: str = "USD", floor: int | None = 0, **limits: int | None
    ) -> None:
        for code in codes:
            body = {"code": code, "currency": currency, "limits": {"floor": floor, **limits}}
            answer = await self.call("POST", "/v1/accounts", body)
            assert answer.status == 201, answer

    async def transfer(
        self, source: str, target: str, amount: int, *, key: str | None = None, **more: Any
    ) -> Answer:
        return await self.post(
            "/v1/transfers", {"from": source, "to": target, "amount": amount, **more}, key=key
        )

    async def account(self, code: str) -> Any:
        return (await self.get(f"/v1/accounts/{code}")).json

    async def balance(self, code: str) -> int:
        found: int = (await self.account(code))["balance"]
        return found

    async def pages(self, path: str, **query: Any) -> AsyncIterator[list[Any]]:
        """Page a list to its end."""
        cursor = None
        while True:
            answer = await self.get(path, cursor=cursor, **query)
            assert answer.status == 200, answer
            page = answer.json
            assert page["data"] or cursor is None, "an empty page after one that promised more"
            yield page["data"]
            cursor = page["next"]
            if cursor is None:
                return

    async def all(self, path: str, **query: Any) -> list[Any]:
        return [item async for page in self.pages(path, **query) for item in page]


async def row_counts(service: Service) -> dict[str, int]:
    """How many rows each table of the ledger has."""
    counts = ", ".join(f"(SELECT count(*) FROM {table}) AS {table}" for table in TABLES)  # noqa: S608 - the names above
    return dict(await service.database.connections.pool.fetchrow(f"SELECT {counts}") or {})


def connections(api: ApiClient) -> int:
    """How many connections the server has."""
    assert api.server.runner is not None
    assert api.server.runner.server is not None
    return len(api.server.runner.server.connections)
