"""The loads of a full run: signed events, the movers' requests, and payments at a provider that fails."""

from collections.abc import Coroutine, Mapping
from typing import Any

import aiohttp

from loadtests.chaos.full.movers import Movers
from loadtests.chaos.full.plan import Plan
from loadtests.chaos.full.stage import FullStage
from loadtests.chaos.payments.buyers import Buyers
from loadtests.chaos.payments.buyers import Plan as PaymentPlan
from loadtests.chaos.payments.run import Book
from loadtests.chaos.plan import Plan as EventPlan
from loadtests.chaos.plan import stream
from loadtests.chaos.provider import Provider

#: The streams are drawn for so long; a run that takes longer ends with faults and no load, which its figures show.
LONGEST_SECONDS = 4 * 3_600.0
#: The provider's troubles in a storm: it declines, is away before and after the charge, and charges another amount.
STORM = {
    "create:decline": 0.2,
    "create:paid": 0.4,
    "create:timeout": 0.3,
    "create:timeout_before": 0.1,
    "create:error": 0.2,
    "create:error_before": 0.2,
    "create:reset": 0.2,
    "create:reset_before": 0.1,
    "create:slow": 0.2,
    "create:html": 0.1,
    "look:timeout": 0.3,
    "cancel:error": 0.3,
    "webhook:twice": 0.4,
    "webhook:drop": 0.4,
    "webhook:late": 0.5,
}


class Loads:
    """The three loads of a run, and what they have been told."""

    def __init__(self, plan: Plan, stage: FullStage, session: aiohttp.ClientSession) -> None:
        count = int(plan.events_a_second * LONGEST_SECONDS)
        small = EventPlan(seed=plan.seed, events=count, rate=plan.events_a_second)
        self.provider = Provider(small, stream(small), stage.url, session)
        self.movers = Movers(plan.seed, stage.url, stage.keys[0], session)
        self.book = Book(stage.provider_url, session)
        paid = PaymentPlan(seed=plan.seed, payments=int(plan.payments_a_second * LONGEST_SECONDS))
        self.buyers = Buyers(paid, stage.till_urls, stage.provider_url, session)
        self._plan = plan
        self._all = (self.provider, self.movers, self.buyers)

    def run(self) -> list[Coroutine[Any, Any, None]]:
        """Return the loads, to be begun."""
        plan = self._plan
        return [
            self.provider.run(),
            self.movers.run(plan.transfers_a_second),
            self.buyers.run(1 / plan.payments_a_second),
        ]

    def finish(self) -> None:
        """Begin with nothing new."""
        for load in self._all:
            load.finish()

    def give_up(self) -> None:
        """Try nothing again."""
        for load in self._all:
            load.give_up()

    def acknowledged(self) -> int:
        """Return the number of writes that were acknowledged so far."""
        return self.provider.journal.statuses["200"] + self.movers.acknowledged

    async def trouble(self, shares: Mapping[str, float]) -> None:
        """Let the provider fail in these ways from now on."""
        rules = [{"fault": fault, "share": share} for fault, share in shares.items()]
        await self.book.put("/faults", {"seed": self._plan.seed, "rules": rules})
