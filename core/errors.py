"""Refusals: the expected ways in which core says no. Each surface has one table of their HTTP forms."""

from __future__ import annotations

from typing import Any


class Refusal(Exception):
    """An expected "no", with a stable snake_case code, one sentence for a person, and members for a machine.

    `retry_after` is in seconds and says that the same call may work later. `replayed` says that the refusal is the
    stored outcome of the same idempotency key.
    """

    def __init__(self, code: str, detail: str, *, retry_after: float | None = None, **extra: Any) -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.detail = detail
        self.retry_after = retry_after
        self.replayed = False
        self.extra: dict[str, Any] = extra


def expect_revision(present: int, expected: int | None, thing: str) -> None:
    """Raise Refusal `precondition_failed`, which tells the present revision, unless it is as expected (None: any)."""
    if expected is not None and present != expected:
        raise Refusal("precondition_failed", f"{thing} was changed since.", revision=present)


class Unavailable(Refusal):
    """A part that the service needs is gone for now. The call has not happened, or is safe to repeat."""

    def __init__(
        self,
        detail: str = "The database cannot be reached at the moment. Nothing was lost; repeat the call.",
        *,
        code: str = "database_unavailable",
        retry_after: float = 1.0,
    ) -> None:
        super().__init__(code, detail, retry_after=retry_after)
