"""How long to wait before another try. Jitter keeps what failed together from coming back together.

(https://aws.amazon.com/builders-library/timeouts-retries-and-backoff-with-jitter/)
"""

from __future__ import annotations

import random


def full_jitter(attempt: int, *, base_seconds: float, cap_seconds: float, factor: float = 2.0) -> float:
    """Return seconds between 0 and `min(cap, base * factor ** (attempt - 1))`; `attempt` counts from 1.

    For work of our own, where an early try costs little and spreading the load is everything.
    """
    return random.uniform(0.0, _ceiling(attempt, base_seconds, cap_seconds, factor))  # noqa: S311 - spreads load


def half_jitter(attempt: int, *, base_seconds: float, cap_seconds: float, factor: float = 2.0) -> float:
    """Return seconds between the half and the whole of that ceiling.

    For calls on others: they are promised a schedule, and a handful of tries must not be burnt within a second.
    """
    ceiling = _ceiling(attempt, base_seconds, cap_seconds, factor)
    return random.uniform(ceiling / 2, ceiling)  # noqa: S311 - spreads load


def _ceiling(attempt: int, base_seconds: float, cap_seconds: float, factor: float) -> float:
    # The exponent is bounded because a float overflows at about 2 ** 1024.
    return min(cap_seconds, base_seconds * factor ** min(max(attempt - 1, 0), 60))
