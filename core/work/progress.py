"""What a bounded step of a job has done."""

from __future__ import annotations

from typing import NamedTuple


class Progress(NamedTuple):
    """How many of what was due were done, and how many could not be: those are tried again later."""

    done: int = 0
    failed: int = 0

    @property
    def any(self) -> bool:
        """Whether anything was due."""
        return bool(self.done or self.failed)

    def and_then(self, other: Progress) -> Progress:
        """Return both together."""
        return Progress(self.done + other.done, self.failed + other.failed)
