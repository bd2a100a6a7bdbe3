"""The stage of a full run: shops, tills and movers on one service, whose links, disk and clock may fail, too."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from urllib.parse import urlsplit, urlunsplit

from core.database import open_database
from core.ledger.accounts import Limits, Opening, open_accounts
from core.ledger.items import SYSTEM_PRINCIPAL
from core.settings import load_settings
from loadtests.chaos.full.host import Host
from loadtests.chaos.full.movers import ACCOUNTS, CURRENCY
from loadtests.chaos.full.plan import LINKS
from loadtests.chaos.full.proxies import Proxies
from loadtests.chaos.payments.stage import PaymentStage
from ops.embedded import EmbeddedServers

#: A small log, so that a full disk is felt soon, and a small cache, since more than one machine's share runs here. Each
#: recovery would begin with an fsync of every single file, for ten seconds on a slow disk; one call syncs all of them.
POSTGRES_OPTIONS = {
    "max_wal_size": "256MB",
    "shared_buffers": "256MB",
    "recovery_init_sync_method": "syncfs",
}


class FullStage(PaymentStage):
    """Everything that runs. The service reaches the servers, the receiver and the provider over `links`."""

    async def _start(self) -> None:
        postgres, valkey = self.servers.postgres, self.servers.valkey
        self.links = Proxies(tuple(LINKS), self.folder)
        await self.links.start()
        self.links.aim("postgres", postgres.port)
        self.links.aim("valkey", valkey.port)
        await super()._start()

    def _servers(
        self, postgres_options: Mapping[str, str] | None, say: Callable[[str], None]
    ) -> AbstractContextManager[EmbeddedServers]:
        self.host = Host(self.folder)
        return self.host.servers(postgres_options={**POSTGRES_OPTIONS, **(postgres_options or {})}, say=say)

    def _more_settings(self) -> dict[str, str]:
        return {
            **super()._more_settings(),
            "DATABASE_URL": _at(self.database_url, self.links.ports["postgres"]),
            "REDIS_URL": _at(self.servers.redis_url, self.links.ports["valkey"]),
        }

    def _hooks_port(self, port: int) -> int:
        return self.links.aim("receiver", port)

    def _reached_port(self, port: int) -> int:
        return self.links.aim("provider", port)

    async def _start_rest(self) -> None:
        settings = load_settings(env_file=None, env="test", database_url=self.database_url)
        database = await open_database(settings, role=None, size=1)
        try:
            openings = [Opening(code, CURRENCY, Limits(floor=None)) for code in ACCOUNTS]
            await open_accounts(database, openings, SYSTEM_PRINCIPAL)
        finally:
            await database.close()
        await super()._start_rest()
        await self._start_shops()

    async def _close(self) -> None:
        if hasattr(self, "links"):
            await self.links.close()
        await super()._close()


def _at(url: str, port: int) -> str:
    """Return the same address at another port of this machine."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=f"{parts.netloc.rpartition(':')[0]}:{port}"))
