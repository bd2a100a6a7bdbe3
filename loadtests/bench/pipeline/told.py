"""The group `told`: payments from wallet to wallet that somebody is told of, beside the same that nobody hears of."""

from loadtests.bench import outbox
from loadtests.bench.clients.client import ClientResult
from loadtests.bench.clients.workload import P2P_PATH, Caller, Workload
from loadtests.bench.deliveries import hook
from loadtests.bench.measures import BASE, run_rounds
from loadtests.bench.meter import DELIVERIES, TRANSFERS, Meter
from loadtests.bench.pipeline.arrivals import arrivals_of, forget
from loadtests.bench.pipeline.steps import Way, at_rate
from loadtests.bench.stand import SETTLE_SECONDS, Stand, StandError, fetch, wait_until
from loadtests.bench.subject import Shop

TOLD = "told"
ENDPOINTS_PATH = "/webhooks/endpoints"


async def told(stand: Stand, meter: Meter) -> None:
    """Payments to somebody without an endpoint and to somebody with one, by turns; then the latter at rates."""
    plan = stand.plan
    url = await stand.create_database(TOLD, BASE)
    shop = await stand.subject.shop(url, plan.payers)
    async with stand.receiver() as receiver, stand.api(TOLD) as api:
        way = Way(stand, meter, TOLD, api, receiver)
        await _prepare(way, shop)

        async def quiet() -> None:
            await _load(way, "told.quiet", api.p2p_payment(shop.tokens, shop.quiet_phone))

        async def heard() -> None:
            await _heard(way, shop)

        async def at(rate: int) -> None:
            workload = api.p2p_payment(shop.tokens, shop.phone, traced=True)
            work = at_rate(way, workload, rate, plan.seconds)
            await meter.measure(f"told@{rate}", work, connections=plan.ack_connections, unit=TRANSFERS)

        await meter.warm(
            api.p2p_payment(shop.tokens, shop.phone), api, plan.payment_connections, plan.warm_seconds
        )
        await _all_sent(way)
        steps = [(f"told@{rate}", lambda rate=rate: at(rate)) for rate in plan.told_rates]
        await run_rounds(stand, meter, [("told.quiet", quiet), ("told.heard", heard), *steps])


async def _prepare(way: Way, shop: Shop) -> None:
    """Make the endpoint of the one who is told, and pay both once."""
    wanted = b'{"url":"%b","secret":"%b","events":["wallet.transfer"]}' % (
        hook(way.receiver, "0").encode(),
        b"a-secret-of-the-benchmark",
    )
    await _must(way.api, ENDPOINTS_PATH, wanted, shop.merchant_token)
    for phone in (shop.phone, shop.quiet_phone):
        body = f'{{"to_phone":"{phone}","idempotency_key":"sample-{phone}","amount_cents":500}}'.encode()
        await _must(way.api, P2P_PATH, body, shop.tokens[0])


async def _must(api: Caller, path: str, body: bytes, token: str) -> None:
    sample = await fetch(api, "POST", path, body, Authorization=f"Bearer {token}")
    if sample.status != 200:
        text = sample.body.decode(errors="replace")
        raise StandError(f"{path} was answered {sample.status}: {text}")


async def _load(way: Way, name: str, workload: Workload) -> tuple[int, dict[str, float]]:
    plan = way.stand.plan
    figure = await way.meter.http(
        name, workload, way.api, connections=plan.payment_connections, seconds=plan.seconds
    )
    return figure.requests, figure.cpu


async def _heard(way: Way, shop: Shop) -> None:
    """The payments, and how fast they were told, until the last of them."""
    await forget(way.receiver)
    paid, cpu = await _load(way, "told.heard", way.api.p2p_payment(shop.tokens, shop.phone))
    await _all_sent(way)
    moments = sorted(arrival.moment for arrival in await arrivals_of(way.receiver, paid))
    missing = paid - len(moments)
    result = ClientResult(
        requests=len(moments),
        seconds=moments[-1] - moments[0] if len(moments) > 1 else 0.0,
        latency_ms={},
        errors={"missing": missing} if missing > 0 else {},
        client="receiver",
    )
    way.meter.keep("told.deliveries", result, connections=1, unit=DELIVERIES, cpu=cpu)


async def _all_sent(way: Way) -> None:
    async with way.stand.connect(way.database) as connection:
        if not await wait_until(lambda: outbox.is_sent(connection), SETTLE_SECONDS):
            raise StandError("the payments were not told")
