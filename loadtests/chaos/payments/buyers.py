"""The buyers: each creates a payment until a till has answered, and then pays, fails, leaves, or gives it up."""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

import aiohttp
import msgspec

#: Buyers at once.
AT_ONCE = 48
#: A till that takes longer has been killed or paused.
TILL_SECONDS = 30.0
#: Waits between two tries at a till.
FIRST_WAIT_SECONDS, LAST_WAIT_SECONDS = 0.1, 1.0
#: Below the amounts by whose digits the simulator fails.
LEAST, MOST = 100, 8_999
#: Buyers who ask two tills at once under one request id.
TWINS = 0.1
#: The deeds after the creation, with their shares.
DEEDS = {"pay": 0.55, "decline": 0.05, "leave": 0.15, "cancel": 0.1, "pay and cancel": 0.15}
#: Tries at what a buyer does once: a real one gives up, too.
TRIES = 4


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """The sizes of a run. `told` False: the provider's events never come."""

    seed: int = 1
    payments: int = 2_000
    kills: int = 30
    told: bool = True
    #: For so long nothing may get on before the rest counts as lost: a look may be put off for two minutes.
    patience_seconds: float = 240.0


class Buyers:
    """All buyers of a plan. `created` has the answer that each request id got last."""

    def __init__(
        self, plan: Plan, tills: Sequence[str], provider: str, session: aiohttp.ClientSession
    ) -> None:
        self.created: dict[str, dict[str, Any]] = {}
        self.answers: Counter[str] = Counter()
        self.deeds: Counter[str] = Counter()
        self._plan = plan
        self._tills = tills
        self._provider = provider
        self._session = session
        self._stopped_at: float | None = None
        self._finished = False
        self.asked = 0

    def give_up(self) -> None:
        """Try nothing again from now on: the service does not come back."""
        self._stopped_at = time.monotonic()

    def finish(self) -> None:
        """Let no further buyer come."""
        self._finished = True

    async def run(self, pause_seconds: float = 0.0) -> None:
        """Let all of them buy, one after each pause."""
        slots = asyncio.Semaphore(AT_ONCE)

        async def one(number: int) -> None:
            async with slots:
                await self._buy(number)

        async with asyncio.TaskGroup() as group:
            for number in range(self._plan.payments):
                if self._finished:
                    break
                self.asked += 1
                group.create_task(one(number))
                if pause_seconds:
                    await asyncio.sleep(pause_seconds)

    async def _buy(self, number: int) -> None:
        draw = random.Random(f"buyer {self._plan.seed} {number}")
        request_id = f"chaos-{self._plan.seed}-{number:06}"
        amount = draw.randint(LEAST, MOST)
        copies = 2 if draw.random() < TWINS else 1
        (deed,) = draw.choices(list(DEEDS), list(DEEDS.values()))
        made = await asyncio.gather(*(self._create(request_id, amount, draw) for _ in range(copies)))
        if None in made:
            return
        self.created[request_id] = payment = made[-1] or {}
        self.deeds[deed] += 1
        deeds = []
        if deed.startswith("pay"):
            deeds.append(self._settle(payment["attempt"], "paid"))
        if deed == "decline":
            deeds.append(self._settle(payment["attempt"], "failed"))
        if deed.endswith("cancel"):
            deeds.append(self._cancel(payment["id"], draw))
        await asyncio.gather(*deeds)

    async def _create(self, request_id: str, amount: int, draw: random.Random) -> dict[str, Any] | None:
        body = {"request_id": request_id, "amount": amount}
        wait = FIRST_WAIT_SECONDS
        while self._stopped_at is None:
            status, answer = await self._post(f"{draw.choice(self._tills)}/create", body)
            self.answers[f"create {status or 'none'}"] += 1
            if status == 200:
                return answer
            await asyncio.sleep(wait * draw.uniform(0.5, 1.0))
            wait = min(2 * wait, LAST_WAIT_SECONDS)
        return None

    async def _cancel(self, payment: str, draw: random.Random) -> None:
        for _ in range(TRIES):
            status, _ = await self._post(f"{draw.choice(self._tills)}/cancel", {"id": payment})
            self.answers[f"cancel {status or 'none'}"] += 1
            if status in {200, 409}:
                return
            await asyncio.sleep(LAST_WAIT_SECONDS)

    async def _settle(self, attempt: str, outcome: str) -> None:
        """Do on the provider's page what a payer does, if the provider has the order."""
        for _ in range(TRIES):
            try:
                async with self._session.get(
                    f"{self._provider}/v1/payments", params={"key": f"tallystick-{attempt}"}
                ) as response:
                    if response.status == 200:
                        found = (await response.json())["id"]
                        await self._post(f"{self._provider}/v1/payments/{found}/pay", {"outcome": outcome})
                        return
            except (aiohttp.ClientError, TimeoutError, OSError):
                pass
            await asyncio.sleep(FIRST_WAIT_SECONDS)

    async def _post(self, url: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        """Return status and answer, 0 where there was none."""
        try:
            async with self._session.post(url, json=body) as response:
                return response.status, await response.json(content_type=None)
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError):
            return 0, {}
