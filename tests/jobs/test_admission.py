"""Real money of our own accounts posts, in the unit that the provider writes it in; the rest is told and kept."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import pytest

from core.inbox.processing import Processor
from core.inbox.rules import Admission
from core.money import decimals
from core.provider_units import UNITS, UnknownUnitError, to_ledger
from core.settings import Settings, load_settings
from core.work.leases import Worker
from tests.jobs.merchant import Thread, payment


class Case(NamedTuple):
    """An event that differs from a good one by `changes` of it, and of its intent; what becomes of it."""

    changes: Mapping[str, Any]
    settings: Mapping[str, Any] = MappingProxyType({})
    intent: Mapping[str, Any] = MappingProxyType({})
    outcome: str = "ignored"
    reason: str | None = None
    state: str = "done"


def posts(changes: dict[str, Any], **settings: Any) -> Case:
    return Case(changes, settings, outcome="applied")


def ignored(reason: str, changes: dict[str, Any], **settings: Any) -> Case:
    return Case(changes, settings, reason=reason)


def dead(**intent: Any) -> Case:
    return Case({}, intent=intent, outcome="unusable_payload", state="dead")


CASES = [
    posts({"livemode": True}, env="prod"),
    ignored("test_event", {"livemode": False}, env="prod"),
    ignored("unmarked_event", {"livemode": None}, env="prod"),
    ignored("unmarked_event", {"livemode": "true"}, env="prod"),
    posts({"livemode": False}, env="prod", stripe_livemode="test"),
    ignored("live_event", {"livemode": True}, stripe_livemode="test"),
    posts({"livemode": False}, env="prod", stripe_livemode="both"),
    posts({"livemode": False}, env="dev"),
    posts({"livemode": True}, env="dev"),
    ignored("test_event", {"livemode": False}, env="dev", stripe_livemode="live"),
    ignored("other_account", {"account": "acct_strange"}, env="dev"),
    ignored("other_account", {"context": "acct_strange/acct_ours"}, stripe_accounts=("acct_ours",)),
    ignored("other_account", {"account": ["acct_ours"]}, stripe_accounts=("acct_ours",)),
    ignored("other_account", {"account": {"id": "acct_ours"}}, stripe_accounts=("acct_ours",)),
    ignored("other_account", {"account": "acct_our"}, stripe_accounts=("acct_ours",)),
    posts({"account": "acct_ours"}, stripe_accounts=("acct_b", "acct_ours")),
    ignored("test_event", {"account": "acct_ours", "livemode": False}, env="prod", stripe_accounts=("acct_ours",)),
    posts({"account": None, "context": None}),
    ignored("thin_event", {"object": "v2.core.event", "livemode": True, "data": None}),
    # An event that names no account of ours is none of our business, whatever else it holds or lacks.
    *(
        Case({}, intent={"metadata": metadata} | more, reason="no_account_named")
        for metadata in (None, {}, {"order": "7"}, {"account": None}, {"account": ""})
        for more in ({}, {"amount_received": None}, {"currency": 7, "id": None})
    ),
    Case({}, intent={"metadata": []}, reason="no_account_named"),
    Case({}, intent={"metadata": ""}, reason="no_account_named"),
    dead(metadata=[1]),
    dead(metadata={"account": 7}),
    dead(metadata={"account": "a\ud800"}),
    dead(amount_received=None),
    dead(amount_received=15.5),
    dead(id="\ud800"),
    dead(currency="xyz"),
    dead(currency="usdc"),
    dead(currency="isk", amount_received=1_550),
    Case({"data": None}, outcome="unusable_payload", state="dead"),
    Case({"data": {"object": "pi_1"}}, outcome="unusable_payload", state="dead"),
]  # fmt: skip


async def apply(thread: Thread, settings: Settings) -> None:
    service = thread.service
    worker = Processor(
        service.database, service.ledger, Worker(), admission=Admission.of(settings), wake=lambda _: None
    )
    while await worker.step():
        pass


async def test_only_real_money_of_our_accounts_posts(thread: Thread, settings: Settings) -> None:
    await thread.open_account("shop:till")
    expected = 0
    for number, case in enumerate(CASES):
        event = payment(f"pi_{number}", "shop:till", 1500)
        event["data"]["object"].update(case.intent)
        event |= {"livemode": True, **case.changes}
        assert (await thread.send(event))[0] == 200
        await apply(thread, settings.model_copy(update=case.settings))
        row = await thread.inbox(event["id"])
        assert (row["state"], row["outcome"]) == (case.state, case.outcome), case
        assert (row["reason"] or "").split(":")[0] == (case.reason or ""), case
        assert (row["last_error"] is not None) == (case.state == "dead"), case
        expected += 1500 if case.outcome == "applied" else 0
        assert await thread.balance("shop:till") == expected, case


async def test_amounts_are_booked_in_the_unit_of_the_ledger(thread: Thread, settings: Settings) -> None:
    for currency, amount, booked in (
        ("isk", 500_000, 5_000),
        ("ugx", 500, 5),
        ("jpy", 500, 500),
        ("mga", 7, 700),
        ("kwd", 5_120, 5_120),
        ("huf", 1_045, 1_045),
        ("twd", 800, 800),
        ("usd", 1_999, 1_999),
    ):
        account = f"shop:{currency}"
        await thread.open_account(account, currency.upper())
        assert (await thread.send(payment(f"pi_{currency}", account, amount, currency=currency)))[0] == 200
        await apply(thread, settings)
        assert await thread.balance(account) == booked


@pytest.mark.parametrize("provider", UNITS)
def test_every_unit_of_every_provider(provider: str) -> None:
    """Five whole units of each currency are five whole units in the ledger; part of a minor unit is refused."""
    for currency, digits in UNITS[provider].items():
        assert to_ledger(provider, 5 * 10**digits, currency) == 5 * 10 ** decimals(currency), currency
        assert to_ledger(provider, -5 * 10**digits, currency) == -5 * 10 ** decimals(currency), currency
        if digits > decimals(currency):
            with pytest.raises(UnknownUnitError):
                to_ledger(provider, 5 * 10**digits + 1, currency)
        with pytest.raises(UnknownUnitError):
            to_ledger(provider, 2**62 * 10**digits, currency)
    for unknown in ("XXX", "usd", "USDC", "BTC", ""):
        with pytest.raises(UnknownUnitError):
            to_ledger(provider, 1, unknown)


def test_defaults_of_the_environments() -> None:
    prod = load_settings(env_file=None, env="test").model_copy(
        update={"env": "prod", "paypal_mode": "sandbox"}
    )
    live = prod.model_copy(update={"paypal_mode": "live"})
    dev = prod.model_copy(update={"env": "dev"})
    found = [
        (one.stripe, one.cloudpayments, one.paypal)
        for one in (Admission.of(each) for each in (prod, live, dev))
    ]
    assert found == [("live", "live", False), ("live", "live", True), ("both", "both", True)]
