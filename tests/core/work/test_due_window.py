"""How far back each look goes, and when one goes all the way."""

import pytest

from core.work.due_window import (
    LATE_EVERY_SECONDS,
    LATE_SECONDS,
    SLACK_SECONDS,
    WHOLE_SECONDS,
    WHOLE_SHARE,
    DueWindow,
)


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_look_begins_where_the_last_one_left_off() -> None:
    clock = Clock()
    window = DueWindow(clock=clock)
    first = window.look()
    assert first.seconds is None, "what was there before this process is due too"
    window.seen(first)
    clock.now += 0.25
    second = window.look()
    assert second.seconds == 0.25 + SLACK_SECONDS
    # It failed, or found more than it could take: the next one goes as far back.
    clock.now += 0.125
    assert window.look().seconds == 0.375 + SLACK_SECONDS
    window.seen(second, waited_seconds=0.125)
    assert window.look().seconds == 0.25 + SLACK_SECONDS
    window.seen(second)
    assert window.look().seconds == 0.125 + SLACK_SECONDS


def test_what_was_committed_late_is_found_by_a_look_that_goes_further_back() -> None:
    """Looks come ten times a second; whatever is committed within the long slack, one of them has it soon."""
    clock = Clock()
    window = DueWindow(clock=clock)
    window.seen(window.look())
    due, committed = clock.now, clock.now + LATE_SECONDS - 0.01
    spans = []
    while True:
        clock.now += 0.1
        look = window.look()
        assert look.seconds is not None
        window.seen(look)
        spans.append(look.seconds)
        if clock.now >= committed and clock.now - look.seconds <= due:
            break
    assert clock.now < committed + LATE_EVERY_SECONDS + 0.2
    assert sum(seconds > 2 * SLACK_SECONDS + 0.01 for seconds in spans) <= 3, "most of them go back a little"


def test_every_few_seconds_one_goes_all_the_way() -> None:
    clock = Clock()
    window = DueWindow(clock=clock)
    window.seen(window.look())
    clock.now += WHOLE_SECONDS - 0.001
    assert window.look().seconds is not None
    clock.now += 0.001
    assert window.look().seconds is None
    whole = window.look()
    assert whole.seconds is None, "until one has come to its end"
    window.seen(whole)
    assert window.look().seconds == pytest.approx(SLACK_SECONDS)


def test_what_is_due_again_is_found_by_the_next_one() -> None:
    window = DueWindow(clock=Clock())
    window.seen(window.look())
    window.forget()
    whole = window.look()
    assert whole.seconds is None
    window.seen(whole)
    assert window.look().seconds is not None


def test_a_slow_one_is_rarer() -> None:
    clock = Clock()
    window = DueWindow(clock=clock)
    whole = window.look()
    clock.now += 1.0
    window.seen(whole)
    clock.now += 1 / WHOLE_SHARE - 0.001
    assert window.look().seconds is not None
    clock.now += 0.001
    assert window.look().seconds is None
