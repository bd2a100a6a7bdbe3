"""Refunds of the Kaspi contract: each wish is paid out once."""

import asyncio
from collections import Counter

import pytest

from core.payments.kaspi.asking import find_payment
from core.payments.resolving import resolve_refund
from core.settings import Settings
from handlers.simulator.site import Simulator as Server
from tests.core.providers.scenes import serving
from tests.handlers.payments.kaspi.conftest import BIN, DEVICE, Stand, standing

pytestmark = pytest.mark.shared

MERCHANT = {"organizationBin": BIN, "deviceToken": DEVICE}


async def test_a_refund_is_made_once(stand: Stand) -> None:
    shop, other = await stand.shop(), await stand.shop()
    paid = await stand.paid(shop)  # 1,990.50
    answers = await asyncio.gather(*(stand.refund(shop, paid, 50.25) for _ in range(8)))
    assert Counter(status for status, _ in answers) == {200: 8}
    assert stand.proxy.asked("refund") == [{"externalId": paid, "amount": "50.25", **MERCHANT}]
    # Another amount, another time, and another key are refunds of their own.
    assert (await stand.refund(shop, paid, 50))[0] == 200
    await stand.owner.execute("UPDATE payment_refunds SET created_at = created_at - interval '4 minutes'")
    assert (await stand.refund(shop, paid, 50.25))[0] == 200
    for key in ("a", "b", "a"):
        assert (await stand.refund(shop, paid, 50.25, Idempotency_Key=key))[0] == 200
    assert len(stand.proxy.asked("refund")) == 5
    status, told = await stand.refund(shop, paid, 51, Idempotency_Key="a")
    assert (status, told["code"]) == (409, "idempotency_conflict")
    # Shop, payment and amount belong together.
    assert await stand.refund(other, paid, 1) == (
        404,
        {"detail": f"Payment not found for external_id={paid}"},
    )
    assert (await stand.refund(shop, "77", 1))[0] == 404
    status, told = await stand.refund(shop, paid, 1_990.5)
    assert (status, told["detail"]) == (
        400,
        "Failed to refund: At most 1739.5 tenge can be given back (code: refund_exceeds)",
    )
    exceeding = ("refund", paid, 199_050, "error", "At most 1739.5 tenge can be given back")
    assert (await stand.log(shop))[-1] == exceeding
    opened = (await stand.create(shop, message="open"))[1]["external_id"]
    assert await stand.refund(shop, opened, 1) == (
        400,
        {"detail": "Failed to refund: The payment is not paid (code: payment_not_paid)"},
    )
    assert (await stand.log(shop))[-1] == ("refund", opened, 100, "error", "The payment is not paid")
    assert len(stand.proxy.asked("refund")) == 5


@pytest.mark.parametrize("trouble", ["silence", "reset", "500"])
async def test_a_refund_that_nobody_knows_of_is_never_sent_again(stand: Stand, trouble: str) -> None:
    shop = await stand.shop()
    paid = await stand.paid(shop)
    stand.proxy.troubles.after += [trouble]
    for minutes in (0, 0, 60):
        await stand.owner.execute(
            "UPDATE payment_refunds SET created_at = created_at - make_interval(mins => $1)", minutes
        )
        status, told = await stand.refund(shop, paid, 7)
        assert (status, told["detail"][:22]) == (503, "Max retries exceeded: ")
    assert len(stand.proxy.asked("refund")) == 1
    assert [row[:4] for row in await stand.log(shop)][1:] == [("refund", paid, 700, "Wait")]
    # Money that may be on its way back cannot be given back a second time.
    assert (await stand.refund(shop, paid, 1_990.5))[0] == 400


async def test_a_refund_that_is_known_to_have_failed_is_refused(stand: Stand) -> None:
    """A client would send a 503 again, and each time order another refund."""
    shop = await stand.shop()
    paid = await stand.paid(shop)
    stand.proxy.troubles.after += ["reset"]
    assert (await stand.refund(shop, paid, 7, Idempotency_Key="k"))[0] == 503
    payment = await find_payment(stand.payments, paid)
    assert payment is not None
    await resolve_refund(stand.payments, payment.id, "key:k", "Ann", "the bank's list", done=False)
    refused = (500, {"detail": "Failed to refund: The bank has not given the money back."})
    assert await stand.refund(shop, paid, 7, Idempotency_Key="k") == refused
    assert len(stand.proxy.asked("refund")) == 1


async def test_a_refund_that_fails_at_once_is_refused(settings: Settings) -> None:
    async with (
        serving(Server().application()) as url,
        standing(settings, production_api_url="", simulator_url=url) as stand,
    ):
        shop = await stand.shop()
        _, told = await stand.create(
            shop, amount=90.16
        )  # the simulator lets the refunds of such a payment fail
        async with stand.beside.session.post(f"{url}/v1/payments/{told['external_id']}/pay") as paid:
            assert paid.status < 400, await paid.text()
        status, told = await stand.refund(shop, told["external_id"], 5)
        assert (status, told["detail"][:18]) == (500, "Failed to refund: ")
