"""The due window: how far back a look for due work has to go.

Rows that were claimed leave dead entries at the head of the index that finds them. PostgreSQL cleans these while no
transaction can see them; a foreign one that stays open for minutes keeps them all, and each look from the head walks
over more of them. So a look begins where the last one has left off, less a slack for rows that are committed late.
The slack is short, since each look reads again what came due within it: in a backlog that was most of a look's work.
Twice a second a look goes further back, for rows that took longer to be committed. Every few seconds a look begins at
the head: it finds rows that were committed later still, or locked and let go.

Times are measured by this process and applied to the clock of the database, so that the two need not agree.
"""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

# The time from a row's due time to its commit, and from a look's begin to its snapshot: both are milliseconds.
SLACK_SECONDS: Final = 0.1
# The slack of a look that goes further back, and the time between two of them. So late is a row that took longer than
# the short slack, where the disk or the processor is slow.
LATE_SECONDS: Final = 1.0
LATE_EVERY_SECONDS: Final = 0.5
# The time between two looks from the head, and so the delay of a row that took longer than the long slack.
WHOLE_SECONDS: Final = 5.0
# Looks from the head take at most this share of the time, also when they walk over dead entries that stay.
WHOLE_SHARE: Final = 0.05


class Look(NamedTuple):
    """One look for due work: at rows that are due for at most so many seconds, or at all of them (None).

    It is `late` where it goes further back than from one look to the next.
    """

    started: float
    seconds: float | None
    late: bool = True


class DueWindow:
    """The span of due times, in seconds, that the next look for one kind of work has to cover."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._seen_until = -math.inf
        # The same for rows that were committed late.
        self._late_until = -math.inf
        self._late_at = -math.inf
        self._whole_at = -math.inf

    def look(self) -> Look:
        """Return the next look, which begins now. A look that fails is not reported to `seen`."""
        now = self._clock()
        if now >= self._whole_at:
            return Look(now, None)
        if now >= self._late_at:
            return Look(now, now - self._late_until + LATE_SECONDS)
        return Look(now, now - self._seen_until + SLACK_SECONDS, late=False)

    def again(self, look: Look) -> Look | None:
        """Return a look that goes further back than one that has found nothing, unless another has done so just now.

        Somebody may have called for it whose row was committed late, and nobody would call again.
        """
        now = self._clock()
        if look.late or now < self._late_at - LATE_EVERY_SECONDS + SLACK_SECONDS:
            return None
        return Look(now, now - self._late_until + LATE_SECONDS)

    def forget(self) -> None:
        """Let the next look go all the way: rows that were seen are due again, as long as they were."""
        self._whole_at = -math.inf

    def seen(self, look: Look, waited_seconds: float = 0.0) -> None:
        """Note that the look has found every row that was due `waited_seconds` or more before its begin."""
        self._seen_until = look.started - waited_seconds
        now = self._clock()
        if look.late:
            self._late_until = self._seen_until
            self._late_at = now + LATE_EVERY_SECONDS
        if look.seconds is None:
            self._whole_at = now + max(WHOLE_SECONDS, (now - look.started) / WHOLE_SHARE)
