"""Routing by rule, weight and health, with the reasons of each decision."""

import json
from collections import Counter
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import settings as search
from hypothesis import strategies as st

from core import ids
from core.errors import Refusal
from core.payments.health import (
    FAILURES,
    MOST_OPEN_SECONDS,
    OPEN_SECONDS,
    REMEMBERED_SECONDS,
    Health,
    open_seconds,
)
from core.payments.router import Router, open_payments, rules_of
from core.payments.routing import Rule, Wanted, route
from core.providers.protocol import Method, UnknownError
from core.redis import open_redis
from core.service import Service
from core.settings import Settings, SettingsError
from core.work.wakeup import Waker
from tests.core.payments.conftest import Desk

WANTED = Wanted(500, "EUR", "hosted_card", "shop")
ID = ids.new_uuid()


@pytest.mark.parametrize(
    ("rule", "reason"),
    [
        ({}, None),
        ({"currencies": frozenset({"EUR", "USD"})}, None),
        ({"currencies": frozenset({"USD"})}, "not for EUR"),
        ({"methods": frozenset({"phone"})}, "not for hosted_card"),
        ({"merchants": frozenset({"other"})}, "not for this merchant"),
        ({"least": 500, "most": 500}, None),
        ({"least": 501}, "not below 501"),
        ({"most": 499}, "not above 499"),
    ],
)
def test_a_rule_admits_or_says_why_not(rule: dict[str, Any], reason: str | None) -> None:
    rules = [Rule(provider="one", **rule), Rule(provider="last", rank=9)]
    decision = route(rules, WANTED, ID)
    assert decision.providers == (("one", "last") if reason is None else ("last",))
    assert dict(decision.reasons)["one"] == (reason or "rank 0, weight 1")


def test_no_provider_is_a_refusal_with_the_reasons() -> None:
    with pytest.raises(Refusal) as refused:
        route([Rule(provider="one"), Rule(provider="two", most=1)], WANTED._replace(provider="two"), ID)
    assert refused.value.code == "no_provider"
    assert refused.value.extra["rules"] == {"one": "the caller wants two", "two": "not above 1"}


def test_the_first_choice_falls_by_weight() -> None:
    rules = [Rule(provider="a", weight=3), Rule(provider="b"), Rule(provider="never_first", weight=0)]
    first = Counter(route(rules, WANTED, ids.new_uuid()).providers[0] for _ in range(4_000))
    assert set(first) == {"a", "b"}
    assert 2_800 < first["a"] < 3_200


RULES = st.lists(
    st.builds(
        Rule,
        provider=st.sampled_from("abcdefghijkl"),
        currencies=st.sampled_from([None, frozenset({"EUR"}), frozenset({"USD"})]),
        rank=st.integers(0, 2),
        weight=st.integers(0, 3),
        most=st.sampled_from([None, 400, 600]),
    ),
    max_size=12,
)


@search(max_examples=100)
@given(RULES, st.frozensets(st.sampled_from("abcdefghijkl")))
def test_routes_are_the_admitted_ones_and_the_failing_come_last(
    rules: list[Rule], failing: frozenset[str]
) -> None:
    admitted = [
        rule for rule in rules if rule.currencies in {None, frozenset({"EUR"})} and rule.most in {None, 600}
    ]
    if not admitted:
        with pytest.raises(Refusal):
            route(rules, WANTED, ID, failing)
        return
    decision = route(rules, WANTED, ID, failing)
    assert decision == route(rules, WANTED, ID, failing)
    assert len(set(decision.providers)) == len(decision.providers) <= 8
    assert set(decision.providers) <= {rule.provider for rule in admitted}
    fails = [name in failing for name in decision.providers]
    assert fails == sorted(fails)
    assert len(decision.reasons) == len(rules)


class Clock:
    """A clock that a test moves."""

    now = 1_000.0

    def __call__(self) -> float:
        return self.now


def test_a_breaker_opens_for_longer_each_time_but_never_for_long() -> None:
    assert [open_seconds(number) for number in range(FAILURES)] == [0.0] * FAILURES
    assert [open_seconds(FAILURES + number) for number in range(3)] == [OPEN_SECONDS * 2**n for n in range(3)]
    assert open_seconds(10**6) == MOST_OPEN_SECONDS


