"""Waits between tries stay within their bounds, for any attempt."""

import pytest

from core.work.backoff import full_jitter, half_jitter


@pytest.mark.parametrize(
    ("attempt", "ceiling"), [(0, 2.0), (1, 2.0), (2, 4.0), (5, 32.0), (9, 60.0), (10_000, 60.0)]
)
def test_bounds(attempt: int, ceiling: float) -> None:
    full = [full_jitter(attempt, base_seconds=2.0, cap_seconds=60.0) for _ in range(500)]
    half = [half_jitter(attempt, base_seconds=2.0, cap_seconds=60.0) for _ in range(500)]
    assert all(0 <= wait <= ceiling for wait in full)
    assert all(ceiling / 2 <= wait <= ceiling for wait in half)
    # They spread: nearly nothing of the range is left out.
    assert max(full) - min(full) > ceiling * 0.8
    assert max(half) - min(half) > ceiling * 0.4
