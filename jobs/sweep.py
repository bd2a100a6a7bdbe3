"""What the clock does: find what a lost wake-up left, and measure how much waits. arq runs it once for all workers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import structlog

from core import metrics, wakeup
from core.database import statements
from core.leases import prune_workers

if TYPE_CHECKING:
    from core.database import Database
    from core.wakeup import Waker

log = structlog.get_logger(__name__)
_inbox = statements("inbox")
_outbox = statements("outbox")

# Every loop polls each second; work that is older waits for something else, and somebody should look.
LATE_SECONDS: Final = 10.0


async def sweep(database: Database, waker: Waker) -> None:
    """Wake every loop of every worker, publish the backlog as metrics, and say so in the log when it is old."""
    for topic in wakeup.TOPICS:
        waker.wake(topic)
    inbox = await database.fetchrow(_inbox.inbox_backlog)
    outbox = await database.fetchrow(_outbox.outbox_backlog)
    await prune_workers(database)
    if inbox is None or outbox is None:  # two selects without FROM always have a row
        return
    metrics.DLQ_PENDING.set(inbox["dead"])
    backlog = {
        "inbox_due": inbox["due"],
        "inbox_oldest_seconds": round(inbox["oldest_seconds"], 1),
        "inbox_dead": inbox["dead"],
        "outbox_events": outbox["events"],
        "deliveries_due": outbox["deliveries"],
        "outbox_oldest_seconds": round(outbox["oldest_seconds"] or 0.0, 1),
    }
    late = max(backlog["inbox_oldest_seconds"], backlog["outbox_oldest_seconds"]) > LATE_SECONDS
    (log.warning if late else log.debug)("sweep.backlog", **backlog)
