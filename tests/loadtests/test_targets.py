from loadtests.bench.figures import Figures
from loadtests.bench.memory import summarise
from loadtests.bench.targets import TARGETS, speed_ratios, verdicts
from tests.loadtests.test_figures import figure


def measured(**rates: float) -> Figures:
    figures = Figures()
    for name, rate in rates.items():
        figures.add(figure(name, rate))
    return figures


def test_the_worst_number_of_connections_counts() -> None:
    figures = measured(
        **{
            "single.uniform@64": 9000,
            "single.uniform@256": 8000,
            "floor1.single@64": 20_000,
            "floor1.single@256": 16_000,
            "single.hot@64": 8100,
            "single.hot@256": 8000,
            "floor2.tpcb": 4000,
            "floor3.function.hot": 2000,
            "batch1000": 20_000,
        }
    )
    ratios = speed_ratios(figures, (64, 256))
    assert ratios["single_uniform_vs_pgbench"] == 2.0
    assert ratios["single_uniform_vs_floor1"] == 0.45
    assert ratios["hot_vs_uniform"] == 0.9
    assert ratios["hot_vs_function_hot"] == 4.0
    assert ratios["batch1000_vs_pgbench"] == 5.0
    assert ratios["loaded_vs_small"] is None


def test_a_missing_number_of_connections_leaves_the_ratio_unknown() -> None:
    figures = measured(**{"single.uniform@64": 9000, "floor2.tpcb": 4000})
    assert speed_ratios(figures, (64, 256))["single_uniform_vs_pgbench"] is None


def test_one_connection_is_held_against_the_sum_of_its_parts() -> None:
    figures = Figures()
    for name, p50 in (("single.uniform@1", 2.5), ("floor3.direct@1", 1.25), ("floor1.single@1", 0.25)):
        figures.add(figure(name, 1.0, latency_ms={"p50": p50}))
    assert speed_ratios(figures, ())["one_connection_p50_extra_ms"] == 1.0


def test_a_bound_is_met_as_the_target_says_it() -> None:
    at_the_bound = {target.key: target.bound for target in TARGETS}
    met = {verdict.key: verdict.met for verdict in verdicts(at_the_bound)}
    strict = {"hot_update_share", "past_balance_p99_ms", "api_rss_mb"}
    assert met == {target.key: target.key not in strict for target in TARGETS}


def test_what_was_not_measured_is_neither_met_nor_missed() -> None:
    assert {verdict.met for verdict in verdicts({})} == {None}


def test_memory_growth_leaves_out_the_warm_up() -> None:
    # 50 MB come in the first ten seconds, then 0.1 MB every ten: 6 MB in ten minutes.
    samples = [(0.0, 50.0)] + [(float(second), 100 + second / 100) for second in range(10, 101, 10)]
    memory = summarise(samples, warm_share=0.1)
    assert memory.largest_mb == 101.0
    assert memory.growth_mb == 6.0
