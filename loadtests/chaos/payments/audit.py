"""The audit of payments: the provider's book, which is the truth, against payments and ledger."""

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from loadtests.bench.subject import Connection
from loadtests.chaos.audit import EXAMPLES, Finding
from loadtests.chaos.payments.till import CURRENCY, SHOP

#: The possible findings, each the opposite of a promise.
CHECKS = {
    "not_answered": "a creation that was asked for again and again was never answered",
    "lost": "a payment that was answered is not stored",
    "charged_twice": "the provider has charged one request more than once, or has two orders of it",
    "charged_and_closed": "a charged payment is closed as failed, canceled or expired",
    "not_known": "nobody knows how a payment stands after reconciliation",
    "untrue": "a payment stands otherwise than at the provider",
    "unasked": "the provider has an order that nobody asked for",
    "wrong_amount": "another amount is noted than was charged",
    "wrong_balance": "a balance is not the sum of what the provider has charged",
    "event_left": "an event of the inbox is neither applied nor ignored",
    "ledger": "`tallystick verify` found a fault",
    "books": "the books do not agree",
}
_OURS = {"open": "pending"}
_CLOSED = {"failed", "canceled", "expired"}


class Stored(NamedTuple):
    """A payment as it is stored."""

    request_id: str
    state: str
    paid: int


@dataclass
class Evidence:
    """The evidence of a run."""

    stored: Sequence[Stored]
    listed: Sequence[Mapping[str, Any]]
    """The provider's book."""
    balances: Mapping[str, int]
    answered: Collection[str] = ()
    asked: int = 0
    events_left: Sequence[str] = ()
    ledger: Sequence[str] = field(default_factory=list)
    books: Sequence[str] = field(default_factory=list)

    def states(self) -> dict[str, int]:
        """Return the number of payments in each state."""
        return dict(sorted(Counter(one.state for one in self.stored).items()))


async def look(connection: Connection, listed: Sequence[Mapping[str, Any]]) -> Evidence:
    """Read what is stored."""
    rows = await connection.fetch("SELECT request_id, state, paid FROM payments WHERE surface = 'chaos'")
    balances = await connection.fetch("SELECT code, balance FROM accounts WHERE currency = $1", CURRENCY)
    events = await connection.fetch(
        "SELECT event_id, state, outcome FROM inbox_events WHERE state <> 'done' ORDER BY event_id"
    )
    return Evidence(
        [Stored(*row) for row in rows],
        listed,
        {row["code"]: row["balance"] for row in balances},
        events_left=[f"{row['event_id']}: {row['state']} {row['outcome']}" for row in events],
    )


def judge(evidence: Evidence) -> list[Finding]:
    """Hold the evidence against every promise; nothing is found where all were kept."""
    book: defaultdict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for one in evidence.listed:
        book[str(one["reference"])].append(one)
    stored = {one.request_id: one for one in evidence.stored}
    broken: dict[str, list[str]] = {
        "not_answered": [f"{evidence.asked - len(evidence.answered)} of {evidence.asked}"]
        * (len(evidence.answered) < evidence.asked),
        "lost": sorted(name for name in evidence.answered if name not in stored),
        "charged_twice": [
            f"{name}: {len(orders)} orders" for name, orders in book.items() if len(orders) > 1
        ],
        "unasked": sorted(name for name in book if name not in stored),
        "event_left": list(evidence.events_left),
        "wrong_balance": _balances(evidence),
        "ledger": list(evidence.ledger),
        "books": list(evidence.books),
    }
    for name, payment in stored.items():
        check = _standing(payment, book[name])
        if check:
            told = [f"{order['standing']} {order['amount']}" for order in book[name]]
            broken.setdefault(check, []).append(f"{name} is {payment.state} {payment.paid}, there {told}")
    return [
        Finding(check=check, count=len(cases), examples=cases[:EXAMPLES])
        for check in CHECKS
        if (cases := broken.get(check))
    ]


def _standing(one: Stored, orders: Sequence[Mapping[str, Any]]) -> str:
    """Return the check that a payment fails, or nothing."""
    charged = [order for order in orders if order["standing"] == "paid"]
    if charged and one.state in _CLOSED:
        return "charged_and_closed"
    if one.state in {"created", "unknown"}:
        return "not_known"
    if not orders:
        return "" if one.state in _CLOSED else "untrue"
    standing = str(orders[0]["standing"])
    if one.state != _OURS.get(standing, standing):
        return "untrue"
    return "wrong_amount" if one.paid != sum(order["amount"] for order in charged) else ""


def _balances(evidence: Evidence) -> list[str]:
    earned = sum(one["amount"] - one["fee"] for one in evidence.listed if one["standing"] == "paid")
    expected = {SHOP: earned, f"provider:simulator:clearing:{CURRENCY}": -earned}
    return [
        f"{code} has {balance}, {balance - expected.get(code, 0):+} of what it should have"
        for code, balance in evidence.balances.items()
        if balance != expected.get(code, 0)
    ]
