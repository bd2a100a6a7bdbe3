"""The times at which providers are asked, and looks that fail together."""

import asyncio
import gc
from datetime import timedelta
from typing import Any

import asyncpg
import pytest

from core.payments.looking import CALL_SECONDS, LAST_LOOK_SECONDS, seconds_to_look
from core.payments.reconciling import reconcile
from core.payments.states import Effect, State
from tests.core.payments.conftest import Desk

KASPI = "kaspi"


@pytest.mark.parametrize(
    ("age", "seconds"),
    [
        (timedelta(0), 15.0),
        (timedelta(minutes=9, seconds=59), 15.0),
        (timedelta(minutes=10), 180.0),
        (timedelta(hours=23), 180.0),
        (timedelta(hours=24), 3_600.0),
        (timedelta(days=7), 86_400.0),
        (timedelta(days=9_999), 86_400.0),
    ],
)
def test_kaspi_is_asked_by_the_age_of_a_payment(age: timedelta, seconds: float) -> None:
    for state in (State.PENDING, State.PROCESSING, State.UNKNOWN):
        for looks in (0, 50):
            assert seconds_to_look(state, (), looks, giving_up=False, provider=KASPI, age=age) == seconds
    assert seconds_to_look(State.CREATED, (), 0, giving_up=False, provider=KASPI, age=age) == CALL_SECONDS
    for state in (State.PAID, State.FAILED):
        assert seconds_to_look(state, (), 0, giving_up=False, provider=KASPI, age=age) is None
    # Without the bank's id there is nothing to ask by, and nothing to be closed.
    for effects in ((), (Effect.GIVE_UP,), (Effect.LOOK,)):
        assert (
            seconds_to_look(State.UNKNOWN, effects, 0, giving_up=True, provider=KASPI, age=age, nameless=True)
            is None
        )


def test_others_are_asked_ever_less_often() -> None:
    for looks in (0, 3, 50):
        seconds = seconds_to_look(State.PENDING, (), looks, giving_up=False, provider="stripe", nameless=True)
        assert seconds is not None
        assert 0 < seconds <= LAST_LOOK_SECONDS


async def test_providers_whose_looks_fail_together_leave_no_error_unread(desk: Desk) -> None:
    told: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))
    with pytest.raises(asyncpg.PostgresError):
        await reconcile(desk.payments, budget=-1)
    gc.collect()
    assert told == []
