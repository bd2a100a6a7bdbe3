"""The faults that only a full run makes: on links, disk, clock and provider, and on all processes of a kind at once."""

import asyncio
import contextlib
import functools
import random
import signal
from collections.abc import Awaitable, Callable, Mapping, Sequence

from loadtests.bench.stand import StandError, wait_until
from loadtests.chaos.faults import GONE_WITHIN_SECONDS, Faults, first_failure
from loadtests.chaos.full.plan import LINKS, WAYS, Plan
from loadtests.chaos.full.stage import FullStage
from loadtests.chaos.plan import Fault
from loadtests.chaos.stage import send
from ops.process import StartError

#: Steps of the clock, in seconds: from what a time server corrects to a wrong time zone.
STEPS = (1, 5, 30, 60, 600, 3_600, 7_200)


class FullFaults(Faults):
    """Makes the faults of a full run. `storm` and `calm` set how the provider fails."""

    def __init__(
        self,
        stage: FullStage,
        plan: Plan,
        storm: Callable[[], Awaitable[None]],
        calm: Callable[[], Awaitable[None]],
    ) -> None:
        super().__init__(stage, plan.seed)
        self._host = stage.host
        self._full = stage
        self._storm, self._calm = storm, calm
        self._draws = random.Random(f"clocks {plan.seed}")
        self.ways |= {
            f"{name}-link.{way}": functools.partial(stage.links.fail, name, way)
            for name in LINKS
            for way in WAYS
        }
        self.ways |= {
            "api.all": self._kill_api_processes,
            "worker.all": self._kill_workers,
            "till.kill": lambda seconds: self.kill(self.one_of(stage.tills), seconds),
            "disk.full": self._fill_disk,
            "clock.forward": lambda seconds: self._step(seconds, 1),
            "clock.back": lambda seconds: self._step(seconds, -1),
            "provider.storm": self._provider,
        }

    def left_out(self) -> dict[str, str]:
        """Return the kinds of faults that this machine cannot make, with the reason."""
        reasons: Mapping[str, str] = self._host.left_out
        kinds = {"disk": ("disk.full",), "clock": ("clock.forward", "clock.back")}
        return {kind: reason for part, reason in reasons.items() for kind in kinds[part]}

    async def make_all(self, step: Sequence[Fault]) -> None:
        """Make the faults of one step, each a moment after the one before. Raises StandError."""
        try:
            async with asyncio.TaskGroup() as together:
                for fault in step:
                    together.create_task(self.make(fault))
                    await asyncio.sleep(self._draws.uniform(0.0, 0.3))
        except ExceptionGroup as failed:
            raise first_failure(failed) from None

    async def _kill_api_processes(self, _: float) -> None:
        await self._api_process()
        send(self._stage.api_pids(), signal.SIGKILL)

    async def _kill_workers(self, seconds: float) -> None:
        async with asyncio.TaskGroup() as together:
            for worker in self._stage.workers:
                together.create_task(self.kill(worker, seconds))

    async def _fill_disk(self, seconds: float) -> None:
        disk = self._host.disk
        if disk is None:
            return
        try:
            await asyncio.to_thread(disk.fill)
            await asyncio.sleep(seconds)
        finally:
            await asyncio.to_thread(disk.free)
        # A server that could not write its log has ended, and one that was recovering may have, too.
        if not await wait_until(self._database_answers, GONE_WITHIN_SECONDS):
            raise StandError(f"PostgreSQL does not come back after a full disk{self._stage.log_tails()}")

    async def _database_answers(self) -> bool:
        with contextlib.suppress(StartError):
            await self._stage.do(self._stage.servers.postgres.start)
        try:
            async with asyncio.timeout(5), self._stage.connect() as connection:
                await connection.execute("CREATE TEMPORARY TABLE room (n integer)")
        except Exception:  # noqa: BLE001 - whatever it is, the database is not there yet
            return False
        return True

    async def _step(self, seconds: float, way: int) -> None:
        clock = self._host.clock
        if clock is None:
            return
        clock.move(way * self._draws.choice(STEPS))
        try:
            await asyncio.sleep(seconds)
        finally:
            clock.move(0)

    async def _provider(self, seconds: float) -> None:
        await self._storm()
        try:
            await asyncio.sleep(seconds)
        finally:
            await self._calm()
