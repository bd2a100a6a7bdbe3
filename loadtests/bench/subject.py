"""The service under test behind one protocol, so that no other part of this package knows the service."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Protocol

import asyncpg
import msgspec

if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record]
else:
    Connection = asyncpg.Connection  # generic to the type checker only


class Books(msgspec.Struct, frozen=True, kw_only=True):
    """The sizes of a ledger, its accounts without the hot one. Times are Unix seconds, the second one exclusive."""

    accounts: int
    transfers: int
    entries: int
    earliest: int
    latest: int


class Shop(msgspec.Struct, frozen=True, kw_only=True):
    """A merchant's QR code, as it is scanned, and the tokens of its payers; the phone and the token of the merchant.

    Another merchant, of `quiet_phone`, stays without an endpoint.
    """

    code: str
    phone: str
    quiet_phone: str
    merchant_token: str
    tokens: tuple[str, ...]


class Subject(Protocol):
    """A service under test. Databases are given by URL, with the owner's rights."""

    async def prepare(self, database_url: str, accounts: int) -> str:
        """Makes the schema, an API key, the accounts 1..n and the hot one; returns the key's token."""

    async def key(self, database_url: str, principal: str) -> str:
        """Makes an API key for another principal and returns its token."""

    async def shop(self, database_url: str, payers: int) -> Shop:
        """Makes merchants, one with a fee and a static QR code, and so many payers with more than they can spend."""

    async def migrate(self, database_url: str) -> None:
        """Brings a database that was kept from an earlier run up to this code."""

    async def fill(self, database_url: str, entries: int, on_progress: Callable[[int], None]) -> None:
        """Posts two-leg transfers until the ledger holds about so many entries; reports how many it holds."""

    async def settled(self, database_url: str) -> bool:
        """Whether the background work on what was posted is done."""

    async def books(self, database_url: str) -> Books:
        """Counts what is there."""

    def api_command(self, processes: int) -> Sequence[str]:
        """The command that serves, its first word an absolute path."""

    def worker_command(self) -> Sequence[str] | None:
        """The command of the worker, None without one."""

    def environment(self, database_url: str, redis_url: str, port: int) -> Mapping[str, str]:
        """The settings of both: everything on, and a rate limit that refuses nothing."""

    def creates(
        self, database_url: str, redis_url: str
    ) -> AbstractAsyncContextManager[Callable[[], Awaitable[object]]]:
        """A call that asks for one payment of a provider that answers at once."""

    def pgbench_script(self, books: Books, *, hot: bool) -> str:
        """A pgbench script that posts one transfer, between uniform accounts or from the hot one."""

    async def direct(
        self, connection: Connection, books: Books, seed: int
    ) -> Callable[[], Awaitable[object]]:
        """A call that posts one uniform transfer on the connection."""
