"""Principals with endpoints, and receivers that answer as a test says."""

import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack

import pytest

from core.outbox import events
from core.service import Service
from core.settings import Settings
from core.settings.kinds import Secret
from tests.core.outbox.office import ADMIN_TOKEN, ApiClient, Office, OpenOffice, OpenReceiver
from tests.jobs.merchant import Receiver

_shops = itertools.count(1)

# Types that these tests make up, beside those that the service tells of.
MADE_UP = {
    "a", "a.b", "a.late", "common.one", "dead.one", "live.one", "nothing", "nothing.at.all", "rare.one", "slow.one",
    "transfer", "transfer.posted", "transfer.posted.late", "transfers.posted",
}  # fmt: skip


@pytest.fixture(autouse=True)
def _made_up_types(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "KNOWN_TYPES", events.KNOWN_TYPES | MADE_UP)


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(
        update={"outbound_allow_hosts": ("127.0.0.0/8",), "admin_token": (Secret(ADMIN_TOKEN),)}
    )


@pytest.fixture
def open_office(api: ApiClient, service: Service, api_key: Callable[..., Awaitable[str]]) -> OpenOffice:
    """A function that makes a principal of this name and returns its office."""

    async def opened(principal: str) -> Office:
        key = await api_key(principal=principal)
        principal_id = await service.database.connections.pool.fetchval(
            "SELECT id FROM principals WHERE name = $1", principal
        )
        return Office(api, service, principal, key, principal_id)

    return opened


@pytest.fixture
async def office(open_office: OpenOffice, request: pytest.FixtureRequest) -> Office:
    """The office of a principal that no other test of the module has."""
    shared = request.node.get_closest_marker("shared") is not None
    return await open_office(f"shop {next(_shops)}" if shared else "shop")


@pytest.fixture
async def open_receiver() -> AsyncIterator[OpenReceiver]:
    """A function that starts a receiver on a port of its own."""
    async with AsyncExitStack() as servers:

        async def opened() -> Receiver:
            receiver = Receiver()
            await servers.enter_async_context(receiver.listening())
            return receiver

        yield opened


@pytest.fixture
async def receiver(open_receiver: OpenReceiver) -> Receiver:
    return await open_receiver()
