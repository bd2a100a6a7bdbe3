"""The plan of a full run, drawn from its seed: what is killed and cut, how often, in which order and together."""

import random
from typing import NamedTuple

import msgspec

from loadtests.chaos.plan import KINDS as SMALL
from loadtests.chaos.plan import Fault, Kind

#: The servers that are reached over a link that may fail, and the longest that a fault of it is held.
LINKS = {"postgres": 2.0, "valkey": 2.0, "receiver": 3.0, "provider": 2.0}
WAYS = ("cut", "tear", "slow", "mute", "hole", "stall", "half")


class Weighed(NamedTuple):
    """A kind of fault, and its share of all faults that kill, or of all that do not."""

    kind: Kind
    weight: int


KILLS = {
    "api.kill": Weighed(SMALL["api.kill"], 28),
    "api.all": Weighed(Kind("api", kills=True), 4),
    "master.kill": Weighed(SMALL["master.kill"], 2),
    "worker.kill": Weighed(Kind("worker", kills=True, longest=0.5), 26),
    "worker.all": Weighed(Kind("worker", kills=True, longest=0.5), 4),
    "till.kill": Weighed(Kind("till", kills=True, longest=0.5), 8),
    "receiver.kill": Weighed(Kind("receiver", kills=True, longest=1.0), 10),
    "backend.kill": Weighed(SMALL["backend.kill"], 16),
    "postgres.kill": Weighed(Kind("postgres", kills=True, longest=1.0), 8),
    "valkey.kill": Weighed(Kind("valkey", kills=True, longest=1.0), 8),
    "valkey.wipe": Weighed(Kind("valkey", kills=True, longest=1.0), 6),
}
OTHERS = {
    **{
        f"{name}-link.{way}": Weighed(Kind(f"{name}-link", kills=False, shortest=0.3, longest=longest), 1)
        for name, longest in LINKS.items()
        for way in WAYS
    },
    "disk.full": Weighed(Kind("postgres", kills=False, shortest=1.5, longest=4.0), 5),
    "clock.forward": Weighed(Kind("clock", kills=False, shortest=0.5, longest=3.0), 5),
    "clock.back": Weighed(Kind("clock", kills=False, shortest=0.5, longest=3.0), 5),
    "provider.storm": Weighed(Kind("provider", kills=False, shortest=2.0, longest=4.0), 4),
    "api.pause": Weighed(SMALL["api.pause"], 1),
    "api.reload": Weighed(SMALL["api.reload"], 1),
    "worker.pause": Weighed(SMALL["worker.pause"], 1),
    "worker.restart": Weighed(SMALL["worker.restart"], 1),
    "postgres.pause": Weighed(SMALL["postgres.pause"], 1),
    "postgres.restart": Weighed(SMALL["postgres.restart"], 1),
    "valkey.pause": Weighed(SMALL["valkey.pause"], 1),
}
KINDS = {name: weighed.kind for name, weighed in (KILLS | OTHERS).items()}
#: After so many kills comes one fault that kills nothing.
KILLS_BETWEEN = 4
#: So many faults of different targets happen at the same time, at most, and how often another one joins.
MOST_TOGETHER, JOINS = 4, 0.85


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """The sizes of a full run. The load: new events, transfers and holds, and payments a second."""

    seed: int = 12
    kills: int = 1_000
    events_a_second: float = 30.0
    transfers_a_second: float = 15.0
    payments_a_second: float = 2.0
    #: The books are audited so often on the way.
    checkpoints: int = 5
    #: The first steps of the script are left out: a run that goes on where another one was stopped.
    first_step: int = 1
    #: After so many seconds no further step begins; None: all of them do.
    seconds: float | None = None
    #: For so long nothing may get on before the rest counts as lost.
    patience_seconds: float = 90.0


def steps(plan: Plan) -> list[tuple[Fault, ...]]:
    """Return the faults in their order; those of one step happen at the same time."""
    draw = random.Random(f"full faults {plan.seed}")
    waiting = _mixed(plan.kills, draw)
    found: list[tuple[Fault, ...]] = []
    while waiting:
        step = [waiting.pop(0)]
        # The next faults that meet none of their own target join, in order.
        for fault in waiting[: 2 * MOST_TOGETHER]:
            taken = {KINDS[one.name].target for one in step}
            if len(step) < MOST_TOGETHER and KINDS[fault.name].target not in taken and draw.random() < JOINS:
                step.append(fault)
                waiting.remove(fault)
        found.append(tuple(step))
    return found


def _mixed(kills: int, draw: random.Random) -> list[Fault]:
    killing, others = _shared(KILLS, kills, draw), _shared(OTHERS, kills // KILLS_BETWEEN, draw)
    mixed = []
    for number, name in enumerate(killing, 1):
        mixed.append(_held(name, draw))
        if number % KILLS_BETWEEN == 0:
            mixed.append(_held(others.pop(), draw))
    return mixed


def _shared(kinds: dict[str, Weighed], count: int, draw: random.Random) -> list[str]:
    """Return `count` names, each as often as its weight says, in an order of their own."""
    deck = [name for name, weighed in kinds.items() for _ in range(weighed.weight)]
    names = deck * (count // len(deck)) + draw.sample(deck, count % len(deck))
    return draw.sample(names, len(names))


def _held(name: str, draw: random.Random) -> Fault:
    kind = KINDS[name]
    return Fault(name, round(draw.uniform(kind.shortest, kind.longest), 2))
