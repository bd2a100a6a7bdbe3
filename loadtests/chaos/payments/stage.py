"""The stage of payments: the service, the simulator as their provider, and two tills that may be killed."""

import aiohttp

from core.database import open_database
from core.ledger.accounts import Limits, Opening, open_accounts
from core.ledger.items import SYSTEM_PRINCIPAL
from core.outbox.signing import new_secret
from core.settings import load_settings
from loadtests.bench.stand import HOST, StandError, wait_until
from loadtests.chaos.faults import Faults
from loadtests.chaos.payments.till import CURRENCY, SHOP
from loadtests.chaos.plan import Kind
from loadtests.chaos.stage import PYTHON, READY_SECONDS, Stage
from ops.process import choose_port

TILLS = 2
#: A lost answer is waited for so long. A real provider's time-out is longer, and means the same.
ANSWER_SECONDS = 0.5

KINDS = {
    "till.kill": Kind("till", kills=True),
    "api.kill": Kind("api", kills=True),
    "worker.kill": Kind("worker", kills=True, longest=1.0),
    "master.kill": Kind("api", kills=True, longest=0.5),
    "backend.kill": Kind("postgres", kills=True),
    "postgres.kill": Kind("postgres", kills=True, shortest=0.2, longest=1.0),
    "valkey.wipe": Kind("valkey", kills=True, shortest=0.2, longest=1.0),
    "worker.pause": Kind("worker", kills=False, shortest=0.5, longest=8.0),
    "postgres.pause": Kind("postgres", kills=False, shortest=0.3, longest=2.0),
}
#: The kills that every run begins with, in an order of its own, however short it is.
FIRST = ("till.kill", "worker.kill", "api.kill")


class PaymentStage(Stage):
    """Everything that runs. `told` False: the provider has no address for its events."""

    told = True

    def _more_settings(self) -> dict[str, str]:
        self.provider_port = choose_port(None)
        self.provider_url = f"http://{HOST}:{self.provider_port}"
        hooks = {"SIMULATOR_WEBHOOK_URL": f"{self.url}/webhooks/simulator"} if self.told else {}
        return {
            "SIMULATOR_URL": f"http://{HOST}:{self._reached_port(self.provider_port)}",
            "SIMULATOR_TIMEOUT": str(ANSWER_SECONDS),
            "SIMULATOR_WEBHOOK_SECRET": new_secret(),
            **hooks,
        }

    def _reached_port(self, port: int) -> int:
        """Return the port at which our service reaches the provider on `port`."""
        return port

    async def _start_rest(self) -> None:
        command = [*PYTHON, "ops.cli", "simulator", "--port", str(self.provider_port)]
        self.provider = self.member("simulator", command, self.settings)
        settings = load_settings(env_file=None, env="test", database_url=self.database_url)
        database = await open_database(settings, role=None, size=1)
        try:
            await open_accounts(database, [Opening(SHOP, CURRENCY, Limits())], SYSTEM_PRINCIPAL)
        finally:
            await database.close()
        ports = [choose_port(None) for _ in range(TILLS)]
        self.tills = [
            self.member(
                f"till{number}",
                [*PYTHON, "loadtests.chaos.payments.till", f"--port={port}"],
                {**self.settings, "DATABASE_POOL_SIZE": "8"},
            )
            for number, port in enumerate(ports, 1)
        ]
        self.till_urls = [f"http://{HOST}:{port}" for port in ports]
        for url in (self.provider_url, *self.till_urls):
            if not await wait_until(lambda url=url: _listens(url), READY_SECONDS):  # type: ignore[misc]
                raise StandError(f"{url} did not start{self.log_tails()}")

    def faults(self) -> Faults:
        """Return the maker of faults, who knows the tills, too."""
        made = Faults(self, self._seed)
        made.ways["till.kill"] = lambda seconds: made.kill(made.one_of(self.tills), seconds)
        return made


async def _listens(url: str) -> bool:
    timeout = aiohttp.ClientTimeout(2)
    try:
        async with aiohttp.ClientSession(timeout=timeout) as session, session.get(url):
            return True
    except (aiohttp.ClientError, TimeoutError, OSError):
        return False
