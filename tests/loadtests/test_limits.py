"""The limit of a load and its knee, computed from values."""

import pytest

from loadtests.budgets import Line, Seen
from loadtests.runs.knee import MOST_STEPS, Step, find_knee, next_users
from loadtests.runs.limits import RoleUse, Usage, Wait, doubts, limit_of
from loadtests.runs.page import curve, sentence

LOCKS = (Wait("Lock", "transactionid", 3.0), Wait("CPU", "running", 0.8))
DISK = (Wait("IO", "WalSync", 1.0), Wait("LWLock", "WALWrite", 0.5), Wait("CPU", "running", 0.5))


def usage(
    *,
    here: bool = True,
    other: float | None = 0.1,
    waits: tuple[Wait, ...] = (),
    cores: int = 8,
    **roles: float,
) -> Usage:
    """Name parts with _ in place of a blank; each has one process."""
    used = {name.replace("_", " "): RoleUse(cores, cores, 1) for name, cores in roles.items()}
    return Usage(cores, here, {"load generator": RoleUse(0.3, 0.3, 1), **used}, other, 0.0, waits)


@pytest.mark.parametrize(
    ("found", "part", "words"),
    [
        (usage(load_generator=0.95, API=0.95), "load generator", "is the limit, not the server"),
        (usage(load_generator=0.95, here=False), "load generator", "is the limit, not the server"),
        (usage(here=False), "unknown (remote)", "was not started here"),
        (
            usage(here=False, cores=2, other=1.6),
            "this machine",
            "0.30 by the load generator, 1.60 by everything else",
        ),
        (usage(other=None), "unknown", "does not tell"),
        (usage(API=0.93, PostgreSQL=1.2), "API", "SERVE_WORKERS"),
        (usage(API=0.5, Redis=0.97), "Redis", "one core"),
        (usage(API=0.5, worker=0.97), "worker", "add workers"),
        (usage(API=0.5, waits=LOCKS), "PostgreSQL", "hot (Lock transactionid; 3.0 on average)"),
        (
            usage(API=0.5, waits=DISK),
            "PostgreSQL",
            "write-ahead log and its disk (IO WalSync; 1.5 on average)",
        ),
        # Sessions that compute more than they wait are no queue.
        (usage(API=0.5, waits=(Wait("CPU", "running", 4.0), *DISK[:1])), "none", "more users may do more"),
        (usage(cores=2, API=0.6, PostgreSQL=0.8), "PostgreSQL", "the most by the PostgreSQL"),
        (usage(cores=2, load_generator=0.8, API=0.6, PostgreSQL=0.5), "load generator", "another machine"),
        (usage(cores=2, API=0.2, other=1.5), "other programs", "Measure without them"),
        (usage(API=0.2), "none", "of 8 cores are in use"),
    ],
)
def test_the_part_at_its_limit_is_told(found: Usage, part: str, words: str) -> None:
    limit = limit_of(found)
    assert limit.part == part
    assert words in limit.sentence


def test_processes_that_begin_or_end_between_two_looks_count_once() -> None:
    use = RoleUse.between({1: 10.0, 2: 4.0}, {1: 14.0, 3: 1.0}, 10.0)
    assert use == RoleUse(0.5, 0.4, 2)


def test_company_and_a_busy_host_make_figures_doubtful() -> None:
    assert doubts(usage()) == []
    busy = Usage(2, True, {}, 0.5, 0.2, behind=1500)
    assert doubts(busy) == [
        "Other programs used 0.50 of 2 cores meanwhile.",
        "The host gave 20% of the time to others.",
        "The worker fell behind by 1,500 events: what came in is not what gets done.",
    ]


def steps(*rates: tuple[int, float]) -> list[Step]:
    return [Step(users, rate, []) for users, rate in rates]


SLOW = Line("GET /wallet", Seen(10, 0, 41), 40, 0.0, "p95 41 ms is over 40 ms")


def test_the_load_rises_as_long_as_it_pays() -> None:
    assert [next_users(users) for users in (1, 2, 10, 15)] == [2, 3, 15, 22]
    assert find_knee([]) is None
    assert find_knee(steps((10, 100), (15, 140), (22, 180))) is None


def test_the_knee_is_the_last_step_before_a_breach_or_a_flat_throughput() -> None:
    assert find_knee(steps((10, 100), (15, 140), (22, 145))) is None  # it may be chance
    flat = find_knee(steps((10, 100), (15, 140), (22, 145), (33, 150)))
    assert flat is not None
    assert flat.step == Step(15, 140, [])
    assert flat.reason == "33 users get 150 requests a second done"
    breach = find_knee([*steps((10, 100), (15, 140)), Step(22, 200, [SLOW])])
    assert breach is not None
    assert breach.step == Step(15, 140, [])
    assert sentence(breach) == (
        "The knee is at 15 users, 140 requests a second: at 22 users, GET /wallet: p95 41 ms is over 40 ms."
    )


def test_a_first_step_that_is_too_much_has_no_knee_and_the_steps_have_an_end() -> None:
    first = find_knee([Step(10, 100, [SLOW])])
    assert first is not None
    assert first.step is None
    assert sentence(first).startswith("No knee: the first load was too much already")
    most = find_knee(steps(*((number, 2.0**number) for number in range(1, MOST_STEPS + 1))))
    assert most is not None
    assert "not raised beyond" in most.reason


def test_a_curve_begins_at_zero_and_touches_the_largest_value() -> None:
    drawn = curve("requests a second", [10, 20], [100, 200])
    assert 'points="320.0,120.0 592.0,48.0"' in drawn
    assert "up to 200" in drawn