async def test_processes_know_together_which_provider_fails(service: Service) -> None:
    clock = Clock()
    one, two = (Health(service.redis, service.epoch, clock=clock) for _ in range(2))
    for _ in range(FAILURES - 1):
        await one.note("slow", answered=False)
    assert await two.failing(["slow", "well"]) == frozenset()
    await two.note("slow", answered=False)
    clock.now += 1
    assert await one.failing(["slow", "well"]) == {"slow"}
    await two.note("slow", answered=True)
    clock.now += 1
    assert await one.failing(["slow", "well"]) == frozenset()
    for health in (one, two) * 3:
        await health.note("slow", answered=False)
        clock.now += 1
        await one.failing(["slow"])
        await one.note("slow", answered=True)
    clock.now += 1
    assert await two.failing(["slow"]) == frozenset()


async def test_without_redis_each_process_knows_for_itself(settings: Settings) -> None:
    redis = open_redis(settings.model_copy(update={"redis_url": "redis://127.0.0.1:1/0"}))
    clock = Clock()
    health = Health(redis, "epoch", clock=clock)
    for _ in range(FAILURES):
        await health.note("slow", answered=False)
    assert await health.failing(["slow"]) == {"slow"}
    clock.now += OPEN_SECONDS + 1
    assert await health.failing(["slow"]) == frozenset()
    await health.note("slow", answered=False)
    assert await health.failing(["slow"]) == {"slow"}
    clock.now += REMEMBERED_SECONDS + 1
    await health.note("slow", answered=False)
    assert await health.failing(["slow"]) == frozenset()
    await redis.aclose()


async def test_the_decision_is_kept_and_a_failing_provider_is_passed_over(desk: Desk) -> None:
    health = Health(desk.service.redis, desk.service.epoch, clock=(clock := Clock()))
    waker = Waker(desk.service.redis, desk.service.epoch)
    rules = [Rule(provider="one"), Rule(provider="two", rank=1)]
    providers = {"one": desk.one, "two": desk.two}
    desk.one.says("create", *[UnknownError("?")] * FAILURES)
    async with open_payments(desk.service, waker, providers, rules, health=health) as payments:
        for _ in range(FAILURES):
            payment = (await payments.create(desk.new())).payment
            assert payment.latest.provider == "one"
        clock.now += 1
        payment = (await payments.create(desk.new())).payment
        assert payment.latest.provider == "two"
    await waker.close()
    (created, *_) = await desk.steps(payment)
    assert created.data["route"] == {
        "order": ["two", "one"],
        "rules": [
            {"provider": "one", "reason": "rank 0, weight 1, failing now"},
            {"provider": "two", "reason": "rank 1, weight 1"},
        ],
    }
    assert json.loads(await desk.owner.fetchval(
        "SELECT route FROM payment_attempts WHERE payment_id = $1", payment.id
    )) == created.data["route"]  # fmt: skip


async def test_routes_come_from_the_settings_and_the_simulator_stands_in(desk: Desk) -> None:
    """A provider that a caller names and that is not set up is played by the simulator, where there is one."""
    rules = rules_of(desk.service.settings, {"kaspi": desk.one, "simulator": desk.two})
    router = Router(rules, Health(desk.service.redis, desk.service.epoch), "simulator")
    for named, currency, method, providers in (
        ("stripe", "USD", Method.HOSTED_CARD, ["simulator"]),
        (None, "USD", Method.HOSTED_CARD, ["simulator"]),
        (None, "KZT", Method.PHONE, ["kaspi", "simulator"]),
        ("kaspi", "KZT", Method.PHONE, ["kaspi"]),
    ):
        new = desk.new(provider=named, currency=currency, method=method)
        assert list((await router.routes(new, uuid4())).providers) == providers
    alone = Router(rules, Health(desk.service.redis, desk.service.epoch))
    with pytest.raises(Refusal, match="the caller wants stripe"):
        await alone.routes(desk.new(provider="stripe"), uuid4())
    changed = desk.service.settings.model_copy(
        update={"payment_routes": '[{"provider": "stripe", "weight": 3}]'}
    )
    assert rules_of(changed, {}) == [Rule(provider="stripe", weight=3)]
    with pytest.raises(SettingsError, match="PAYMENT_ROUTES: Object contains unknown field `way`"):
        rules_of(changed.model_copy(update={"payment_routes": '[{"provider": "stripe", "way": 3}]'}), {})
