"""Two who pay one payable at the same moment, first shown to pay it twice without its lock."""

from collections.abc import Awaitable, Callable
from typing import Any

from core.ledger.items import Outcome
from core.settings import Settings
from tests.chaos.staging import BARRIER, LOCK, PAYABLE_LOCK, at_barrier, connected, install, post_on
from tests.core.payables.conftest import Bank, payment


async def test_one_payable_and_two_payers(
    bank: Bank, owner: Any, settings: Settings, eventually: Callable[..., Awaitable[Any]]
) -> None:
    bob, ann, eve = await bank.user(), await bank.user(1_000), await bank.user(1_000)
    url = str(settings.database_url)

    async def both(key: str) -> list[str]:
        payable = await bank.payable(bob)
        items = [payment(payer, bob, 100, key, payable=payable) for payer in (ann, eve)]
        async with connected(url) as one, connected(url) as two:
            calls = [post_on(raw, item) for raw, item in zip((one, two), items, strict=True)]
            results: list[list[Outcome]] = await at_barrier(owner, calls, eventually)
        return sorted(outcome.kind.code for (outcome,) in results)

    # Both have read the payable when they come to the accounts.
    await install(owner, (PAYABLE_LOCK, ""), (LOCK, BARRIER + LOCK))
    assert await both("without") == ["posted", "posted"]
    await install(owner, (LOCK, BARRIER + LOCK))
    assert await both("with") == ["payable_not_open", "posted"]
    assert await bank.balances(bob) == [300]
