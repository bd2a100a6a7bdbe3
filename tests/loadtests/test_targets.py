from loadtests.bench.figures import Figures
from loadtests.bench.memory import summarise
from loadtests.bench.targets import TARGETS, pipeline_ratios, speed_ratios, verdicts, webhook_ratios
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


def test_a_refusal_costs_what_the_bare_handler_does_not() -> None:
    figures = Figures()
    # 0.9 cores for 10,000 requests a second are 90 us each; the handler takes 60.
    figures.add(figure("forged", 1.0, seconds=1.0, requests=10_000, cpu={"api": 0.9, "client": 0.5}))
    figures.add(figure("floor1.forged", 1.0, seconds=2.0, requests=30_000, cpu={"floor1": 0.9}))
    assert round(webhook_ratios(figures)["refusal_cpu_us"] or 0, 6) == 30.0


def test_latencies_of_webhooks_are_medians_over_the_rounds_and_ratios_are_of_pairs() -> None:
    figures = Figures()
    rounds = [("ack@500", (3.0, 9.0, 4.0)), ("isolation.alone", (10.0, 40.0, 20.0))]
    for name, found in [*rounds, ("isolation.beside", (11.0, 44.0, 30.0))]:
        for number, p99 in enumerate(found, start=1):
            figures.add(figure(name, 1.0, number=number, latency_ms={"p50": 1.0, "p99": p99}))
    for name, p50 in (("inbox.1", 2.0), ("inbox.5", 2.5), ("deliveries.1", 4.0), ("deliveries.5", 4.0)):
        figures.add(figure(f"claims.{name}", 1.0, latency_ms={"p50": p50}))
    ratios = webhook_ratios(figures)
    assert (ratios["ack500_p99_ms"], ratios["isolation_p99"], ratios["claims_growth"]) == (4.0, 1.1, 1.25)
    assert ratios["ack1000_p99_ms"] is None


def test_the_whole_way_is_held_against_its_slowest_part() -> None:
    figures = measured(
        **{
            "pipeline.backlog": 2000, "pipeline.backlog.workers2": 3000, "sustained@1": 2500, "sustained@100": 2100,
            "told.quiet": 1000, "told.heard": 900, "lean.backlog": 2000, "grown.backlog": 1900,
            "lean.sustained": 2000, "grown.sustained": 1700,
        }
    )  # fmt: skip
    for name, p50 in (("lean@200", 4.0), ("grown@200", 5.0)):
        figures.add(figure(name, 200, latency_ms={"p50": p50}))
    ratios = pipeline_ratios(figures)
    assert (ratios["pipeline_rate"], ratios["pipeline_two_workers"]) == (2000, 1.5)
    assert (ratios["sustained_rate"], ratios["told_vs_quiet"]) == (2100, 0.9)
    assert (ratios["grown_rate"], ratios["grown_p50"]) == (0.85, 1.25)
    figures.add(figure("sustained@1000", 3000, errors={"missing": 1}))
    assert pipeline_ratios(figures)["sustained_rate"] is None


def test_a_bound_is_met_as_the_target_says_it() -> None:
    at_the_bound = {target.key: target.bound for target in TARGETS}
    met = {verdict.key: verdict.met for verdict in verdicts(at_the_bound)}
    strict = {"hot_update_share", "past_balance_p99_ms", "api_rss_mb", "refusal_cpu_us", "isolation_p99"}
    strict |= {"delivery50_p95_ms", "delivery200_p95_ms", "pipeline_rss_mb", "create_own_p95_ms"}
    assert met == {target.key: target.key not in strict for target in TARGETS}


def test_what_was_not_measured_is_neither_met_nor_missed() -> None:
    assert {verdict.met for verdict in verdicts({})} == {None}


def test_memory_growth_leaves_out_the_warm_up() -> None:
    # 50 MB come in the first ten seconds, then 0.1 MB every ten: 6 MB in ten minutes.
    samples = [(0.0, 50.0)] + [(float(second), 100 + second / 100) for second in range(10, 101, 10)]
    memory = summarise(samples, warm_share=0.1)
    assert memory.largest_mb == 101.0
    assert memory.growth_mb == 6.0
