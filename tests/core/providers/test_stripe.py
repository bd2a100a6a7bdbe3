"""Stripe: what we ask for, and what its answers and events mean."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from core.errors import Refusal
from core.providers.calling import Caller
from core.providers.protocol import (
    DeclinedError,
    Method,
    Notice,
    Recurrence,
    RefundSight,
    Standing,
    UnknownError,
    UnsentError,
)
from core.providers.stripe import Stripe
from core.settings import load_settings
from tests.core.providers.fake_stripe import KEY, FakeStripe
from tests.core.providers.scenes import UNKNOWABLE, an_order, handle, patience, serving


@asynccontextmanager
async def running(key: str = KEY) -> AsyncIterator[tuple[FakeStripe, Stripe]]:
    fake = FakeStripe()
    async with serving(fake.application()) as url:
        provider = Stripe(key, Caller("stripe", url, total_seconds=5.0), landing_url="https://us.example")
        try:
            yield fake, provider
        finally:
            await provider.close()


async def test_a_hosted_payment_from_session_to_refund() -> None:
    async with running() as (fake, stripe):
        order = an_order(
            metadata={"request_id": "r-1", "account": "customer:1", "k" * 41: "x", "note": "y" * 501}
        )
        made = await stripe.create(order)
        assert made == await stripe.create(order)
        assert (made.standing, made.amount, made.currency, made.refunded) == (
            Standing.OPEN,
            1_990,
            "USD",
            None,
        )
        assert made.url is not None
        assert made.expires_at is not None
        asked = fake.calls[0][1]
        assert asked["metadata"] == {
            "request_id": "r-1",
            "account": "customer:1",
            "attempt": str(order.attempt),
        }
        # Under this name the inbox finds an account to pay, so a caller must not set it.
        assert asked["payment_intent_data"]["metadata"] == {"attempt": str(order.attempt)}
        assert (asked["mode"], asked["success_url"]) == ("payment", order.success_url)
        known = handle(order, made.provider_id)
        fake.pay(fake.objects[str(made.provider_id)])
        paid = await stripe.look(known)
        assert (paid.standing, paid.amount, paid.refunded, paid.fee) == (Standing.PAID, 1_990, 0, 60)
        assert await stripe.cancel(known) == paid
        once = await stripe.refund(known, "refund-1", 990)
        assert once == await stripe.refund(handle(order, made.provider_id, paid.names), "refund-1", 990)
        assert once == RefundSight(True, once.provider_id, 990, "succeeded")
        assert (await stripe.look(known)).refunded == 990
        with pytest.raises(DeclinedError) as refused:
            await stripe.refund(known, "refund-2", 1_001)
        assert refused.value.word == "charge_already_refunded"


async def test_units_titles_and_landing_pages_as_stripe_wants_them() -> None:
    async with running() as (fake, stripe):
        order = an_order(amount=5_000, currency="ISK", title="t" * 300, success_url=None, cancel_url=None)
        assert (await stripe.create(order)).amount == 5_000
        asked = fake.calls[0][1]
        price = asked["line_items"]["0"]["price_data"]
        assert (price["unit_amount"], price["currency"]) == ("500000", "isk")
        assert (len(price["product_data"]["name"]), asked["success_url"]) == (250, "https://us.example")
        for changes in ({"currency": "XXX"}, {"method": Method.PHONE}):
            with pytest.raises(DeclinedError) as refused:
                await stripe.create(an_order(**changes))
            assert refused.value.code == "provider_unsupported"
        assert len(fake.calls) == 1


async def test_a_payment_that_repeats() -> None:
    async with running() as (fake, stripe):
        order = an_order(recurrence=Recurrence("month", 3))
        made = await stripe.create(order)
        asked = fake.calls[0][1]
        assert asked["mode"] == "subscription"
        assert asked["subscription_data"]["metadata"] == {"attempt": str(order.attempt)}
        recurring = asked["line_items"]["0"]["price_data"]["recurring"]
        assert recurring == {"interval": "month", "interval_count": "3"}
        fake.pay(fake.objects[str(made.provider_id)])
        paid = await stripe.look(handle(order, made.provider_id))
        assert (paid.standing, sorted(paid.names)) == (Standing.PAID, ["invoice", "subscription"])
        assert (await stripe.refund(handle(order, made.provider_id), "r", 5)).done


async def test_a_renewal_is_looked_at_and_closed_as_an_invoice() -> None:
    async with running() as (fake, stripe):
        order = an_order(recurrence=Recurrence("month", 1))
        for status, looked, canceled in (
            ("draft", Standing.OPEN, Standing.OPEN),
            ("open", Standing.OPEN, Standing.CANCELED),
            ("paid", Standing.PAID, Standing.PAID),
            ("uncollectible", Standing.FAILED, Standing.CANCELED),
            ("void", Standing.CANCELED, Standing.CANCELED),
        ):
            known = handle(order, fake.renew(status)["id"])
            sight = await stripe.look(known)
            assert (sight.standing, sight.amount) == (looked, 1_990 if status == "paid" else None)
            assert (await stripe.cancel(known)).standing is canceled
        paid = handle(order, fake.renew("paid")["id"])
        assert (await stripe.refund(paid, "r", 90)).done
        with pytest.raises(UnknownError):
            await stripe.look(handle(order, fake.renew("teleported")["id"]))


async def test_a_payment_link_is_paid_once() -> None:
    async with running() as (fake, stripe):
        order = an_order(method=Method.PAYMENT_LINK)
        made = await stripe.create(order)
        assert made == await stripe.create(order)
        link = fake.objects[str(made.provider_id)]
        assert link["asked"]["restrictions"] == {"completed_sessions": {"limit": "1"}}
        assert link["asked"]["after_completion"]["redirect"] == {"url": order.success_url}
        assert sorted(made.names) == ["price", "product"]
        known = handle(order, made.provider_id)
        left, visit = fake.visit(link), fake.visit(link)
        assert (await stripe.look(known)).standing is Standing.OPEN
        fake.pay(visit)
        paid = await stripe.look(known)
        assert (paid.standing, paid.amount, paid.provider_id) == (Standing.PAID, 1_990, made.provider_id)
        assert paid.names["session"] == visit["id"]
        assert (await stripe.refund(known, "r", 100)).done
        # A second paid visit, which should not be, shows as too much money.
        fake.pay(left)
        assert (await stripe.look(known)).amount == 3_980


async def test_a_link_that_is_given_up_closes_its_open_visits() -> None:
    async with running() as (fake, stripe):
        order = an_order(method=Method.PAYMENT_LINK)
        made = await stripe.create(order)
        known = handle(order, made.provider_id)
        visits = [fake.visit(fake.objects[str(made.provider_id)]) for _ in range(2)]
        assert (await stripe.cancel(known)).standing is Standing.CANCELED
        assert [visit["status"] for visit in visits] == ["expired", "expired"]
        # A visit that is open still can be paid, whatever the link says.
        fake.visit(fake.objects[str(made.provider_id)])
        assert (await stripe.look(known)).standing is Standing.OPEN


@pytest.mark.parametrize(
    ("session", "intent", "standing"),
    [
        ({"status": "open"}, None, Standing.OPEN),
        ({"status": "complete", "payment_status": "unpaid"}, "processing", Standing.PROCESSING),
        ({"status": "complete", "payment_status": "unpaid"}, "requires_payment_method", Standing.FAILED),
        ({"status": "complete", "payment_status": "no_payment_required"}, None, Standing.PAID),
        ({"status": "expired"}, None, Standing.EXPIRED),
        ({"status": "expired", "payment_status": "paid"}, None, Standing.PAID),
    ],
)
async def test_standings_of_a_session(
    session: dict[str, str], intent: str | None, standing: Standing
) -> None:
    async with running() as (fake, stripe):
        order = an_order()
        made = await stripe.create(order)
        found = fake.objects[str(made.provider_id)]
        if intent:
            fake.pay(found, late=True)
            fake.objects[found["payment_intent"]]["status"] = intent
        found |= session
        assert (await stripe.look(handle(order, made.provider_id))).standing is standing


async def test_a_session_that_is_given_up_or_lost() -> None:
    async with running() as (fake, stripe):
        order = an_order()
        made = await stripe.create(order)
        assert (await stripe.cancel(handle(order, made.provider_id))).standing is Standing.CANCELED
        assert (await stripe.cancel(handle(order, made.provider_id))).standing is Standing.EXPIRED
        for lost in ("cs_test_other", "plink_other", "in_other", None):
            with pytest.raises(UnknownError) as unknown:
                await stripe.look(handle(order, lost))
            # Stripe has answered, so that the breaker does not count it (`core.payments.calls`).
            assert unknown.value.code == "provider_cannot_tell"
        fake.objects[str(made.provider_id)]["status"] = "teleported"
        with pytest.raises(UnknownError):
            await stripe.look(handle(order, made.provider_id))


async def test_refusals_and_errors() -> None:
    async with running() as (fake, stripe):
        with pytest.raises(DeclinedError) as declined:
            await stripe.create(an_order(title="declined"))
        assert declined.value.word == "card_declined"
        order = an_order()
        await stripe.create(order)
        with pytest.raises(UnknownError) as reused:
            await stripe.create(order._replace(amount=5))
        assert reused.value.code == "provider_key_reused"
        fake.troubles.before += ["busy", "409"]
        with pytest.raises(UnsentError) as busy:
            await stripe.create(an_order())
        assert busy.value.retry_after == 7.0
        with pytest.raises(UnknownError):
            await stripe.create(an_order())
    async with running(key="sk_test_wrong") as (_, stranger):
        with pytest.raises(UnsentError) as refused:
            await stranger.create(an_order())
        assert refused.value.code == "provider_credentials"
        assert "sk_" not in str(refused.value)


@pytest.mark.parametrize("trouble", UNKNOWABLE)
async def test_an_order_whose_answer_is_lost_is_repeated_under_its_key(trouble: str) -> None:
    """The library repeats nothing by itself, and Stripe makes one session."""
    async with running() as (fake, stripe):
        order = an_order()
        fake.troubles.after.append(trouble)
        with patience(stripe, trouble), pytest.raises(UnknownError):
            await stripe.create(order)
        assert len(fake.calls) == 1
        assert (await stripe.create(order)).standing is Standing.OPEN
        assert [key for key in fake.objects if key.startswith("cs_")] == ["cs_test_1"]


SESSION = {"id": "cs_1", "status": "complete", "payment_status": "paid", "amount_total": 500, "currency": "jpy",
           "payment_intent": "pi_1", "metadata": {"attempt": "a-1"}, "new": []}  # fmt: skip
CHARGE = {"id": "ch_1", "amount": 500, "amount_refunded": 200, "currency": "usd", "payment_intent": "pi_1"}
DISPUTE = {"id": "dp_1", "amount": 300, "currency": "usd", "charge": "ch_1", "payment_intent": "pi_1"}
REFUND = {"id": "re_1", "amount": 200, "currency": "usd", "charge": "ch_1", "payment_intent": "pi_1"}
INTENT = {
    "id": "pi_1",
    "status": "succeeded",
    "amount_received": 500,
    "currency": "usd",
    "latest_charge": "ch_1",
}
INVOICE = {"id": "in_1", "amount_paid": 500, "currency": "usd"}
OURS = {"metadata": {"attempt": "a-1"}}
NEW_PARENT = {"parent": {"subscription_details": {"subscription": "sub_1", "metadata": {"attempt": "a-1"}}}}

EVENTS: list[tuple[str, dict[str, Any], list[str] | None, Standing, dict[str, Any]]] = [
    ("checkout.session.completed", SESSION, ["cs_1", "a-1"], Standing.PAID, {"amount": 500}),
    ("checkout.session.completed", SESSION | {"payment_status": "unpaid"}, ["cs_1", "a-1"], Standing.PROCESSING, {}),
    ("checkout.session.async_payment_succeeded", SESSION, ["cs_1", "a-1"], Standing.PAID, {}),
    ("checkout.session.async_payment_failed", SESSION | {"payment_status": "unpaid"}, ["cs_1", "a-1"],
     Standing.FAILED, {}),
    ("checkout.session.expired", SESSION | {"status": "expired", "payment_status": "unpaid"}, ["cs_1", "a-1"],
     Standing.EXPIRED, {}),
    ("checkout.session.completed", SESSION | {"payment_link": "plink_1"}, ["plink_1", "cs_1", "a-1"], Standing.PAID,
     {"provider_id": "plink_1", "names": {"payment_intent": "pi_1", "session": "cs_1"}}),
    ("checkout.session.expired", SESSION | {"payment_link": "plink_1", "status": "expired"}, None, Standing.OPEN, {}),
    ("payment_intent.succeeded", INTENT | OURS, ["pi_1", "a-1"], Standing.PAID, {"amount": 500, "provider_id": None}),
    ("payment_intent.processing", INTENT | OURS, ["pi_1", "a-1"], Standing.PROCESSING, {"amount": None}),
    ("payment_intent.succeeded", INTENT | {"metadata": {"account": "customer:1"}}, ["pi_1"], Standing.PAID, {}),
    ("payment_intent.processing", INTENT | {"metadata": {}}, None, Standing.PAID, {}),
    ("payment_intent.payment_failed", INTENT | OURS, None, Standing.OPEN, {}),
    ("charge.refunded", CHARGE, ["pi_1", "ch_1"], Standing.PAID, {"amount": 500, "refunded": 200}),
    ("refund.updated", REFUND | {"status": "failed"}, ["pi_1", "ch_1"], Standing.PAID, {}),
    ("charge.dispute.created", DISPUTE, None, Standing.PAID, {}),
    ("charge.dispute.funds_withdrawn", DISPUTE, ["pi_1", "ch_1"], Standing.PAID, {}),
    ("charge.dispute.funds_reinstated", DISPUTE, ["pi_1", "ch_1"], Standing.PAID, {}),
    ("invoice.paid", INVOICE | NEW_PARENT | {"billing_reason": "subscription_create"}, ["sub_1", "a-1"],
     Standing.PAID, {"provider_id": None, "names": {"subscription": "sub_1", "invoice": "in_1"}}),
    ("invoice.paid", INVOICE | {"subscription": "sub_1", "billing_reason": "subscription_cycle"}, ["sub_1"],
     Standing.PAID, {"amount": 500}),
    ("invoice.payment_failed", INVOICE | NEW_PARENT | {"billing_reason": "subscription_cycle"}, ["sub_1", "a-1"],
     Standing.OPEN, {}),
    ("invoice.payment_failed", INVOICE | NEW_PARENT | {"billing_reason": "subscription_create"}, None,
     Standing.OPEN, {}),
    ("invoice.paid", INVOICE, None, Standing.PAID, {}),
    ("customer.subscription.deleted", {"id": "sub_1", **OURS}, ["sub_1", "a-1"], Standing.CANCELED, {}),
    ("customer.created", {"id": "cus_1"}, None, Standing.OPEN, {}),
]  # fmt: skip


def read(kind: str, found: dict[str, Any]) -> Notice | None:
    provider = Stripe(KEY, Caller("stripe", "http://unused.invalid"))
    return provider.read(kind, json.dumps({"id": "evt_1", "type": kind, "data": {"object": found}}).encode())


def test_events_name_the_payment_and_tell_how_it_stands() -> None:
    for kind, found, names, standing, fields in EVENTS:
        notice = read(kind, found)
        if names is None:
            assert notice is None, kind
            continue
        assert notice is not None, kind
        assert (list(notice.names), notice.sight.standing) == (names, standing), kind
        assert {key: getattr(notice.sight, key) for key in fields} == fields, kind


def test_money_that_events_take_back_and_payments_that_repeat() -> None:
    found = {kind: read(kind, one) for kind, one, names, *_ in EVENTS if names}
    disputes = [found[f"charge.dispute.funds_{word}"] for word in ("withdrawn", "reinstated")]
    told = [notice and (notice.dispute, notice.dispute_currency) for notice in disputes]
    assert told == [(300, "USD"), (-300, "USD")]
    assert [notice and notice.sight.names["dispute"] for notice in disputes] == ["dp_1", "dp_1"]
    refund, cycle = found["refund.updated"], found["invoice.payment_failed"]
    assert refund is not None
    assert refund.refund == RefundSight(False, "re_1", 200, "failed")
    assert cycle is not None
    assert cycle.renewal == "in_1"


@pytest.mark.parametrize(
    ("kind", "found"),
    [
        ("checkout.session.completed", SESSION | {"currency": "xyz"}),
        ("checkout.session.completed", SESSION | {"id": ""}),
        ("checkout.session.completed", SESSION | {"amount_total": "500"}),
        ("checkout.session.completed", SESSION | {"url": "javascript:alert(1)"}),
        ("charge.refunded", {"id": "ch_1"}),
        (
            "refund.created",
            {key: value for key, value in REFUND.items() if key not in {"charge", "payment_intent"}},
        ),
    ],
)
def test_an_event_that_makes_no_sense(kind: str, found: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"."):
        read(kind, found)


def test_settings_make_the_provider() -> None:
    assert Stripe.of(load_settings(env_file=None, env="test")) is None
    made = Stripe.of(
        load_settings(env_file=None, env="test", stripe_secret_key=KEY, stripe_api_base="http://x.example/")
    )
    assert made is not None
    assert KEY not in repr(Refusal("x", str(made)))
