"""The backups that are kept: the newest of each day, week and month, for as many of them as are asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from datetime import datetime


class Keep(NamedTuple):
    """The number of backups to keep by each rule. Nothing is removed where all are 0."""

    last: int = 0
    daily: int = 0
    weekly: int = 0
    monthly: int = 0


def kept(times: Iterable[datetime], keep: Keep) -> set[datetime]:
    """Return the times (UTC) of the backups to keep: always the newest, and what any of the rules names.

    A rule names the newest backup of each of the latest days, weeks (from Monday) or months that have one; days
    without a backup do not count, so that a pause of a month removes nothing.
    """
    newest_first = sorted(set(times), reverse=True)
    if not any(keep):
        return set(newest_first)
    chosen = set(newest_first[: max(keep.last, 1)])
    rules: tuple[tuple[int, Callable[[datetime], object]], ...] = (
        (keep.daily, lambda time: time.date()),
        (keep.weekly, lambda time: time.isocalendar()[:2]),
        (keep.monthly, lambda time: (time.year, time.month)),
    )
    for most, span_of in rules:
        newest: dict[object, datetime] = {}
        for time in newest_first:
            newest.setdefault(span_of(time), time)
        chosen.update(list(newest.values())[:most])
    return chosen
