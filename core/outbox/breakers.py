"""Circuit breakers, one for each receiver as one worker process knows it: swift, slow, or left alone for a while.

Two rules keep the slots of a process for receivers that use them well. A receiver that has answered swiftly gets many
slots, and more while it uses all of them and keeps up; any other gets a few, and all of those together get a part, so
that a hundred dead receivers do not fill a process. A receiver that mostly fails is left alone: its deliveries wait and
use up no attempt, until one delivery tries it again.
"""

from __future__ import annotations

import time
from collections import OrderedDict, deque
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Final, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable
    from uuid import UUID

Known = TypeVar("Known")

# A breaker opens when this share of the last RESULTS attempts, LEAST_RESULTS at least, had no good answer.
RESULTS: Final = 20
LEAST_RESULTS: Final = 10
FAILING_SHARE: Final = 0.7
# Each trial that fails doubles the time for which a receiver is left alone, up to 2 ** MOST_DOUBLINGS.
MOST_DOUBLINGS: Final = 4
# A receiver whose answers take longer would occupy slots for too long to be given many of them.
SWIFT_SECONDS: Final = 1.0
# The slots of a receiver that has become swift. While it uses all that it has, each answer within KEEPS_UP_SECONDS
# gives it one more, which doubles them with each round; an answer that takes longer takes one away.
FIRST_SLOTS: Final = 8
MOST_SLOTS: Final = 64
KEEPS_UP_SECONDS: Final = 0.25
SLOTS_OF_OTHER: Final = 2
# Receivers that a process remembers, of each kind; a forgotten one is met like a new one.
REMEMBERED: Final = 4_096


@dataclass(slots=True)
class _Breaker:
    results: deque[bool] = field(default_factory=lambda: deque(maxlen=RESULTS))
    """True for each attempt that failed, the oldest first."""
    opened: int = 0
    """The number of times that it has opened since the receiver was last well; 0 means closed."""
    open_until: float = 0.0
    trying: bool = False


class Breakers:
    """The breakers of one process, by endpoint. With `open_seconds` 0 no receiver is left alone."""

    def __init__(self, open_seconds: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._open_seconds = open_seconds
        self._clock = clock
        # The receivers that are swift, with their slots; the last to answer is the last of them.
        self._swift: OrderedDict[UUID, int] = OrderedDict()
        self._breakers: OrderedDict[UUID, _Breaker] = OrderedDict()

    def is_swift(self, endpoint_id: UUID) -> bool:
        """Say whether the receiver's last answer was good and came in time."""
        return endpoint_id in self._swift

    def slots_of(self, endpoint_id: UUID) -> int:
        """Return how many requests may be under way to the receiver at once."""
        return self._swift.get(endpoint_id, SLOTS_OF_OTHER)

    def latest_swift(self, most: int) -> list[UUID]:
        """Return up to `most` swift receivers, those that have answered last."""
        return list(islice(reversed(self._swift), most))

    def left_alone(self) -> tuple[set[UUID], set[UUID]]:
        """Return the endpoints that get nothing now, and those that get one delivery as a trial."""
        now = self._clock()
        nothing: set[UUID] = set()
        one: set[UUID] = set()
        for endpoint_id, breaker in self._breakers.items():
            if breaker.opened:
                waits = breaker.trying or now < breaker.open_until
                (nothing if waits else one).add(endpoint_id)
        return nothing, one

    def started(self, endpoint_id: UUID) -> bool:
        """Note that an attempt begins, and say whether it is the trial of a receiver that was left alone."""
        breaker = self._breakers.get(endpoint_id)
        if breaker is None or not breaker.opened:
            return False
        breaker.trying = True
        return True

    def abandoned(self, endpoint_id: UUID) -> None:
        """Note that an attempt ended without a verdict."""
        breaker = self._breakers.get(endpoint_id)
        if breaker is not None:
            breaker.trying = False

    def note(self, endpoint_id: UUID, *, good: bool, seconds: float, full: bool = False) -> None:
        """Note how an attempt ended, and whether the receiver was using all its slots (`full`).

        A good answer is any that is neither 5xx nor 429.
        """
        if good and seconds <= SWIFT_SECONDS:
            slots = self._swift.get(endpoint_id, FIRST_SLOTS)
            if seconds > KEEPS_UP_SECONDS:
                slots = max(slots - 1, FIRST_SLOTS)
            elif full:
                slots = min(slots + 1, MOST_SLOTS)
            _remember(self._swift, endpoint_id, slots)
        else:
            self._swift.pop(endpoint_id, None)
        breaker = self._breakers.get(endpoint_id)
        if self._open_seconds > 0 and (breaker is not None or not good):
            breaker = breaker or _Breaker()
            if self._is_well(breaker, good=good):
                self._breakers.pop(endpoint_id, None)
            else:
                _remember(self._breakers, endpoint_id, breaker)

    def _is_well(self, breaker: _Breaker, *, good: bool) -> bool:
        """Count the result, and say whether the breaker need not be kept any longer."""
        if breaker.opened:
            if good:
                return True
            # An attempt that began before the breaker opened tells nothing new.
            if breaker.trying:
                breaker.trying = False
                self._open(breaker)
            return False
        breaker.results.append(not good)
        failed = sum(breaker.results)
        if len(breaker.results) >= LEAST_RESULTS and failed >= FAILING_SHARE * len(breaker.results):
            self._open(breaker)
        return failed == 0

    def _open(self, breaker: _Breaker) -> None:
        doublings = min(breaker.opened, MOST_DOUBLINGS)
        breaker.opened += 1
        breaker.open_until = self._clock() + self._open_seconds * 2.0**doublings


def _remember(known: OrderedDict[UUID, Known], endpoint_id: UUID, value: Known) -> None:
    known[endpoint_id] = value
    known.move_to_end(endpoint_id)
    if len(known) > REMEMBERED:
        known.popitem(last=False)
