import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtests.bench.figures import Figure, Figures, latency_summary, percentile, slope_per_second


def figure(name: str, rate: float, *, number: int = 1, **changes: object) -> Figure:
    values: dict[str, object] = {
        "name": name,
        "unit": "transfers/s",
        "rate": rate,
        "seconds": 1.0,
        "requests": 10,
        "connections": 1,
        "client": "raw",
        "latency_ms": {"p50": 1.0},
        "errors": {},
        "round": number,
    }
    return Figure(**{**values, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("percent", "expected"),
    [(0, 1), (10, 1), (10.1, 2), (50, 5), (50.1, 6), (90, 9), (99, 10), (100, 10)],
)
def test_percentile_is_the_nearest_rank(percent: float, expected: int) -> None:
    assert percentile(list(range(1, 11)), percent) == expected


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=200), st.floats(0, 100))
def test_at_least_the_percentage_lies_at_or_below_a_percentile(values: list[float], percent: float) -> None:
    ordered = sorted(values)
    found = percentile(ordered, percent)
    assert found in ordered
    below = sum(value <= found for value in ordered)
    assert below >= math.floor(percent / 100 * len(ordered))


@pytest.mark.parametrize(("values", "percent"), [([], 50), ([1.0], -0.1), ([1.0], 100.1)])
def test_percentile_refuses_what_has_no_meaning(values: list[float], percent: float) -> None:
    with pytest.raises(ValueError, match=r"no values|percentage"):
        percentile(values, percent)


def test_latency_summary_is_in_milliseconds_whatever_the_order() -> None:
    summary = latency_summary([0.004, 0.001, 0.002, 0.003])
    assert summary == {"p50": 2, "p90": 4, "p95": 4, "p99": 4, "p99.9": 4, "mean": 2.5, "max": 4}
    assert latency_summary([]) == {}


def test_slope_is_that_of_the_best_line() -> None:
    assert slope_per_second([(0, 100), (10, 105), (20, 110)]) == pytest.approx(0.5)
    assert slope_per_second([(0, 100), (10, 90), (20, 100), (30, 90)]) == pytest.approx(-0.2)
    assert slope_per_second([(5, 100), (5, 900)]) == slope_per_second([]) == 0.0


def test_a_ratio_pairs_figures_of_the_same_round() -> None:
    figures = Figures()
    # The machine was ten times slower in round 2: the pairs do not notice, a ratio of medians over all would.
    for number, (ours, floor) in enumerate([(50, 100), (5, 10), (60, 100)], start=1):
        figures.add(figure("ours", ours, number=number))
        figures.add(figure("floor", floor, number=number))
    assert figures.ratio("ours", "floor") == pytest.approx(0.5)
    assert figures.median_rate("ours") == 50


@pytest.mark.parametrize("spoilt", [{"errors": {"status": 1}}, {"requests": 0}])
def test_an_invalid_round_leaves_no_ratio_and_no_median(spoilt: dict[str, object]) -> None:
    figures = Figures()
    for number in (1, 2):
        figures.add(figure("ours", 50, number=number))
        figures.add(figure("floor", 100, number=number, **(spoilt if number == 2 else {})))
    assert figures.ratio("ours", "floor") is None
    assert figures.median_rate("floor") is None
    assert figures.median_rate("ours") == 50


def test_what_was_not_measured_in_every_round_has_no_ratio() -> None:
    figures = Figures()
    figures.add(figure("ours", 50, number=1))
    figures.add(figure("ours", 50, number=2))
    figures.add(figure("floor", 100, number=1))
    assert figures.ratio("ours", "floor") is None
    assert figures.ratio("ours", "nothing") is None
    assert figures.ratio("nothing", "nothing") is None
