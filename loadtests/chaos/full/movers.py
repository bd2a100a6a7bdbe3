"""The movers: clients of the ledger's own API, each of whom repeats a request under its key until it is answered."""

import asyncio
import random
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import msgspec

CURRENCY = "GBP"
#: A hot account that everybody pays into, and a few that pay each other.
ACCOUNTS = ("chaos:mover:hot", *(f"chaos:mover:{number}" for number in range(12)))
#: Movers at once; one more waits.
AT_ONCE = 64
ANSWER_SECONDS = 10.0
#: Waits between two tries, doubled from the first to the last.
FIRST_WAIT_SECONDS, LAST_WAIT_SECONDS = 0.1, 2.0
#: The share of holds; the rest are transfers. The deeds that follow a hold, with their shares; `expire` does nothing.
HOLDS = 0.35
DEEDS = {"capture": 0.4, "void": 0.2, "late": 0.2, "expire": 0.2}
HOLD_SECONDS = 6
#: The share of requests that are repeated though they were answered: the same must come back.
REPEATED = 0.05
#: Refusals that end a request: the hold's time is over by the database's clock.
OVER = frozenset({"hold_expired", "hold_not_open"})
AWAY = frozenset({0, 429, 503})
#: The reader of the feed asks for so many events at once, and waits so long where there are none.
PAGE, PAUSE_SECONDS = 500, 0.2


@dataclass
class Moved:
    """One request, and its answer once there is one. `deed`: transfer, hold, capture or void."""

    key: str
    deed: str
    source: str
    target: str
    amount: int
    status: int = 0
    id: str = ""
    """The id of the transfer that was posted, or of the hold that was made or voided."""
    code: str = ""
    """The code of a refusal that ended it."""


@dataclass
class Book:
    """The movers' own book."""

    moved: dict[str, Moved] = field(default_factory=dict)
    statuses: Counter[str] = field(default_factory=Counter)
    unexpected: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    """Repetitions that were answered otherwise than before."""
    gaps: list[str] = field(default_factory=list)
    """Positions of the feed that did not follow the one before."""
    position: int = 0

    @property
    def answered(self) -> int:
        """The number of requests that are answered for good."""
        return sum(bool(one.status) for one in self.moved.values())


