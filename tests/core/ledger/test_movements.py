"""The rules for what may be asked of the ledger hold below every surface, with the same codes and texts."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from core.errors import Refusal
from core.ledger import movements
from core.ledger.items import MAX_CALL_ITEMS, Leg, Operation, Posting, operation_id
from core.ledger.movements import MAX_BATCH_LEGS, MAX_HOLD_SECONDS, BatchPart, Movement
from core.ledger.poster import Poster
from core.money import MAX_AMOUNT_MINOR
from core.service import Service

PLAIN = Movement(source="a", target="b", amount=5)


def legs(*amounts: int) -> Movement:
    return Movement(legs=[Leg("abc"[place % 3], amount) for place, amount in enumerate(amounts)])


def parts(*groups: str | None, movement: Movement = PLAIN) -> list[BatchPart]:
    return [BatchPart(f"k-{place}", movement, group) for place, group in enumerate(groups)]


def test_a_transfer_and_a_hold() -> None:
    posting = movements.transfer(1, "k", PLAIN)
    assert (posting.id, posting.legs) == (operation_id(1, "k"), (Leg("a", -5), Leg("b", 5)))
    held = movements.hold(1, "k", PLAIN, expires_in_secs=60)
    assert (held.operation, held.legs, held.expires_in_secs) == (Operation.HOLD, posting.legs, 60)
    assert held.expires_at is None  # the database's clock decides


def test_neighbours_share_a_group() -> None:
    numbers = [posting.group for posting in movements.batch(1, parts(None, "x", "x", "y", None))]
    assert numbers[0] == numbers[4] == 0
    assert numbers[1] == numbers[2] != numbers[3]


@pytest.mark.parametrize(
    ("movement", "text"),
    [
        (Movement(source="a", target="b"), "Give `from`, `to` and `amount`, or `legs`."),
        (Movement(source="a", target="a", amount=1), "`from` and `to` are the same account."),
        (
            Movement(source="a", legs=[Leg("a", -1), Leg("b", 1)]),
            "Give `from`, `to` and `amount`, or `legs`, not both.",
        ),
        (legs(0, 0), "The amount of a leg must not be zero."),
        (legs(*[MAX_AMOUNT_MINOR] * 3), f"The legs move more than {MAX_AMOUNT_MINOR} in all."),
        (
            Movement(source="a", target="b", amount=1, effective_at=datetime(1, 1, 1, tzinfo=UTC)),
            "A time must lie within the years 2 to 9998.",
        ),
    ],
)
def test_no_transfer(movement: Movement, text: str) -> None:
    with pytest.raises(Refusal) as refused:
        movements.transfer(1, "k", movement)
    assert (refused.value.code, refused.value.detail) == ("invalid_request", text)


@pytest.mark.parametrize(
    ("movement", "end", "text"),
    [
        (legs(5, -5), {}, "The first leg of a hold is its source's, so its amount is negative."),
        (legs(-5, 3, 1, 1), {}, "The source of a hold has one leg only, the first."),
        (
            PLAIN,
            {"expires_at": timedelta(0), "expires_in_secs": 1},
            "Give expires_in or expires_at, not both.",
        ),
        (
            PLAIN,
            {"expires_at": timedelta(seconds=MAX_HOLD_SECONDS + 60)},
            "A hold must end within 366 days.",
        ),
    ],
)
def test_no_hold(movement: Movement, end: dict[str, Any], text: str) -> None:
    if "expires_at" in end:  # so long from now
        end = end | {"expires_at": datetime.now(UTC) + end["expires_at"]}
    with pytest.raises(Refusal) as refused:
        movements.hold(1, "k", movement, **end)
    assert (refused.value.code, refused.value.detail) == ("invalid_request", text)


@pytest.mark.parametrize(
    ("batch", "text"),
    [
        (parts("x", None, "x"), "Item 2: the items of group 'x' do not follow each other."),
        (parts(None, movement=legs(0)), "Item 0: The amount of a leg must not be zero."),
        (
            parts(*["x"] * (MAX_CALL_ITEMS + 1)),
            "Group 'x' has more than 1000 items or 4000 legs and conditions.",
        ),
        (
            parts(*[None] * 6, movement=legs(*[1] * 3_500)),
            f"A batch has at most {MAX_BATCH_LEGS} legs and conditions; this one has 21000.",
        ),
    ],
)
def test_no_batch(batch: list[BatchPart], text: str) -> None:
    with pytest.raises(Refusal) as refused:
        movements.batch(1, batch)
    assert (refused.value.code, refused.value.detail) == ("invalid_request", text)


def test_a_hold_is_moved_to_an_end() -> None:
    with pytest.raises(Refusal, match=r"Give expires_in or expires_at\."):
        movements.new_hold_end(None, None)


async def test_a_dry_run_is_one_call(service: Service) -> None:
    poster: Poster = service.ledger.poster
    many = [
        Posting(operation_id(1, str(n)), 1, (Leg("a", -1), Leg("b", 1))) for n in range(MAX_CALL_ITEMS + 1)
    ]
    with pytest.raises(Refusal, match="A dry run takes at most 1000 items and 4000 legs"):
        await poster.dry_run(many)
