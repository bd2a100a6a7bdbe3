"""The result of a bounded step of a job."""

from __future__ import annotations

from typing import NamedTuple


class Progress(NamedTuple):
    """The numbers of due rows that were done, and of those that failed and are tried again later."""

    done: int = 0
    failed: int = 0

    @property
    def any(self) -> bool:
        """Whether anything was due."""
        return bool(self.done or self.failed)

    def and_then(self, other: Progress) -> Progress:
        """Return the sums of both."""
        return Progress(self.done + other.done, self.failed + other.failed)
