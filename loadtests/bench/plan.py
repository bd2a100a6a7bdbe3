"""The plan of a run: the groups to measure, and their lengths."""

from pathlib import Path

import msgspec

from loadtests.bench.clients.client import ClientName

#: The parts of a run that `--only` chooses from, in the order in which they are measured.
GROUPS = {
    "singles": "single transfers over HTTP beside all floors",
    "latency": "one connection: HTTP, the direct call, the bare handler",
    "batches": "batches over HTTP beside pgbench",
    "storage": "bytes a transfer and the HOT share",
    "loaded": "a large ledger beside a small one, balances at a past time",
    "memory": "the API process's memory over a long run",
    "processes": "several API processes, for information",
    "payments": "payments at one merchant's QR code, with a fee, beside plain transfers",
    "creates": "payments asked for at the provider simulator, and what the engine itself adds to a provider's time",
    "ingest": "signed events over HTTP beside the bare handler",
    "ack": "acknowledgements at a fixed rate, half of them of duplicates",
    "refusal": "forged events over HTTP beside the bare handler: processor time",
    "delivery": "from the written event to the receiver, and deliveries a second",
    "pipeline": "signed payments that are posted and told to one receiver: a backlog, rates, memory, bytes an event",
    "told": "payments between wallets that a receiver is told of, beside the same without",
    "grown": "the pipeline after a million events beside an empty one, and what its statements read",
    "isolation": "healthy receivers beside dead and slow ones with a backlog",
    "claims": "claims of due work while a foreign transaction stays open",
}


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """The sizes of a run. The targets hold for the defaults; `quick()` only shows that every part runs.

    Durations are in seconds; wrk and pgbench round them up to whole ones. Each measurement is taken once a round.
    """

    quick: bool = False
    only: tuple[str, ...] = tuple(GROUPS)
    client: ClientName = "wrk"
    rounds: int = 3
    seconds: float = 10
    #: Before the first round, unrecorded: caches fill, statements are prepared, connections open.
    warm_seconds: float = 10
    connections: tuple[int, ...] = (64, 256)
    accounts: int = 100_000
    small_entries: int = 100_000
    loaded_entries: int = 10_000_000
    batch_items: int = 1_000
    batch_connections: int = 4
    past_balance_connections: int = 4
    storage_seconds: float = 20
    memory_seconds: float = 600
    #: How often the memory is read, and the part of the run at its start that is not held against "flat".
    memory_sample_seconds: float = 1.0
    memory_warm_share: float = 0.2
    processes: tuple[int, ...] = (2, 4)
    pgbench_scale: int = 10
    payment_connections: int = 64
    payers: int = 1_000
    event_connections: int = 64
    #: Events a second of the open loop, and how many connections it has at most.
    ack_rates: tuple[int, ...] = (500, 1_000)
    ack_connections: int = 128
    delivery_rates: tuple[int, ...] = (50, 200)
    sustained_endpoints: tuple[int, ...] = (1, 100, 1_000)
    sustained_deliveries: int = 20_000
    #: Events of a backlog, and by how many workers it is worked off, besides one.
    pipeline_events: int = 10_000
    pipeline_workers: tuple[int, ...] = (2, 4)
    pipeline_rates: tuple[int, ...] = (200, 1_000)
    told_rates: tuple[int, ...] = (200,)
    grown_events: int = 1_000_000
    grown_rate: int = 200
    #: So many times the worker's code gets as many events as a claim takes at most, and its statements are explained.
    explained_turns: int = 5
    #: Events a second, each for every healthy endpoint; of the others half are dead and half slow.
    isolation_rate: int = 25
    isolation_healthy: int = 4
    isolation_sick: int = 8
    isolation_backlog: int = 100_000
    claims_seconds: float = 180
    seed: int = 20_240_229
    #: Where the servers keep their data. None: a temporary folder that goes when the run ends.
    state: Path | None = None

    def has(self, *groups: str) -> bool:
        """Whether any of these groups is to be measured."""
        return any(group in self.only for group in groups)


def quick(plan: Plan) -> Plan:
    """The same plan small enough for two minutes. Its figures say that the benchmark works and nothing about speed."""
    return msgspec.structs.replace(
        plan,
        quick=True,
        rounds=1,
        seconds=min(plan.seconds, 2),
        warm_seconds=1,
        accounts=2_000,
        small_entries=2_000,
        loaded_entries=40_000,
        storage_seconds=2,
        memory_seconds=5,
        memory_sample_seconds=0.5,
        processes=(2,),
        pgbench_scale=1,
        payers=50,
        sustained_endpoints=(1, 10),
        sustained_deliveries=500,
        pipeline_events=500,
        pipeline_workers=(2,),
        grown_events=5_000,
        isolation_backlog=1_000,
        claims_seconds=4,
    )
