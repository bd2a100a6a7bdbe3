"""Takes one measurement at a time: runs the client, watches the processors meanwhile, keeps and shows the figure."""

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence

from loadtests.bench import machine
from loadtests.bench.clients.client import ClientName, ClientResult, run_client
from loadtests.bench.clients.workload import Caller, Workload
from loadtests.bench.figures import Figure, Figures, latency_summary

TRANSFERS = "transfers/s"
REQUESTS = "requests/s"
EVENTS = "events/s"
DELIVERIES = "deliveries/s"
#: A client that keeps one core this busy is itself the limit of what it measures.
BUSY_CLIENT = 0.9


class Meter:
    """Measures and remembers. `roles` names the process trees whose processor time is told apart, as of now."""

    def __init__(
        self,
        figures: Figures,
        roles: Callable[[], Mapping[str, Sequence[int]]],
        *,
        client: ClientName,
        seed: int,
        say: Callable[[str], None],
    ) -> None:
        self.figures = figures
        self.round = 0
        self.notes: list[str] = []
        self._roles = roles
        self._client = client
        self._seed = seed
        self._say = say

    def seed(self) -> int:
        """A seed no other measurement of this run had."""
        self._seed += 1
        return self._seed

    async def warm(self, workload: Workload, caller: Caller, connections: int, seconds: float) -> None:
        """Loads without recording."""
        await run_client(
            workload, caller, connections=connections, seconds=seconds, seed=self.seed(), client=self._client
        )

    async def http(
        self,
        name: str,
        workload: Workload,
        caller: Caller,
        *,
        connections: int,
        seconds: float,
        unit: str = TRANSFERS,
        client: ClientName | None = None,
        rate: float = 0.0,
    ) -> Figure:
        """One measurement over HTTP. The rate counts a batch's items, the latencies its whole request.

        `client` replaces that of the run where it is the latencies that count. At a `rate` requests are sent when they
        are due, and latencies are counted from then.
        """
        work = run_client(
            workload,
            caller,
            connections=connections,
            seconds=seconds,
            seed=self.seed(),
            client=client or self._client,
            rate=rate,
        )
        return await self.measure(
            name, work, connections=connections, unit=unit, per_request=max(workload.items, 1)
        )

    async def direct(self, name: str, call: Callable[[], Awaitable[object]], seconds: float) -> Figure:
        """One call after the other, from this process."""

        async def work() -> ClientResult:
            latencies = []
            started, cpu_started = time.perf_counter(), time.process_time()
            while (before := time.perf_counter()) < started + seconds:
                await call()
                latencies.append(time.perf_counter() - before)
            return ClientResult(
                requests=len(latencies),
                seconds=time.perf_counter() - started,
                latency_ms=latency_summary(latencies),
                errors={},
                client="asyncpg",
                cpu_seconds=time.process_time() - cpu_started,
            )

        return await self.measure(name, work(), connections=1, unit=TRANSFERS)

    async def measure(
        self,
        name: str,
        work: Awaitable[ClientResult],
        *,
        connections: int,
        unit: str = TRANSFERS,
        per_request: int = 1,
    ) -> Figure:
        """Waits for the client's result and makes a figure of it."""
        load_average = machine.load_average()
        watch = machine.Watch(self._roles())
        result = await work
        cpu, steal = watch.read(result.cpu_seconds)
        return self.keep(
            name, result, connections=connections, unit=unit, per_request=per_request, cpu=cpu, steal=steal,
            load_average=load_average,
        )  # fmt: skip

    def keep(
        self,
        name: str,
        result: ClientResult,
        *,
        connections: int,
        unit: str,
        per_request: int = 1,
        cpu: dict[str, float],
        steal: float | None = None,
        load_average: float | None = None,
    ) -> Figure:
        """Makes a figure of what was measured already, beside another that had the `cpu`."""
        figure = Figure(
            name=name,
            round=self.round,
            unit=unit,
            rate=round(result.requests * per_request / result.seconds, 2) if result.seconds else 0.0,
            seconds=round(result.seconds, 3),
            requests=result.requests,
            connections=connections,
            client=result.client,
            latency_ms=result.latency_ms,
            errors=result.errors,
            cpu=cpu,
            load_average=load_average,
            steal=steal,
        )
        self.figures.add(figure)
        self._show(figure)
        return figure

    def _show(self, figure: Figure) -> None:
        known = [name for name in ("p50", "p95", "p99") if name in figure.latency_ms]
        latency = " ".join(f"{name} {figure.latency_ms[name]:.2f} ms" for name in known)
        busy = " ".join(f"{role} {cores:.2f}" for role, cores in figure.cpu.items() if cores >= 0.01)
        self._say(f"{figure.name:<26} {figure.rate:>9,.0f} {figure.unit:<11} {latency:<41} cores: {busy}")
        which = f"{figure.name}, round {figure.round}"
        if not figure.valid:
            self.note(f"{which}: invalid, {figure.errors or 'nothing was answered'}")
        if figure.cpu.get("client", 0.0) >= BUSY_CLIENT:
            self.note(f"{which}: the client used {figure.cpu['client']:.2f} cores and may be the limit")

    def note(self, text: str) -> None:
        """Keeps a sentence for the report, and shows it at once."""
        self.notes.append(text)
        self._say(f"  ! {text}")
