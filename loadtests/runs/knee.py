"""The knee: the load up to which more users get more done in time. Computed from the steps of a run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loadtests.budgets import Line

#: Users rise by this factor from step to step.
GROWTH = 1.5
#: Half as many users again have to get at least a tenth more done, or the service has no more to give.
LEAST_GAIN = 0.1
FLAT_STEPS = 2
MOST_STEPS = 16
#: Beyond this a process runs out of descriptors as systems usually allow them.
MOST_USERS = 1_000


class Step(msgspec.Struct, frozen=True):
    """One step: its users, the requests a second, and the budgets held against it."""

    users: int
    per_second: float
    lines: list[Line]

    @property
    def breaches(self) -> list[str]:
        """The sentences of the breaches."""
        return [f"{line.name}: {line.breach}" for line in self.lines if line.breach]


class Knee(msgspec.Struct, frozen=True):
    """The last step that was good, None where the first was not; and why the next one was not."""

    step: Step | None
    reason: str


def next_users(users: int) -> int:
    """Return the users of the next step."""
    return max(users + 1, round(users * GROWTH))


def find_knee(steps: Sequence[Step]) -> Knee | None:
    """Return the knee, or None as long as the load may rise: no step but the last has breached a budget.

    One step that gains little may be chance, two in a row are not.
    """
    best: Step | None = None
    flat = 0
    for step in steps:
        if step.breaches:
            return Knee(best, f"at {step.users} users, {step.breaches[0]}")
        if best is None or step.per_second >= best.per_second * (1 + LEAST_GAIN):
            best, flat = step, 0
        else:
            flat += 1
    if best is None:
        return None
    last = steps[-1]
    if flat >= FLAT_STEPS:
        return Knee(best, f"{last.users} users get {last.per_second:,.0f} requests a second done")
    if len(steps) >= MOST_STEPS or next_users(last.users) > MOST_USERS:
        return Knee(best, f"the load was not raised beyond {last.users} users")
    return None