class Movers:
    """All movers, and a reader of the feed."""

    def __init__(self, seed: int, url: str, key: str, session: aiohttp.ClientSession) -> None:
        self.book = Book()
        self.acknowledged = 0
        self._seed = seed
        self._url = url
        self._session = session
        self._authorization = f"Bearer {key}"
        self._finished = False
        self._stopped_at: float | None = None

    def finish(self) -> None:
        """Begin with nothing new."""
        self._finished = True

    def give_up(self) -> None:
        """Try nothing again from now on: the service does not come back."""
        self._stopped_at = time.monotonic()

    async def run(self, rate: float) -> None:
        """Begin with so many requests a second until told to finish, and return when all are answered."""
        slots, number = asyncio.Semaphore(AT_ONCE), 0

        async def one(number: int) -> None:
            try:
                await self._move(number)
            finally:
                slots.release()

        async with asyncio.TaskGroup() as group:
            while not self._finished:
                await slots.acquire()
                number += 1
                group.create_task(one(number))
                await asyncio.sleep(1 / rate)

    async def _move(self, number: int) -> None:
        draw = random.Random(f"mover {self._seed} {number}")
        source, target = draw.sample(ACCOUNTS, 2)
        amount, key = draw.randint(1, 99_999), f"move-{self._seed}-{number:07}"
        if draw.random() >= HOLDS:
            await self._ask(Moved(key, "transfer", source, target, amount), "/v1/transfers", draw)
            return
        hold = Moved(key, "hold", source, target, amount)
        await self._ask(hold, "/v1/holds", draw, expires_in=HOLD_SECONDS)
        (deed,) = draw.choices(list(DEEDS), list(DEEDS.values()))
        if deed == "expire" or not hold.id:
            return
        # A capture that comes late meets the job that gives the hold back.
        await asyncio.sleep(HOLD_SECONDS if deed == "late" else draw.uniform(0.0, 1.0))
        deed = "capture" if deed == "late" else deed
        end = Moved(f"{key}-end", deed, source, target, amount if deed == "capture" else 0)
        await self._ask(end, f"/v1/holds/{hold.id}/{deed}", draw)

    async def _ask(self, moved: Moved, path: str, draw: random.Random, **more: Any) -> None:
        """Ask until the answer is final, and some of the time once more after that."""
        self.book.moved[moved.key] = moved
        wait = FIRST_WAIT_SECONDS
        while True:
            if self._stopped_at is not None:
                return
            status, answer = await self._send(moved, path, more)
            if self._is_final(moved, status, answer):
                break
            await asyncio.sleep(wait * draw.uniform(0.5, 1.0))
            wait = min(2 * wait, LAST_WAIT_SECONDS)
        moved.status, moved.id, moved.code = status, _id(answer), _code(answer)
        self.acknowledged += 1
        if draw.random() < REPEATED and self._stopped_at is None:
            again, other = await self._send(moved, path, more)
            if self._is_final(moved, again, other) and (again, _id(other)) != (moved.status, moved.id):
                self.book.changed.append(f"{moved.key}: {moved.status} {moved.id}, then {again} {_id(other)}")

    def _is_final(self, moved: Moved, status: int, answer: dict[str, Any]) -> bool:
        if status in {200, 201} or (status == 409 and _code(answer) in OVER):
            return True
        if status not in AWAY:
            self.book.unexpected.append(f"{moved.key}: {status} {str(answer)[:200]}")
        return False

    async def _send(self, moved: Moved, path: str, more: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        """Return status and answer, 0 where there was none."""
        body: dict[str, Any] = {"from": moved.source, "to": moved.target, "amount": moved.amount}
        if moved.deed in {"capture", "void"}:
            body = {"reference": moved.key} if moved.deed == "capture" else {}
        else:
            body |= {"reference": moved.key, **more}
        headers = {"Authorization": self._authorization, "Idempotency-Key": moved.key}
        try:
            async with self._session.post(self._url + path, json=body, headers=headers) as response:
                status, text = response.status, await response.read()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            self.book.statuses[type(error).__name__] += 1
            return 0, {}
        self.book.statuses[str(status)] += 1
        try:
            answer = msgspec.json.decode(text)
        except msgspec.DecodeError:
            answer = {"text": text.decode(errors="replace")}
        return status, answer if isinstance(answer, dict) else {"text": answer}

    async def read_feed(self) -> None:
        """Read the feed for ever, and note each position that does not follow the one before."""
        while True:
            if not await self._read_page():
                await asyncio.sleep(PAUSE_SECONDS)

    async def _read_page(self) -> bool:
        query = {"after": str(self.book.position), "limit": str(PAGE)}
        headers = {"Authorization": self._authorization}
        try:
            async with self._session.get(f"{self._url}/v1/feed", params=query, headers=headers) as response:
                if response.status != 200:
                    if response.status not in AWAY:
                        self.book.unexpected.append(f"feed: {response.status}")
                    return False
                events = msgspec.json.decode(await response.read())["data"]
        except (aiohttp.ClientError, TimeoutError, OSError):
            return False
        for event in events:
            if event["position"] != self.book.position + 1:
                self.book.gaps.append(f"{event['position']} came after {self.book.position}")
            self.book.position = event["position"]
        return bool(events)


def _code(answer: dict[str, Any]) -> str:
    """Return the code of a refusal."""
    error = answer.get("error")
    return str(error.get("code", "")) if isinstance(error, dict) else ""


def _id(answer: dict[str, Any]) -> str:
    """Return the id of the transfer or hold in an answer; a capture tells both."""
    found = answer.get("transfer") or answer.get("hold") or answer
    return str(found.get("id", ""))
