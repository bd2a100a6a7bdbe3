"""How far back each look goes, and when one goes all the way."""

from core.work.due_window import SLACK_SECONDS, WHOLE_SECONDS, WHOLE_SHARE, Horizon


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_look_begins_where_the_last_one_left_off() -> None:
    clock = Clock()
    horizon = Horizon(clock=clock)
    first = horizon.look()
    assert first.seconds is None, "what was there before this process is due too"
    horizon.seen(first)
    clock.now += 0.5
    second = horizon.look()
    assert second.seconds == 0.5 + SLACK_SECONDS
    # It failed, or found more than it could take: the next one goes as far back.
    clock.now += 0.25
    assert horizon.look().seconds == 0.75 + SLACK_SECONDS
    horizon.seen(second, waited_seconds=0.125)
    assert horizon.look().seconds == 0.375 + SLACK_SECONDS
    horizon.seen(second)
    assert horizon.look().seconds == 0.25 + SLACK_SECONDS


def test_every_few_seconds_one_goes_all_the_way() -> None:
    clock = Clock()
    horizon = Horizon(clock=clock)
    horizon.seen(horizon.look())
    clock.now += WHOLE_SECONDS - 0.001
    assert horizon.look().seconds is not None
    clock.now += 0.001
    assert horizon.look().seconds is None
    whole = horizon.look()
    assert whole.seconds is None, "until one has come to its end"
    horizon.seen(whole)
    assert horizon.look().seconds == SLACK_SECONDS


def test_a_slow_one_is_rarer() -> None:
    clock = Clock()
    horizon = Horizon(clock=clock)
    whole = horizon.look()
    clock.now += 1.0
    horizon.seen(whole)
    clock.now += 1 / WHOLE_SHARE - 0.001
    assert horizon.look().seconds is not None
    clock.now += 0.001
    assert horizon.look().seconds is None
