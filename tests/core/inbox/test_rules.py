"""Rules without a database: what an event leads to, and that the order of events changes nothing."""

import json
import uuid
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.inbox.rules import Admission, Decision, Failed, Ignored, InboxEvent, Named, Owners, Post, read_event
from tests.jobs.merchant import payment

BOTH = Admission(stripe="both", paypal=True, cloudpayments="both")
OWNERS = {"shop:a": 7, "shop:b": 8}


def event_of(body: dict[str, Any] | bytes, provider: str = "stripe") -> InboxEvent:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    kind = body.get("type", "") if isinstance(body, dict) else "payment_intent.succeeded"
    name = body.get("id", "evt") if isinstance(body, dict) else "evt"
    return InboxEvent(uuid.uuid4(), provider, name, kind, None, datetime.now(UTC), 1, raw)


def decide(event: InboxEvent, owners: Owners = OWNERS) -> Decision:
    read = read_event(event, BOTH)
    assert not isinstance(read, Named)
    return read if isinstance(read, Ignored | Failed) else read.decide(owners)


def test_a_paid_intent_posts_from_the_clearing_account_and_tells_the_owner() -> None:
    decision = decide(event_of(payment("pi_1", "shop:a", 1234, currency="kwd")))
    assert isinstance(decision, Post)
    posting = decision.posting
    assert [tuple(leg) for leg in posting.legs] == [
        ("provider:stripe:clearing:KWD", -1234),
        ("shop:a", 1234),
    ]
    assert decision.opens == {"provider:stripe:clearing:KWD": "KWD"}
    assert posting.unfrozen
    assert posting.effects is not None
    (told,) = posting.effects.told
    assert (told.principal_id, told.event_type, told.object_id) == (7, "payment.succeeded", "pi_1")
    assert json.loads(told.body)["data"]["transfer"] == str(posting.id)


@pytest.mark.parametrize(
    ("body", "decision"),
    [
        (payment("pi_1", None), Ignored("no_account_named: The intent's metadata names no account.")),
        (
            payment("pi_1", "shop:a") | {"type": "price.created"},
            Ignored("no_rule: price.created has no effect here."),
        ),
        (payment("pi_1", "nobody's"), Failed("account_not_found", 'Account "nobody\'s" does not exist.')),
    ],
)
def test_an_event_without_an_effect_says_why(body: dict[str, Any], decision: Decision) -> None:
    assert decide(event_of(body)) == decision


@given(st.binary(max_size=200) | st.recursive(
    st.none() | st.integers() | st.text(max_size=5), lambda some: st.dictionaries(st.sampled_from(
        ["data", "object", "metadata", "account", "amount_received", "currency", "id", "livemode"]
    ), some), max_leaves=8,
).map(lambda value: json.dumps(value).encode()))  # fmt: skip
def test_no_body_breaks_a_rule(body: bytes) -> None:
    """A rule decides on any bytes; an unusable body is final, since it will never be another one."""
    decision = decide(event_of(body))
    assert isinstance(decision, Post | Ignored | Failed)
    assert not isinstance(decision, Failed) or decision.final or decision.code == "account_not_found"


INTENTS = st.lists(
    st.tuples(st.integers(0, 3), st.sampled_from(["shop:a", "shop:b", None]), st.booleans()), max_size=12
)


@given(INTENTS, st.randoms(use_true_random=False), st.integers(1, 4))
def test_any_order_and_any_cut_into_batches_ends_in_the_same_state(
    intents: list[tuple[int, str | None, bool]], random: Any, batch: int
) -> None:
    """The state is what a ledger keeps: one transfer a key. Twins of an intent name the same account and amount."""
    accounts = {number: account for number, account, _ in reversed(intents)}
    events = [
        event_of(
            payment(f"pi_{number}", accounts[number], 100 + number, event_id=f"evt_{place}")
            | ({} if paid else {"type": "payment_intent.processing"})
        )
        for place, (number, _, paid) in enumerate(intents)
    ]
    shuffled = random.sample(events, len(events))
    assert state_after(events, len(events) or 1) == state_after(shuffled, batch)


def state_after(events: list[InboxEvent], batch: int) -> dict[str, Any]:
    transfers: dict[uuid.UUID, Any] = {}
    told: list[bytes] = []
    for start in range(0, len(events), batch):
        # A whole batch is decided on before anything of it is applied.
        for decision in [decide(event) for event in events[start : start + batch]]:
            if isinstance(decision, Post) and decision.posting.id not in transfers:
                transfers[decision.posting.id] = decision.posting.legs
                assert decision.posting.effects is not None
                told += [one.body for one in decision.posting.effects.told]
    return {"transfers": transfers, "told": sorted(told)}
