"""Slots of receivers: swift ones get many, failing ones none for a while, then one trial."""

from uuid import UUID, uuid4

from core.outbox.breakers import LEAST_RESULTS, MOST_DOUBLINGS, REMEMBERED, SWIFT_SECONDS, Breakers


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def opened(clock: Clock) -> tuple[Breakers, UUID]:
    breakers, endpoint = Breakers(30, clock=clock), uuid4()
    for _ in range(LEAST_RESULTS):
        breakers.note(endpoint, good=False, seconds=5)
    return breakers, endpoint


def test_it_opens_after_enough_failures_and_not_before() -> None:
    breakers, endpoint = Breakers(30), uuid4()
    for _ in range(LEAST_RESULTS - 1):
        breakers.note(endpoint, good=False, seconds=0.1)
        assert breakers.left_alone() == (set(), set())
    breakers.note(endpoint, good=False, seconds=0.1)
    assert breakers.left_alone() == ({endpoint}, set())


def test_it_stays_closed_while_a_half_is_good() -> None:
    breakers, endpoint = Breakers(30), uuid4()
    for number in range(300):
        breakers.note(endpoint, good=number % 2 == 0, seconds=0.1)
    assert breakers.left_alone() == (set(), set())


def test_one_try_at_a_time_and_twice_the_time_after_each_that_fails() -> None:
    clock = Clock()
    breakers, endpoint = opened(clock)
    wait = 30.0
    for failed in range(MOST_DOUBLINGS + 3):
        clock.now += wait - 0.1
        assert breakers.left_alone() == ({endpoint}, set()), failed
        clock.now += 0.2
        assert breakers.left_alone() == (set(), {endpoint}), failed
        assert breakers.started(endpoint)
        assert breakers.left_alone() == ({endpoint}, set()), "one is under way"
        breakers.note(endpoint, good=False, seconds=5)
        wait = min(wait * 2, 30 * 2.0**MOST_DOUBLINGS)
    assert breakers.left_alone() == ({endpoint}, set())


def test_a_try_that_succeeds_ends_it() -> None:
    clock = Clock()
    breakers, endpoint = opened(clock)
    clock.now += 31
    breakers.started(endpoint)
    breakers.note(endpoint, good=True, seconds=0.1)
    assert breakers.left_alone() == (set(), set())
    assert breakers.is_swift(endpoint)
    assert not breakers.started(endpoint)


def test_a_try_without_a_verdict_is_made_again() -> None:
    clock = Clock()
    breakers, endpoint = opened(clock)
    clock.now += 31
    breakers.started(endpoint)
    breakers.abandoned(endpoint)
    assert breakers.left_alone() == (set(), {endpoint})


def test_what_began_before_it_opened_says_nothing_new() -> None:
    clock = Clock()
    breakers, endpoint = opened(clock)
    for _ in range(5):
        breakers.note(endpoint, good=False, seconds=5)
    clock.now += 31
    assert breakers.left_alone() == (set(), {endpoint})


def test_swift_is_who_answered_well_and_in_time_the_last_time() -> None:
    breakers, endpoint = Breakers(30), uuid4()
    assert not breakers.is_swift(endpoint)
    breakers.note(endpoint, good=True, seconds=0.1)
    assert breakers.is_swift(endpoint)
    breakers.note(endpoint, good=True, seconds=SWIFT_SECONDS + 0.1)
    assert not breakers.is_swift(endpoint)
    breakers.note(endpoint, good=True, seconds=0.1)
    breakers.note(endpoint, good=False, seconds=0.1)
    assert not breakers.is_swift(endpoint)


def test_nobody_is_left_alone_when_it_is_off() -> None:
    breakers, endpoint = Breakers(0), uuid4()
    for _ in range(100):
        breakers.note(endpoint, good=False, seconds=5)
    assert breakers.left_alone() == (set(), set())


def test_what_is_remembered_is_bounded() -> None:
    breakers = Breakers(30)
    for _ in range(REMEMBERED + 100):
        breakers.note(uuid4(), good=True, seconds=0.1)
        dead = uuid4()
        for _ in range(LEAST_RESULTS):
            breakers.note(dead, good=False, seconds=5)
    nothing, one = breakers.left_alone()
    assert (len(nothing), len(one), len(breakers._swift)) == (REMEMBERED, 0, REMEMBERED)
