"""Routing: the providers of a payment in their order, from rules, weights and health, with the reasons. It is pure."""

from __future__ import annotations

import hashlib
import math
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec

from core.errors import Refusal

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from uuid import UUID

# A payer does not wait for more refusals than this, and the schema holds as many attempts.
MOST_ROUTES: Final = 8


class Rule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A rule: a provider, and the payments that it may be tried for. None admits every currency, method and merchant.

    Amounts are in minor units. Rules of a lower `rank` are tried first; within a rank the first choice falls on each by
    its `weight`, and a rule of weight 0 comes after all others of its rank.
    """

    provider: str
    currencies: frozenset[str] | None = None
    methods: frozenset[str] | None = None
    merchants: frozenset[str] | None = None
    least: int = 1
    most: int | None = None
    rank: int = 0
    weight: int = 1


class Wanted(NamedTuple):
    """The payment as far as routing looks at it: `merchant` is the ledger account, or else the caller."""

    amount: int
    currency: str
    method: str
    merchant: str
    provider: str | None = None
    """The one provider that the caller has named."""


class Decision(NamedTuple):
    """The providers in the order in which they are tried, and why each of the rules stands where it does."""

    providers: tuple[str, ...]
    reasons: tuple[tuple[str, str], ...]

    def told(self) -> str:
        """Return the reasons as JSON, as an attempt keeps them."""
        told: list[dict[str, Any]] = [{"provider": name, "reason": reason} for name, reason in self.reasons]
        return msgspec.json.encode({"order": self.providers, "rules": told}).decode()


def route(
    rules: Sequence[Rule], wanted: Wanted, payment_id: UUID, failing: Collection[str] = frozenset()
) -> Decision:
    """Return the providers for a payment. Those that are `failing` now come last, since a trial is better than a no.

    The draw by weight follows from the payment's id, so that the same payment has the same routes wherever it is asked.
    Raises Refusal `no_provider`, with the reasons.
    """
    good: list[tuple[tuple[bool, int, float], Rule]] = []
    reasons: list[tuple[str, str]] = []
    for rule in rules:
        objection = _objection(rule, wanted)
        if objection is not None:
            reasons.append((rule.provider, objection))
            continue
        fails = rule.provider in failing
        good.append(((fails, rule.rank, _draw(payment_id, rule)), rule))
        reasons.append((rule.provider, f"rank {rule.rank}, weight {rule.weight}{', failing now' * fails}"))
    good.sort(key=lambda one: one[0])
    providers = tuple(dict.fromkeys(rule.provider for _, rule in good))[:MOST_ROUTES]
    if not providers:
        causes = "; ".join(f"{name}: {reason}" for name, reason in reasons)
        raise Refusal("no_provider", f"No provider takes this payment. {causes}".strip(), rules=dict(reasons))
    return Decision(providers, tuple(reasons))


def _objection(rule: Rule, wanted: Wanted) -> str | None:
    """Return in words why a rule does not admit the payment, None if it does."""
    if wanted.provider not in {None, rule.provider}:
        return f"the caller wants {wanted.provider}"
    if rule.currencies is not None and wanted.currency not in rule.currencies:
        return f"not for {wanted.currency}"
    if rule.methods is not None and wanted.method not in rule.methods:
        return f"not for {wanted.method}"
    if rule.merchants is not None and wanted.merchant not in rule.merchants:
        return "not for this merchant"
    if wanted.amount < rule.least:
        return f"not below {rule.least}"
    if rule.most is not None and wanted.amount > rule.most:
        return f"not above {rule.most}"
    return None


def _draw(payment_id: UUID, rule: Rule) -> float:
    """Return the rule's lot; the lowest comes first, each with a chance in proportion to its weight.

    The minimum of exponential variables falls on each by its rate. (https://doi.org/10.1016/j.ipl.2005.11.003)
    """
    if rule.weight <= 0:
        return math.inf
    digest = hashlib.blake2b(payment_id.bytes + rule.provider.encode(), digest_size=8).digest()
    lot = (int.from_bytes(digest, "big") + 1) / (2**64 + 1)
    return -math.log(lot) / rule.weight
