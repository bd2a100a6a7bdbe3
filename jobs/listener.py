"""The worker's own metrics for Prometheus, on a port of its own: the API's processes cannot know them."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

import structlog
from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.registry import Collector as Collecting

from core import metrics
from core.work.gauges import MEASURE_SECONDS, Collector

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

    from prometheus_client import Metric

    from core.service import Service

log = structlog.get_logger(__name__)

# The database answers within this time; a loop that does not come to ask is stuck, and the scrape fails, as it should.
ANSWER_SECONDS: Final = 2 * MEASURE_SECONDS + 2.0


class _Current(Collecting):
    """The current metrics: the event loop's thread hands them over at each scrape, which runs in another thread."""

    def __init__(self, collector: Collector) -> None:
        self._collector = collector
        self._loop = asyncio.get_running_loop()

    def collect(self) -> Iterable[Metric]:
        asyncio.run_coroutine_threadsafe(self._hand_over(), self._loop).result(ANSWER_SECONDS)
        return metrics.REGISTRY.collect()

    async def _hand_over(self) -> None:
        await self._collector.collect()
        metrics.flush()


@asynccontextmanager
async def metrics_listener(service: Service) -> AsyncIterator[None]:
    """Listen on WORKER_METRICS_PORT of APP_HOST meanwhile, unless it is 0. Raises OSError when the port is taken."""
    settings = service.settings
    if not settings.worker_metrics_port:
        yield
        return
    registry = CollectorRegistry()
    registry.register(_Current(Collector(service.database, settings.metrics_interval_secs)))
    server, thread = start_http_server(settings.worker_metrics_port, settings.app_host, registry)
    log.info("worker.metrics", host=settings.app_host, port=settings.worker_metrics_port)
    try:
        yield
    finally:
        # shutdown() runs in another thread than the loop's, which a scrape may wait for.
        await asyncio.to_thread(server.shutdown)
        server.server_close()
        await asyncio.to_thread(thread.join)
