"""What the crash tests drive: servers that may be killed, `tallystick serve`, and clients that never give up."""

import asyncio
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import asyncpg

from core.database import open_database
from core.ledger.verify import verify
from core.settings import Settings
from ops.embedded import EmbeddedServers
from tests.invariants import faults

CLIENTS = 16
RETRY_SECONDS = 0.02
# A client that has tried for this long has lost its transfer, and the test has failed.
GIVE_UP_SECONDS = 60.0


class Stand:
    """PostgreSQL and Valkey, handled by a thread of their own: they end with it, and the clients go on meanwhile."""

    def __init__(self, servers: EmbeddedServers, thread: ThreadPoolExecutor) -> None:
        self.postgres = servers.postgres
        self.valkey = servers.valkey
        self._thread = thread

    async def do(self, work: Callable[[], object]) -> None:
        """Do what takes a while, such as a start."""
        await asyncio.get_running_loop().run_in_executor(self._thread, work)


@dataclass
class Load:
    """What clients have sent, and every answer that they got."""

    url: str
    key: str
    session: aiohttp.ClientSession
    answers: dict[str, bytes] = field(default_factory=dict)
    """The body of the 201 of each idempotency key."""
    statuses: dict[int, int] = field(default_factory=dict)
    """How often each status was answered."""
    unanswered: int = 0
    refusals: list[tuple[int, str | None, bytes]] = field(default_factory=list)
    """Each answer that was no 201: status, Retry-After, body."""

    @property
    def done(self) -> int:
        return len(self.answers)

    async def run(self, count: int) -> None:
        """Let clients send transfers, one at a time each, until `count` more of them are done."""
        numbers = iter(range(self.done, self.done + count))
        await asyncio.gather(*(self._client(numbers) for _ in range(CLIENTS)))

    async def _client(self, numbers: Iterator[int]) -> None:
        for number in numbers:
            key = f"load-{number}"
            async with asyncio.timeout(GIVE_UP_SECONDS):
                while not await self.send(key, number):  # noqa: ASYNC110 - what it waits for is in another process
                    await asyncio.sleep(RETRY_SECONDS)

    async def send(self, key: str, number: int) -> bool:
        """Send one transfer under its key; whether it is known to be done."""
        # A hot pair either way, and a wide field.
        source, target = (("a", "b"), ("b", "a"), ("cash", f"wide-{number % 50}"))[number % 3]
        headers = {"Authorization": f"Bearer {self.key}", "Idempotency-Key": key}
        body = {"from": source, "to": target, "amount": 1 + number % 9, "reference": key}
        try:
            async with self.session.post(f"{self.url}/v1/transfers", json=body, headers=headers) as response:
                answer = await response.read()
        except (aiohttp.ClientError, OSError):
            self.unanswered += 1
            return False
        self.statuses[response.status] = self.statuses.get(response.status, 0) + 1
        if response.status != 201:
            self.refusals.append((response.status, response.headers.get("Retry-After"), answer))
            return False
        assert self.answers.setdefault(key, answer) == answer
        return True

    async def ask_again(self) -> None:
        """Let the clients repeat every transfer that was answered; each gets the same bytes."""
        numbers = iter(range(self.done))
        await asyncio.gather(*(self._ask(numbers) for _ in range(CLIENTS)))

    async def _ask(self, numbers: Iterator[int]) -> None:
        for number in numbers:
            assert await self.send(f"load-{number}", number)


@dataclass
class Serving:
    """`tallystick serve`, running, over a database of its own."""

    process: subprocess.Popen[bytes]
    settings: Settings
    load: Load
    log: Path

    def workers(self) -> list[int]:
        """The process ids of the API processes."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        return [int(pid) for pid in children.split()]

    async def check_books(self) -> None:
        """Every answered transfer is there once, as it was answered, and nothing else is there, half or whole."""
        url = str(self.settings.database_url)
        assert await faults(url) == {}
        database = await open_database(self.settings, role=None, size=2)
        try:
            findings = await verify(database)
        finally:
            await database.close()
        assert findings == []
        connection = await asyncpg.connect(url)
        try:
            rows = await connection.fetch(
                "SELECT reference, count(*) AS times FROM transfers GROUP BY reference"
            )
        finally:
            await connection.close()
        assert {row["reference"]: row["times"] for row in rows} == dict.fromkeys(self.load.answers, 1)
