"""The sweep finds the work that a lost wake-up left, and measures how much waits. arq runs it once for all workers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import structlog

from core import metrics
from core.work import wakeup
from core.work.leases import prune_workers
from core.work.sweep import read_backlog

if TYPE_CHECKING:
    from core.database import Database
    from core.work.wakeup import Waker

log = structlog.get_logger(__name__)

# Every loop polls each second; work that is older waits for another cause, and a person should look.
LATE_SECONDS: Final = 10.0


async def sweep(database: Database, waker: Waker) -> int:
    """Wake every loop of every worker, publish the backlog as metrics, and log a backlog that is old.

    Returns 0: the sweep itself does no work.
    """
    for topic in wakeup.TOPICS:
        waker.wake(topic)
    backlog = await read_backlog(database)
    await prune_workers(database)
    metrics.DLQ_PENDING.set(backlog.inbox_dead)
    late = max(backlog.inbox_oldest_seconds, backlog.outbox_oldest_seconds) > LATE_SECONDS
    (log.warning if late else log.debug)("sweep.backlog", **backlog._asdict())
    return 0
