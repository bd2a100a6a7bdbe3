"""The limit of a load: computed from who used the processors, and from what PostgreSQL's sessions waited for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

#: A process that uses one core this much cannot do more: Python and Redis run on one core each.
BUSY_PROCESS = 0.9
#: The machine counts as full with this share of its cores in use; the rest goes to interrupts and the host.
BUSY_MACHINE = 0.9
#: Other programs that use more than this of a core make the figures doubtful.
NOISE_CORES = 0.3
#: As does a host that gives this share of the time to others.
NOISE_STOLEN = 0.1
#: Events that may wait at the end, as they come in batches.
MOST_BEHIND = 100
#: So many sessions that wait for one thing, on average, are a queue before it.
QUEUE = 1.0
#: Parts that run on one core a process, in the order in which they are looked at, with what helps.
ONE_CORE = {
    "API": "add API processes (SERVE_WORKERS)",
    "Redis": "Redis runs on one core",
    "worker": "add workers",
    "simulator": "the provider's simulator is not the service",
}
GENERATOR = "load generator"
#: Queues inside of PostgreSQL: waits by kind and the beginning of the event in small letters, and the meaning of them.
QUEUES: Sequence[tuple[Sequence[tuple[str, str]], str]] = (
    ((("Lock", ""),), "sessions wait for each other's rows: one account or wallet is hot"),
    ((("IO", "wal"), ("LWLock", "wal")), "commits wait for the write-ahead log and its disk"),
    ((("IO", ""),), "sessions wait for the disk"),
    ((("LWLock", ""),), "sessions wait inside of PostgreSQL"),
)


class RoleUse(msgspec.Struct, frozen=True):
    """Cores that a part used on average: all its processes together, and the busiest of them."""

    cores: float
    busiest: float
    processes: int

    @classmethod
    def between(cls, before: Mapping[int, float], after: Mapping[int, float], seconds: float) -> RoleUse:
        """Return the use between two looks at the processor seconds of each process."""
        # A process that began in between counts whole; one that ended counts in its parent, which has waited for it.
        used = {pid: max(cpu - before.get(pid, 0.0), 0.0) / seconds for pid, cpu in after.items()}
        return cls(round(sum(used.values()), 2), round(max(used.values(), default=0.0), 2), len(used))


class Wait(msgspec.Struct, frozen=True):
    """Sessions, on average, that waited for one thing; kind `CPU`: those that computed."""

    kind: str
    event: str
    sessions: float


class Usage(msgspec.Struct, frozen=True):
    """The use of one machine during a load. `here` tells that the service runs on it, below a process of ours.

    `other` are the cores of everything else, None where the system does not tell; `stolen` is the host's share;
    `behind` is by how many events the worker fell behind meanwhile.
    """

    cores: int
    here: bool
    roles: dict[str, RoleUse]
    other: float | None
    stolen: float
    waits: tuple[Wait, ...] = ()
    behind: int = 0

    @property
    def used(self) -> float:
        """The cores in use."""
        return sum(each.cores for each in self.roles.values()) + (self.other or 0.0)


class Limit(msgspec.Struct, frozen=True):
    """The part that keeps the load from going higher, and a sentence about it."""

    part: str
    sentence: str


def limit_of(usage: Usage) -> Limit:
    """Tell what limits. The generator comes first: where it is busy, nothing is known of the service."""
    generator = usage.roles.get(GENERATOR)
    if generator is None or usage.other is None:
        return Limit("unknown", "The system does not tell who uses its processors.")
    if generator.busiest >= BUSY_PROCESS:
        return Limit(
            GENERATOR,
            f"The load generator is the limit, not the server: a process of it uses {generator.busiest:.2f} of a core. "
            "Give it more (-- --processes 2) or run it on other machines.",
        )
    if not usage.here:
        return _elsewhere(usage, generator)
    return _full_process(usage) or _queue(usage) or _full_machine(usage) or _nothing(usage)


def _elsewhere(usage: Usage, generator: RoleUse) -> Limit:
    if usage.used < BUSY_MACHINE * usage.cores:
        return Limit("unknown (remote)", "The service was not started here, so its processors are not seen.")
    return Limit(
        "this machine",
        f"All {usage.cores} cores of this machine are in use: {generator.cores:.2f} by the load generator, "
        f"{usage.other:.2f} by everything else. Nothing is known of a service on another machine.",
    )


def _full_process(usage: Usage) -> Limit | None:
    for part, remedy in ONE_CORE.items():
        use = usage.roles.get(part)
        if use is not None and use.busiest >= BUSY_PROCESS:
            return Limit(part, f"A process of the {part} uses {use.busiest:.2f} of a core: {remedy}.")
    return None


def _queue(usage: Usage) -> Limit | None:
    """Find a queue inside of PostgreSQL that is longer than the sessions that compute."""
    running = sum(wait.sessions for wait in usage.waits if wait.kind == "CPU")
    for kinds, meaning in QUEUES:
        found = [
            each
            for each in usage.waits
            if any(each.kind == kind and each.event.lower().startswith(event) for kind, event in kinds)
        ]
        waiting = sum(each.sessions for each in found)
        if waiting >= max(QUEUE, running):
            worst = max(found, key=lambda each: each.sessions)
            return Limit(
                "PostgreSQL",
                f"{meaning[0].upper()}{meaning[1:]} ({worst.kind} {worst.event}; {waiting:.1f} on average).",
            )
    return None


def _full_machine(usage: Usage) -> Limit | None:
    if usage.used < BUSY_MACHINE * usage.cores:
        return None
    other = usage.other or 0.0
    parts = sorted(usage.roles.items(), key=lambda each: -each[1].cores)
    if other > max(NOISE_CORES, parts[0][1].cores):
        return Limit(
            "other programs", f"Other programs use {other:.2f} of {usage.cores} cores. Measure without them."
        )
    told = ", ".join(f"{part} {use.cores:.2f}" for part, use in parts if use.cores >= 0.05)
    if parts[0][0] == GENERATOR:
        return Limit(
            GENERATOR,
            f"All {usage.cores} cores are in use, and the load generator uses the most of them ({told}): run it on "
            "another machine.",
        )
    return Limit(parts[0][0], f"All {usage.cores} cores are in use, the most by the {parts[0][0]} ({told}).")


def _nothing(usage: Usage) -> Limit:
    told = f"{usage.used:.2f} of {usage.cores} cores are in use"
    return Limit("none", f"Nothing measured is at its limit ({told}): more users may do more.")


def doubts(usage: Usage) -> list[str]:
    """Return sentences about what makes the figures of a run doubtful."""
    found = []
    if usage.other is not None and usage.other > NOISE_CORES:
        # A service that was not started here may be among them.
        found.append(f"Other programs used {usage.other:.2f} of {usage.cores} cores meanwhile.")
    if usage.stolen > NOISE_STOLEN:
        found.append(f"The host gave {usage.stolen:.0%} of the time to others.")
    if usage.behind > MOST_BEHIND:
        found.append(
            f"The worker fell behind by {usage.behind:,} events: what came in is not what gets done."
        )
    return found
