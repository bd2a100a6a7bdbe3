"""How each fault is made, and undone where nobody else would undo it."""

import asyncio
import random
import shutil
import signal
from collections.abc import Awaitable, Callable, Sequence

from loadtests.bench.stand import StandError, wait_until
from loadtests.chaos.plan import Fault
from loadtests.chaos.stage import Member, Stage, send
from ops.embedded import Valkey
from ops.embedded.server import Server
from ops.process import command_line_of

#: Processes that were asked to end are to have ended within this.
GONE_WITHIN_SECONDS = 60.0


class Faults:
    """Makes faults on a stage."""

    def __init__(self, stage: Stage, seed: int) -> None:
        self._stage = stage
        self._random = random.Random(f"victims {seed}")
        postgres, valkey = stage.servers.postgres, stage.servers.valkey
        self.ways: dict[str, Callable[[float], Awaitable[None]]] = {
            "api.kill": self._kill_api,
            "api.pause": self._pause_api,
            "api.reload": self._reload_api,
            "master.kill": self._kill_master,
            "worker.kill": lambda seconds: self.kill(self._worker(), seconds),
            "worker.pause": lambda seconds: self._pause_member(self._worker(), seconds),
            "worker.restart": lambda _: self._restart(self._worker()),
            "receiver.kill": lambda seconds: self.kill(stage.receiver, seconds),
            "receiver.pause": lambda seconds: self._pause_member(stage.receiver, seconds),
            "postgres.kill": lambda seconds: self._kill_server(postgres, seconds),
            "postgres.pause": lambda seconds: self._pause(stage.postgres_pids(), seconds),
            "postgres.restart": lambda _: stage.do(postgres.restart),
            "backend.kill": self._kill_backend,
            "valkey.kill": lambda seconds: self._kill_server(valkey, seconds),
            "valkey.pause": lambda seconds: self._pause([valkey.pid] if valkey.pid else [], seconds),
            "valkey.restart": lambda _: stage.do(valkey.restart),
            "valkey.wipe": lambda seconds: self._wipe(valkey, seconds),
        }

    async def make(self, fault: Fault) -> None:
        """Make a fault, hold it, and return when it is over."""
        await self.ways[fault.name](fault.seconds)

    def one_of(self, members: Sequence[Member]) -> Member:
        """Return one of some processes, as the seed decides."""
        return self._random.choice(members)

    def _worker(self) -> Member:
        return self.one_of(self._stage.workers)

    async def _api_process(self) -> int:
        """One of the API's processes, once there is one."""

        async def found() -> bool:
            return bool(self._stage.api_pids())

        if not await wait_until(found, GONE_WITHIN_SECONDS):
            raise StandError(f"the API has no process{self._stage.log_tails()}")
        return self._random.choice(sorted(self._stage.api_pids()))

    async def _kill_api(self, _: float) -> None:
        send([await self._api_process()], signal.SIGKILL)

    async def _pause_api(self, seconds: float) -> None:
        await self._pause([await self._api_process()], seconds)

    async def _reload_api(self, _: float) -> None:
        before = {await self._api_process(), *self._stage.api_pids()}
        self._stage.serve.send(signal.SIGHUP)
        await self._gone(before)

    async def _kill_master(self, seconds: float) -> None:
        serve = self._stage.serve
        orphans = set(self._stage.api_pids())
        serve.held = True
        serve.send(signal.SIGKILL)
        await self._ended(serve)
        await self._gone(orphans)
        await asyncio.sleep(seconds)
        serve.start()
        serve.held = False

    async def kill(self, member: Member, seconds: float) -> None:
        """Kill a process, and start it again after `seconds`."""
        member.held = True
        member.send(signal.SIGKILL)
        await self._ended(member)
        await asyncio.sleep(seconds)
        member.start()
        member.held = False

    async def _restart(self, member: Member) -> None:
        member.held = True
        member.send(signal.SIGTERM)
        await self._ended(member)
        member.start()
        member.held = False

    async def _pause_member(self, member: Member, seconds: float) -> None:
        await self._pause([member.pid] if member.pid else [], seconds)

    async def _pause(self, pids: Sequence[int], seconds: float) -> None:
        try:
            send(pids, signal.SIGSTOP)
            await asyncio.sleep(seconds)
        finally:
            send(pids, signal.SIGCONT)

    async def _kill_backend(self, _: float) -> None:
        pids = self._stage.postgres_pids()[1:]
        if pids:
            send([self._random.choice(pids)], signal.SIGKILL)

    async def _kill_server(self, server: Server, seconds: float) -> None:
        await self._stage.do(server.kill)
        await asyncio.sleep(seconds)
        await self._stage.do(server.start)

    async def _wipe(self, valkey: Valkey, seconds: float) -> None:
        await self._stage.do(valkey.kill)
        await asyncio.sleep(seconds)
        await self._stage.do(lambda: shutil.rmtree(valkey.data))
        await self._stage.do(valkey.start)

    async def _ended(self, member: Member) -> None:
        async def ended() -> bool:
            return member.pid is None

        if not await wait_until(ended, GONE_WITHIN_SECONDS):
            raise StandError(f"{member.name} does not end{self._stage.log_tails()}")

    async def _gone(self, pids: set[int]) -> None:
        """Wait until none of these processes of the API is left; they may be nobody's children by now."""

        async def gone() -> bool:
            # A process that nobody has waited for is dead all the same.
            return not any(command_line_of(pid) for pid in pids)

        if not await wait_until(gone, GONE_WITHIN_SECONDS):
            raise StandError(f"processes of the API do not end{self._stage.log_tails()}")


def first_failure(failed: ExceptionGroup) -> Exception:
    """Return the first failure of tasks that ran together, out of the groups around it."""
    error: Exception = failed
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    return error
