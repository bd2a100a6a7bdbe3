"""Payments through a provider: how many are asked for in a second, and what the engine adds to its time."""

import msgspec

from loadtests.bench.clients.workload import CARD_PATH, Caller
from loadtests.bench.measures import BASE, Step, run_rounds
from loadtests.bench.meter import Meter
from loadtests.bench.stand import Stand, StandError, fetch
from loadtests.bench.subject import Shop

CREATES, OWN = "creates", "creates_own"


async def creates(stand: Stand, meter: Meter) -> None:
    """Creations over HTTP with the simulator, and the engine alone with a provider that answers at once."""
    plan = stand.plan
    shop = await stand.subject.shop(await stand.create_database(CREATES, BASE), plan.payers)
    own_url = await stand.create_database(OWN, BASE)
    async with (
        stand.provider() as provider,
        # The worker looks after payments meanwhile, as it would.
        stand.api(CREATES, provider=provider) as api,
        stand.subject.creates(own_url, stand.redis_url(OWN)) as create,
    ):
        await check(api, shop)
        await meter.warm(api.card_payment(shop.tokens), api, plan.payment_connections, plan.warm_seconds)

        async def ask() -> None:
            workload = api.card_payment(shop.tokens)
            await meter.http(
                "creates.http", workload, api, connections=plan.payment_connections, seconds=plan.seconds
            )

        async def alone() -> None:
            await meter.direct("creates.own@1", create, plan.seconds)

        steps: list[Step] = [("creates.http", ask), ("creates.own@1", alone)]
        await run_rounds(stand, meter, steps)


async def check(api: Caller, shop: Shop) -> None:
    """Ask once, which shows that the service has a provider."""
    body = b'{"idempotency_key":"sample","amount_cents":500}'
    headers = {"Authorization": f"Bearer {shop.tokens[0]}"}
    sample = await fetch(api, "POST", CARD_PATH, body, **headers)
    if sample.status != 200 or msgspec.json.decode(sample.body)["state"] != "pending":
        text = sample.body.decode(errors="replace")
        raise StandError(f"a payment by card was answered {sample.status}: {text}")
