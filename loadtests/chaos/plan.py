"""The plan of a run, drawn from its seed: the faults with their order and length, the events and how each is sent."""

import random
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import msgspec


class Kind(NamedTuple):
    """A kind of fault. One `target` has one fault at a time, held for `shortest` to `longest` seconds.

    A held target stays paused, or stays down before it is started again.
    """

    target: str
    kills: bool
    shortest: float = 0.0
    longest: float = 0.0


KINDS = {
    "api.kill": Kind("api", kills=True),
    "worker.kill": Kind("worker", kills=True, longest=1.0),
    "postgres.kill": Kind("postgres", kills=True, shortest=0.2, longest=2.0),
    # Valkey is killed, and started again without its data.
    "valkey.wipe": Kind("valkey", kills=True, shortest=0.2, longest=2.0),
    "valkey.kill": Kind("valkey", kills=True, shortest=0.2, longest=2.0),
    # One process of the server is killed; the postmaster ends all others and recovers.
    "backend.kill": Kind("postgres", kills=True),
    # The supervisor is killed; its processes end in order, and it is started again.
    "master.kill": Kind("api", kills=True, longest=0.5),
    "receiver.kill": Kind("receiver", kills=True, shortest=0.2, longest=1.5),
    "api.pause": Kind("api", kills=False, shortest=0.3, longest=2.0),
    # After five seconds the other worker takes the work over, and this one must not finish it when it wakes up.
    "worker.pause": Kind("worker", kills=False, shortest=0.5, longest=8.0),
    "postgres.pause": Kind("postgres", kills=False, shortest=0.3, longest=2.0),
    "valkey.pause": Kind("valkey", kills=False, shortest=0.3, longest=2.0),
    "receiver.pause": Kind("receiver", kills=False, shortest=0.3, longest=3.0),
    "api.reload": Kind("api", kills=False),
    "worker.restart": Kind("worker", kills=False),
    "postgres.restart": Kind("postgres", kills=False),
    "valkey.restart": Kind("valkey", kills=False),
}
#: The kills that every run begins with, in an order of its own, however short it is.
FIRST = ("api.kill", "worker.kill", "postgres.kill", "valkey.wipe")
#: After so many kills comes one fault that kills nothing.
KILLS_BETWEEN = 2
#: How often two faults of different targets happen at the same time.
TOGETHER = 0.3

SHOPS = 3
#: The shares of events sent twice at once, again later though acknowledged, and with a wrong secret.
TWICE, LATE, FORGED = 0.15, 0.10, 0.01


class Fault(NamedTuple):
    """One fault, held for `seconds`."""

    name: str
    seconds: float

    @property
    def kind(self) -> Kind:
        """The kind of the fault."""
        return KINDS[self.name]


class Event(NamedTuple):
    """One event of the stream: a payment of its own, for one of the shops. `sending`: once, twice, late or forged."""

    number: int
    id: str
    intent: str
    shop: int
    amount: int
    sending: str


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """The sizes of a run."""

    seed: int = 1
    events: int = 20_000
    kills: int = 50
    #: New events a second, while the service takes them.
    rate: float = 200.0
    #: For this long nothing may get on before the rest counts as lost.
    patience_seconds: float = 60.0


def steps(plan: Plan) -> list[tuple[Fault, ...]]:
    """The faults in their order; those of one step happen at the same time."""
    draw = random.Random(f"faults {plan.seed}")
    found: list[tuple[Fault, ...]] = []
    for fault in _faults(plan.kills, draw):
        alone = not found or len(found[-1]) > 1 or found[-1][0].kind.target == fault.kind.target
        if alone or draw.random() > TOGETHER:
            found.append((fault,))
        else:
            found[-1] += (fault,)
    return found


def _faults(kills: int, draw: random.Random) -> Iterator[Fault]:
    rest = [name for name, kind in KINDS.items() if kind.kills and name not in FIRST]
    killing = _dealt([draw.sample(FIRST, len(FIRST)) + draw.sample(rest, len(rest))], (*FIRST, *rest), draw)
    others = _dealt([], [name for name, kind in KINDS.items() if not kind.kills], draw)
    for number in range(1, kills + 1):
        yield _held(next(killing), draw)
        if number % KILLS_BETWEEN == 0:
            yield _held(next(others), draw)


def _dealt(first: list[list[str]], names: Iterable[str], draw: random.Random) -> Iterator[str]:
    """The names in an order of their own time after time, so that none is left out."""
    for deal in first:
        yield from deal
    names = list(names)
    while True:
        yield from draw.sample(names, len(names))


def _held(name: str, draw: random.Random) -> Fault:
    kind = KINDS[name]
    return Fault(name, round(draw.uniform(kind.shortest, kind.longest), 2))


def events(plan: Plan) -> list[Event]:
    """The stream."""
    return list(stream(plan))


def stream(plan: Plan) -> Iterator[Event]:
    """Draw the stream event by event: one of hours would take seconds and a quarter of a gigabyte at once."""
    draw = random.Random(f"events {plan.seed}")
    return (_event(plan.seed, number, draw) for number in range(plan.events))


def _event(seed: int, number: int, draw: random.Random) -> Event:
    name = f"chaos_{seed}_{number:06}"
    (sending,) = draw.choices(
        ("twice", "late", "forged", "once"), (TWICE, LATE, FORGED, 1 - TWICE - LATE - FORGED)
    )
    return Event(
        number, f"evt_{name}", f"pi_{name}", draw.randrange(SHOPS), draw.randint(100, 99_999), sending
    )
