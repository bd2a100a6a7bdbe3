"""Keys of internal services: from our own table, and as an auth service answers, over its real protocol."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest

from core.access.auth_service import GrpcAuthService
from core.access.internal_callers import (
    InternalCaller,
    InternalCallers,
    create_caller,
    list_callers,
    revoke_caller,
)
from core.database import Database, open_database
from core.errors import Refusal, Unavailable
from core.settings import Settings
from core.settings.load import load_settings
from core.wire import auth_pb2

pytestmark = pytest.mark.shared

KNOWN = InternalCaller("checkout", frozenset({"payments-service"}))


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


class Auth:
    """An auth service. `code` is what it answers with instead, and `held` holds its answers up."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []
        self.code: grpc.StatusCode | None = None
        self.held: asyncio.Event | None = None

    async def answer(self, request: Any, context: Any) -> Any:
        metadata = dict(context.invocation_metadata())
        self.asked.append((request.api_key, metadata["x-api-key"]))
        if self.held is not None:
            await self.held.wait()
        if self.code is not None:
            await context.abort(self.code, "no")
        if request.api_key != "good":
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, "unknown key")
        return auth_pb2.ValidateInternalAccessResponse(
            service_name=KNOWN.name, allowed_access=KNOWN.allowed_access
        )

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[str]:
        method: Any = grpc.unary_unary_rpc_method_handler(
            self.answer,
            request_deserializer=auth_pb2.ValidateInternalAccessRequest.FromString,
            response_serializer=auth_pb2.ValidateInternalAccessResponse.SerializeToString,
        )
        server = grpc.aio.server()
        server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler("auth.AuthService", {"ValidateInternalAccess": method}),)
        )
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        try:
            yield f"127.0.0.1:{port}"
        finally:
            await server.stop(0)


@pytest.fixture
async def database(settings: Settings) -> AsyncIterator[Database]:
    database = await open_database(settings, role=None, size=2)
    yield database
    await database.close()


async def refusal(callers: InternalCallers, key: str) -> str:
    with pytest.raises(Refusal) as caught:
        await callers.authenticate(key)
    return caught.value.code


async def test_a_key_counts_until_it_is_revoked_and_is_shown_to_nobody(database: Database) -> None:
    clock = Clock()
    callers = InternalCallers(database, 5, clock=clock)
    key, key_id = await create_caller(database, "checkout", ["payments-service"], "till")
    assert await callers.authenticate(key) == KNOWN
    assert await refusal(callers, f"{key}x") == await refusal(callers, "\udcff") == "unauthorized"
    (listed,) = await list_callers(database, "checkout")
    assert (listed.key_id, listed.principal, listed.state) == (key_id, "checkout", "active")
    assert listed.last_used_at is not None
    assert key not in repr(listed)
    assert await revoke_caller(database, key) == await revoke_caller(database, key_id)
    assert await callers.authenticate(key) == KNOWN
    clock.now += 5
    assert await refusal(callers, key) == "unauthorized"
    for name in ("", " a", "a\n", "a" * 129):
        with pytest.raises(Refusal):
            await create_caller(database, name, [])


async def test_an_auth_service_is_asked_once_for_a_key_and_seconds(database: Database) -> None:
    auth, clock = Auth(), Clock()
    async with auth.serving() as address:
        callers = InternalCallers(database, 5, GrpcAuthService(address, "own"), clock=clock)
        key, _ = await create_caller(database, "checkout", ["payments-service"])
        assert await callers.authenticate(key) == KNOWN
        assert auth.asked == []
        auth.held = asyncio.Event()
        asking = [asyncio.create_task(callers.authenticate("good")) for _ in range(32)]
        await asyncio.sleep(0)
        auth.held.set()
        assert set(await asyncio.gather(*asking)) == {KNOWN}
        assert await callers.authenticate("good") == KNOWN
        assert await refusal(callers, "bad") == await refusal(callers, "bad") == "unauthorized"
        assert auth.asked == [("good", "own"), ("bad", "own")]
        clock.now += 5
        assert await callers.authenticate("good") == KNOWN
        assert len(auth.asked) == 3
        # That it is away is no word on a key, and is not believed for longer than a second.
        for code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.INTERNAL):
            auth.code = code
            clock.now += 5
            asked = len(auth.asked)
            for _ in range(2):
                with pytest.raises(Unavailable) as caught:
                    await callers.authenticate("good")
                assert (caught.value.code, caught.value.retry_after) == ("auth_service_away", 1)
            assert len(auth.asked) == asked + 1
            auth.code = None
            clock.now += 1
            assert await callers.authenticate("good") == KNOWN
        await callers.close()


async def test_nobody_at_the_address_is_away_within_the_bound(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("core.access.auth_service.ANSWER_WITHIN_SECONDS", 0.05)
    auth = Auth()
    auth.held = asyncio.Event()
    async with auth.serving() as address:
        for where in (address, "127.0.0.1:1"):
            callers = InternalCallers(database, 5, GrpcAuthService(where, "own"))
            assert await refusal(callers, "good") == "auth_service_away"
            await callers.close()
        auth.held.set()


@pytest.mark.parametrize(
    ("address", "own_key", "asked"),
    [
        ("", "k", False), ("auth.example:9090", "k", True), ("auth.example:9090", "", False),
        # The old default, in each spelling, is our own port.
        ("localhost:9090", "k", False), (":9090", "k", False), ("127.0.0.1:9090", "k", False),
        ("[::1]:9090", "k", False), ("0.0.0.0:9090", "k", False), ("127.0.0.1:9091", "k", True),
    ],
)  # fmt: skip
def test_the_service_never_asks_itself(address: str, own_key: str, *, asked: bool) -> None:
    settings = load_settings(env_file=None, auth_service_grpc_addr=address, app_api_key=own_key)
    assert (GrpcAuthService.of(settings) is not None) is asked
    assert load_settings(env_file=None).auth_service_grpc_addr == ""
