"""The times at which a provider is asked how an attempt stands: soon at first, then ever less often."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Final

from core.payments.states import OPEN_STATES, Effect, State
from core.providers.protocol import RHYTHMS
from core.work.retries import half_jitter

if TYPE_CHECKING:
    from collections.abc import Collection

# Longer than any call of a provider's file may take, and its answer's way into the database: an attempt without an
# answer after this has none. No look may begin before, since a provider would truly not have heard of it yet.
CALL_SECONDS: Final = 60.0
# Looks at one attempt while it is claimed: another worker takes it over after so long.
LEASE_SECONDS: Final = 60.0
# Payers take minutes, and events tell most ends; a day's payments must not cost a provider's whole budget of calls.
FIRST_LOOK_SECONDS: Final = 15.0
LAST_LOOK_SECONDS: Final = 3_600.0
# A deployment may ask for less than that, but not for a call of every open payment in each step.
LEAST_LOOK_SECONDS: Final = 60.0
# Somebody waits for the outcome of these, so they start sooner.
FIRST_URGENT_SECONDS: Final = 2.0


def seconds_to_look(
    state: State,
    effects: Collection[Effect],
    looks: int,
    *,
    giving_up: bool,
    provider: str = "",
    age: timedelta = timedelta(0),
    nameless: bool = False,
    longest: float = LAST_LOOK_SECONDS,
) -> float | None:
    """Return in how many seconds the provider is asked next, at most `longest`; None for never.

    A provider with a rhythm of its own is asked by the attempt's `age` alone. It knows a payment by its own id only, so
    it is never asked about an attempt that is `nameless`: a person has to find out.
    """
    rhythm = RHYTHMS.get(provider)
    if rhythm is not None and nameless and state is not State.CREATED:
        return None
    if state is State.CREATED:
        return CALL_SECONDS
    if Effect.GIVE_UP in effects:
        return 0.0
    if state not in OPEN_STATES and not giving_up:
        return None
    if rhythm is not None:
        return next(seconds for until, seconds in rhythm if age < until)
    longest = min(max(longest, LEAST_LOOK_SECONDS), LAST_LOOK_SECONDS)
    urgent = giving_up or state is State.UNKNOWN
    first = FIRST_URGENT_SECONDS if urgent else FIRST_LOOK_SECONDS
    return half_jitter(looks + 1, base_seconds=first, cap_seconds=longest)
