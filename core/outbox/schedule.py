"""The schedule by which a delivery is tried again."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from core.work.retries import half_jitter

if TYPE_CHECKING:
    from core.settings import Settings

# A wait could grow to years by the factor that is set.
MAX_RETRY_SECONDS: Final = 86_400.0
# The example schedule of Standard Webhooks v1.0.0, in seconds: ten attempts within 76 hours.
STANDARD_WAITS: Final = (5.0, 300.0, 1800.0, 7200.0, 18_000.0, 36_000.0, 50_400.0, 72_000.0, 86_400.0)
# The share of the wait by which it varies, so that deliveries that failed together do not come back together.
STANDARD_JITTER: Final = 0.1


@dataclass(frozen=True, slots=True)
class Schedule:
    """The number of attempts, and the waits between them: about `base * factor ** (attempt - 1)` seconds each.

    `waits`, where given, are the waits in seconds instead, one less than there are attempts.
    """

    base_seconds: float
    factor: float
    max_attempts: int
    waits: tuple[float, ...] = ()

    @classmethod
    def of(cls, settings: Settings) -> Schedule:
        """Read the schedule from WEBHOOK_BASE_DELAY_SECS, WEBHOOK_BACKOFF_FACTOR, WEBHOOK_MAX_ATTEMPTS.

        Without any of them it is the schedule of Standard Webhooks.
        """
        base, factor = settings.webhook_base_delay_secs, settings.webhook_backoff_factor
        attempts = settings.webhook_max_attempts
        if base is None and factor is None and attempts is None:
            return cls(STANDARD_WAITS[0], 1.0, len(STANDARD_WAITS) + 1, STANDARD_WAITS)
        return cls(2.0 if base is None else base, 2.0 if factor is None else factor, attempts or 5)

    def wait_seconds(self, attempt: int, asked_seconds: float | None = None) -> float | None:
        """Return the wait after the failed `attempt`, which counts from 1, or None when it was the last one.

        The wait is at least what the receiver has asked for, and at most MAX_RETRY_SECONDS.
        """
        if attempt >= self.max_attempts:
            return None
        if self.waits:
            jitter = random.uniform(1 - STANDARD_JITTER, 1 + STANDARD_JITTER)  # noqa: S311 - spreads load
            wait = self.waits[min(attempt, len(self.waits)) - 1] * jitter
        else:
            wait = half_jitter(
                attempt, base_seconds=self.base_seconds, cap_seconds=MAX_RETRY_SECONDS, factor=self.factor
            )
        return min(max(wait, asked_seconds or 0.0), MAX_RETRY_SECONDS)
