"""When a delivery is tried again: by the public schedule, or by the settings of existing deployments."""

import pytest

from core.outbox.schedule import MAX_RETRY_SECONDS, STANDARD_JITTER, STANDARD_WAITS, Schedule
from core.settings import load_settings


def schedule(**settings: object) -> Schedule:
    return Schedule.of(load_settings(env_file=None, env="test", **settings))


def test_by_default_it_is_the_public_schedule() -> None:
    found = schedule()
    assert found.max_attempts == 10
    for attempt, wait in enumerate(STANDARD_WAITS, 1):
        waits = [found.wait_seconds(attempt) for _ in range(200)]
        least, most = wait * (1 - STANDARD_JITTER), min(wait * (1 + STANDARD_JITTER), MAX_RETRY_SECONDS)
        assert all(each is not None and least <= each <= most for each in waits)
        assert len(set(waits)) > 1
    assert found.wait_seconds(10) is None
    assert found.wait_seconds(11) is None


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"webhook_base_delay_secs": 3.0}, Schedule(3, 2, 5)),
        ({"webhook_backoff_factor": 3.0}, Schedule(2, 3, 5)),
        ({"webhook_max_attempts": 7}, Schedule(2, 2, 7)),
        (
            {"webhook_base_delay_secs": 1.0, "webhook_backoff_factor": 4.0, "webhook_max_attempts": 2},
            Schedule(1, 4, 2),
        ),
    ],
)
def test_any_of_the_existing_settings_brings_the_existing_schedule(
    settings: dict[str, object], expected: Schedule
) -> None:
    assert schedule(**settings) == expected


def test_the_existing_schedule() -> None:
    found = Schedule(2, 2, max_attempts=5)
    for attempt, most in ((1, 2), (2, 4), (3, 8), (4, 16)):
        wait = found.wait_seconds(attempt)
        assert wait is not None
        assert most / 2 <= wait <= most
    assert found.wait_seconds(5) is None


def test_what_the_receiver_asks_for_is_the_least_and_bounded() -> None:
    found = Schedule(2, 2, max_attempts=5)
    assert found.wait_seconds(1, 600) == 600
    assert found.wait_seconds(1, 1e12) == MAX_RETRY_SECONDS
    wait = found.wait_seconds(4, 1)
    assert wait is not None
    assert wait >= 8
    assert found.wait_seconds(5, 600) is None
