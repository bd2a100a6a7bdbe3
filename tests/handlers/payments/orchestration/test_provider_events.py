"""Events of the provider at a payment's own address: signed, in any number and order, with and without a gateway."""

import asyncio
import itertools
from typing import Any

import pytest

from tests.handlers.payments.orchestration.conftest import Contract

pytestmark = pytest.mark.shared

_foreign = itertools.count(1)
PROCESSED = (200, {"message": "Provider callback processed"})


async def status(contract: Contract, payment: dict[str, Any]) -> int:
    found: int = (await contract.ask("GET", f"/payments/{payment['id']}")).payment["status"]
    return found


async def test_the_provider_and_a_gateway_may_post_an_event_any_number_of_times(contract: Contract) -> None:
    ways: list[dict[str, Any]] = [
        {}, {"enveloped": True}, {"caller": "gateway"}, {"caller": "gateway", "enveloped": True},
    ]  # fmt: skip
    payment = await contract.create()
    for number, way in enumerate(ways):
        payment = await contract.create()
        for _ in range(3):
            said = await contract.event(payment, event_id=f"evt_way_{number}", **way)
            assert (said.status, said.json) == PROCESSED, way
        assert await status(contract, payment) == 10
    # The word of the provider in the path may be written otherwise.
    path = f"/webhooks/providers/Stripe/{payment['provider_callback_hash']}"
    assert (await contract.event(payment, "customer.created", path=path)).status == 200
    same = [contract.event(payment, event_id="evt_same") for _ in range(8)]
    assert {said.status for said in await asyncio.gather(*same)} == {200}


@pytest.mark.parametrize(
    ("event_type", "of_object", "expected"),
    [
        ("checkout.session.completed", {"payment_status": "unpaid"}, 3),
        ("checkout.session.completed", {"amount_total": 1}, 3),
        ("checkout.session.completed", {"currency": "eur"}, 3),
        ("checkout.session.async_payment_succeeded", {}, 10),
        ("checkout.session.async_payment_failed", {"payment_status": "unpaid"}, 20),
        ("checkout.session.expired", {"status": "expired", "payment_status": "unpaid"}, 40),
        ("charge.updated", {}, 2),
        ("checkout.session.completed", {"status": None, "payment_status": "unpaid"}, 2),
    ],
)
async def test_an_event_moves_a_payment_as_the_engine_decides(
    contract: Contract, event_type: str, of_object: dict[str, Any], expected: int
) -> None:
    payment = await contract.create()
    said = await contract.event(payment, event_type, **of_object)
    assert (said.status, said.json) == PROCESSED
    assert await status(contract, payment) == expected
    # Late and contrary events take no money away.
    await contract.event(payment)
    paid = await status(contract, payment)
    await contract.event(payment, "checkout.session.expired", status="expired", payment_status="unpaid")
    assert await status(contract, payment) == paid
    if expected != 3 or "amount_total" not in of_object:
        assert paid == 10 or of_object.get("currency") == "eur"


async def test_what_is_not_genuine_or_complete_is_refused(contract: Contract) -> None:
    payment = await contract.create()
    other = await contract.create()
    path = f"/webhooks/providers/stripe/{payment['provider_callback_hash']}"
    signed = {"Stripe-Signature": "t=1,v1=" + "a" * 64}
    paypal = path.replace("stripe", "paypal")
    no_key = {"X-Request-ID": "r", "X-API-Key": "tsi_x"}
    # An event about a payment that has another address.
    wrong_place = payment | {"provider_callback_hash": other["provider_callback_hash"]}
    named = {"attempt": await attempt_of(contract, payment)}
    refusals: list[tuple[Any, tuple[int, str]]] = [
        # Without a signature that holds, a stranger is told what every stranger is told.
        (contract.event(payment, secret="whsec_x"), (400, "x-request-id header is required")),
        (contract.ask("POST", path, b"{}", caller=None, headers=signed), (401, "missing x-api-key header")),
        (contract.event(payment, secret="whsec_x", caller="gateway"), (400, "callback rejected")),
        (contract.event(payment, headers=no_key), (401, "invalid or expired api key")),
        (contract.ask("POST", path, b"{}"), (400, "provider signature is required")),
        (contract.ask("POST", path, b" ", headers=signed), (400, "payload is required")),
        (contract.ask("POST", paypal, b"{}", headers=signed), (400, "provider is not supported")),
        (contract.event(payment, path="/webhooks/providers/stripe/no"), (404, "payment not found")),
        (contract.event(wrong_place, metadata=named), (400, "callback rejected")),
    ]
    for asked, (code, text) in refusals:
        said = await asked
        assert (said.status, said.json) == (code, {"error": text})
    assert await status(contract, payment) == await status(contract, other) == 2


