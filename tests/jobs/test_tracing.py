"""Traces as a collector receives them: one from a provider's event to the delivery that tells of it."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import pytest

from core import tracing
from core.ledger.accounts import Limits, Opening, open_account
from core.ledger.items import SYSTEM_PRINCIPAL
from core.settings import Settings
from core.work import traces
from tests.collector import Collector, Seen, collecting
from tests.jobs.merchant import Thread, payment

Eventually = Callable[..., Awaitable[Any]]
StartWorker = Callable[..., asyncio.Event]
CALLER, UNSAMPLED = "b7ad6b7169203331", "f" * 32


@pytest.fixture
def collector() -> Iterator[Collector]:
    with collecting() as found:
        yield found


@pytest.fixture
async def settings(
    settings: Settings, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Settings]:
    # A busy machine must not make the store forget.
    monkeypatch.setattr(traces, "WITHIN_SECONDS", 20.0)
    traced = settings.model_copy(
        update={"otel_exporter_otlp_endpoint": collector.url, "otel_exporter_otlp_headers": "x-token=a%20b"}
    )
    tracing.start(traced)
    yield traced
    tracing.stop()


def only(found: list[Seen]) -> Seen:
    assert len(found) == 1, found
    return found[0]


async def test_one_trace_from_a_providers_event_to_its_delivery(
    thread: Thread, start_worker: StartWorker, eventually: Eventually, collector: Collector
) -> None:
    await thread.open_account("shop:main")
    await thread.subscribe(event_types=("payment.succeeded",))
    stopping = start_worker()
    await thread.send(payment("pi_1", "shop:main", 1500))
    (delivery,) = await eventually(lambda: thread.receiver.deliveries)

    async def recorded() -> bool:
        return [row["state"] for row in await thread.deliveries()] == ["delivered"]

    await eventually(recorded)  # the span of the delivery has ended by then
    stopping.set()
    await asyncio.to_thread(tracing.stop)

    received = only(collector.named("POST /webhooks/stripe"))
    assert (received.kind, received.parent) == ("server", "")
    assert received.attributes["http.route"] == "/webhooks/stripe"
    assert received.attributes["http.response.status_code"] == 200
    assert "store_inbox_events" in collector.under(received)

    processed = only(collector.named("process stripe"))
    assert (processed.kind, processed.trace) == ("consumer", received.trace)
    assert processed.attributes["tallystick.outcome"] == "applied"
    assert "post_and_deliver" in collector.under(processed)

    sent = only(collector.named("deliver webhook"))
    assert (sent.kind, sent.trace, sent.failed) == ("client", received.trace, False)
    assert sent.attributes["http.response.status_code"] == 200
    assert delivery.headers["traceparent"] == f"00-{sent.trace}-{sent.id}-01"
    # The runs of loops are traces of their own, in the same process of the test.
    assert {"job inbox", "job seal"} <= {span.name for span in collector.spans}
    # No span tells a parameter, an address with its path, or a body.
    told = {str(value) for span in collector.spans for value in span.attributes.values()}
    assert not {word for word in told if "shop:main" in word or "1500" in word or "//" in word}
    assert {headers["x-token"] for headers in collector.headers} == {"a b"}


async def test_transfers_go_on_with_their_callers_traces(thread: Thread, collector: Collector) -> None:
    await thread.open_account("a:1")
    opening = Opening("cash", "USD", Limits(floor=None))
    await open_account(thread.service.database, opening, SYSTEM_PRINCIPAL)
    ids = [f"{number:032x}" for number in range(1, 9)]

    async def transfer(trace: str, flag: str = "01") -> str:
        answer = await thread.api.post(
            "/v1/transfers",
            json={"from": "cash", "to": "a:1", "amount": 5, "currency": "USD"},
            headers={
                "Authorization": f"Bearer {thread.key}",
                "Idempotency-Key": f"key-{trace}",
                "traceparent": f"00-{trace}-{CALLER}-{flag}",
            },
        )
        assert answer.status == 201, await answer.text()
        return answer.headers["traceparent"]

    told = await asyncio.gather(*map(transfer, ids))
    await transfer(UNSAMPLED, "00")
    await asyncio.to_thread(tracing.stop)
    requests = {span.trace: span for span in collector.named("POST /v1/transfers")}
    assert requests.keys() == set(ids)
    for trace, header in zip(ids, told, strict=True):
        assert (requests[trace].parent, header) == (CALLER, f"00-{trace}-{requests[trace].id}-01")
        assert "ledger.post" in collector.under(requests[trace])
    # A transfer that went alone has the statement below it; those of a batch have the batch in theirs, or a link to it.
    batches = {span.id: span for span in collector.spans if span.name == "ledger.post batch"}
    for span in collector.named("ledger.post"):
        alone = "post" in collector.under(span)
        assert alone or batches.keys() & {*span.links, *(one.id for one in batches.values())}
    assert all("post" in collector.under(batch) for batch in batches.values())
    assert sum(span.name == "post" for span in collector.spans) >= 1
