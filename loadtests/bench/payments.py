"""Payments of many people at one merchant's static QR code, with a fee, beside plain transfers of the same process."""

from collections.abc import Callable

from loadtests.bench.clients.workload import QR_PATH, Caller, Workload
from loadtests.bench.measures import BASE, Step, run_rounds
from loadtests.bench.meter import Meter
from loadtests.bench.stand import Stand, StandError, fetch
from loadtests.bench.subject import Shop

PAYMENTS = "payments"


async def payments(stand: Stand, meter: Meter) -> None:
    """One QR code and plain transfers by turns."""
    plan = stand.plan
    url = await stand.create_database(PAYMENTS, BASE)
    shop = await stand.subject.shop(url, plan.payers)
    async with stand.api(PAYMENTS) as api:
        await check(api, shop)
        connections = plan.payment_connections

        def step(name: str, workload: Callable[[], Workload]) -> Step:
            async def take() -> None:
                await meter.http(name, workload(), api, connections=connections, seconds=plan.seconds)

            return name, take

        def pay() -> Workload:
            return api.qr_payment(shop.tokens, shop.code)

        await meter.warm(api.single(), api, connections, plan.warm_seconds)
        await meter.warm(pay(), api, connections, plan.warm_seconds)
        await run_rounds(stand, meter, [step("payments.single", api.single), step("payments.qr", pay)])


async def check(api: Caller, shop: Shop) -> None:
    """Pay once, which shows that the service takes payments."""
    body = f'{{"code":"{shop.code}","idempotency_key":"sample","amount_cents":500}}'.encode()
    headers = {"Authorization": f"Bearer {shop.tokens[0]}"}
    sample = await fetch(api, "POST", QR_PATH, body, **headers)
    if sample.status != 200:
        text = sample.body.decode(errors="replace")
        raise StandError(f"a payment was answered {sample.status}: {text}")
