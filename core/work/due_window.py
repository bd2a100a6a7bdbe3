"""How far back a look for due work has to go.

Work that was taken leaves dead entries at the head of the index that finds it. They are cleaned as long as nobody can
see them; a foreign transaction that stays open for minutes keeps them all, and each look that begins at the head walks
over more of them. So a look begins where the last one has left off, less a slack for what is committed late, and only
every few seconds at the head: what was committed later still, or was locked by somebody who then let it be, is found by
that one.

Times are measured by this process and applied to the clock of the database, so that the two need not agree.
"""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

# From the time that a row bears to its commit, and from the begin of a look to its snapshot: both take milliseconds.
SLACK_SECONDS: Final = 1.0
# How late work can be that took longer than that.
WHOLE_SECONDS: Final = 5.0
# A look at everything that has become slow, since it walks over what cannot be cleaned, takes this share of the time.
WHOLE_SHARE: Final = 0.05


class Look(NamedTuple):
    """One look for due work: at what is due for at most so many seconds, or at all of it (None)."""

    started: float
    seconds: float | None


class DueWindow:
    """The span of due times, in seconds, that the next look for one kind of work has to cover."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._seen_until = -math.inf
        self._whole_at = -math.inf

    def look(self) -> Look:
        """Begin a look. One that fails is simply not `seen`."""
        now = self._clock()
        whole = now >= self._whole_at
        return Look(now, None if whole else now - self._seen_until + SLACK_SECONDS)

    def seen(self, look: Look, waited_seconds: float = 0.0) -> None:
        """Note that all is seen that was due before `waited_seconds` ago, as seen from the begin of the look."""
        self._seen_until = look.started - waited_seconds
        if look.seconds is None:
            now = self._clock()
            self._whole_at = now + max(WHOLE_SECONDS, (now - look.started) / WHOLE_SHARE)