INTENT: dict[str, Any] = {
    "object": "payment_intent",
    "status": "succeeded",
    "amount": 1250,
    "amount_received": 1250,
}


@pytest.mark.parametrize(
    ("event_type", "of_object"),
    [
        ("checkout.session.completed", {}),
        ("checkout.session.completed", {"client_reference_id": "r-1", "metadata": {"request_id": "r-1"}}),
        ("checkout.session.completed", {"metadata": {"callback_hash": "another"}}),
        ("checkout.session.completed", {"metadata": {"attempt": "00000000-0000-4000-8000-000000000000"}}),
        ("payment_intent.succeeded", INTENT),
        ("payment_intent.succeeded", INTENT | {"metadata": {"account": "somebody"}}),
        ("charge.refunded", {"object": "charge", "amount": 1250, "amount_refunded": 10}),
        ("charge.dispute.funds_withdrawn", {"object": "dispute", "amount": 1250, "charge": "ch_x"}),
    ],
)
async def test_an_event_of_a_foreign_object_pays_nothing(
    contract: Contract, event_type: str, of_object: dict[str, Any]
) -> None:
    """Whether or not the provider's answer to the order has come, and however often it is sent where."""
    payments = [await contract.create() for _ in range(2)]
    await contract.owner.execute(
        "UPDATE payment_attempts SET provider_id = NULL WHERE provider_id = $1",
        payments[1]["provider_payment_id"],
    )
    foreign = {"id": f"foreign_{next(_foreign)}", **of_object}
    said = [await contract.event(one, event_type, **foreign) for one in [*payments, payments[0]]]
    assert {(one.status, one.body) for one in said} == {(400, b'{"error":"callback rejected"}\n')}
    assert [await status(contract, one) for one in payments] == [2, 2]


async def test_an_object_that_names_the_address_or_the_attempt_pays(contract: Contract) -> None:
    """Events of an older gateway's orders have the hash, ours the attempt, before any answer has told a name."""
    account = {"account": "somebody"}
    cases: list[tuple[str, dict[str, Any], int]] = [
        ("checkout.session.completed", {"id": "cs_older"}, 10),
        ("payment_intent.succeeded", INTENT | {"id": "pi_older"}, 10),
        # The rule of `metadata.account` takes this one.
        ("payment_intent.succeeded", INTENT | {"id": "pi_other", "metadata": account}, 2),
    ]
    for event_type, of_object, expected in cases:
        payment = await contract.create()
        row = await contract.parts.desk.row_of_hash(1, payment["provider_callback_hash"])
        assert row is not None
        by_hash = {"callback_hash": payment["provider_callback_hash"]}
        for named in (by_hash, {"attempt": str(row["attempt_id"])} if expected == 10 else by_hash):
            told = of_object | {"metadata": {**named, **of_object.get("metadata", {})}}
            said = await contract.event(payment, event_type, **told)
            assert said.status == (200 if expected == 10 else 400), told
        assert await status(contract, payment) == expected
    # The payment has a session of its own, and this is another one.
    payment = await contract.create()
    await contract.owner.execute(
        "UPDATE payment_attempts SET provider_id = 'cs_own' WHERE provider_id = $1",
        payment["provider_payment_id"],
    )
    by_hash = {"callback_hash": payment["provider_callback_hash"]}
    assert (await contract.event(payment, id="cs_another", metadata=by_hash)).status == 400
    assert await status(contract, payment) == 2


async def attempt_of(contract: Contract, payment: dict[str, Any]) -> str:
    row = await contract.parts.desk.row_of_hash(1, payment["provider_callback_hash"])
    assert row is not None
    # As if Stripe itself had the order: the stand-in's name is another.
    await contract.owner.execute(
        "UPDATE payment_attempts SET provider = 'stripe' WHERE id = $1", row["attempt_id"]
    )
    return str(row["attempt_id"])
