"""Faults: the ways in which the simulator fails when it is asked to.

A fault is written `operation:word=value`, such as `create:timeout`, `webhook:twice` or `create:wrong_amount=+1`. A
fault without an operation is one of `create`. Faults come from three places: `metadata.simulate` of an order (several,
apart by commas), the last four digits of its amount (BY_AMOUNT), and rules with a share, which are drawn for each call.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

OPERATIONS: Final = frozenset({"create", "look", "cancel", "refund", "webhook"})
# The work is not done: the answer is lost, or says so.
BEFORE: Final = frozenset({"busy", "decline", "error_before", "timeout_before", "reset_before"})
# The work is done, and then the answer is lost.
AFTER: Final = frozenset({"error", "timeout", "reset", "html"})
# The payment comes out otherwise than ordered; for a refund, `pending` and `failed`.
OTHERWISE: Final = frozenset(
    {"paid", "processing", "failed", "pending", "wrong_amount", "wrong_currency", "slow"}
)
# An event comes twice, never, or after the one that follows it.
OF_WEBHOOKS: Final = frozenset({"twice", "drop", "late"})
WORDS: Final = BEFORE | AFTER | OTHERWISE | OF_WEBHOOKS

AMOUNT_DIGITS: Final = 10_000
BY_AMOUNT: Final[Mapping[int, str]] = {
    9001: "create:decline",
    9002: "create:timeout",
    9003: "create:timeout_before",
    9004: "create:error",
    9005: "create:html",
    9006: "create:reset",
    9007: "create:busy=1",
    9008: "create:wrong_amount=-1",
    9009: "create:wrong_currency=EUR",
    9010: "webhook:twice",
    9011: "webhook:drop",
    9012: "webhook:late",
    9013: "refund:decline",
    9014: "refund:timeout",
    9015: "refund:pending",
    9016: "refund:failed",
}
SIMULATE: Final = "simulate"
# Calls whose faults are remembered, so that a repeated call is answered.
MOST_REMEMBERED: Final = 100_000


class Fault(NamedTuple):
    """One fault."""

    operation: str
    word: str
    value: str = ""


class Rule(msgspec.Struct, forbid_unknown_fields=True):
    """A fault that befalls a share of all calls of its operation."""

    fault: str
    share: float = 1.0


class Rules(msgspec.Struct, forbid_unknown_fields=True):
    """The rules that hold for all payments. The `seed` makes the draws the same each time."""

    rules: list[Rule] = []
    seed: int | None = None


def read(text: str) -> Fault:
    """Return the fault that a text names. Raises ValueError."""
    named, _, value = text.strip().partition("=")
    operation, mark, word = named.rpartition(":")
    fault = Fault(operation if mark else "create", word, value)
    if fault.operation not in OPERATIONS or fault.word not in WORDS:
        raise ValueError(
            f"{text!r} is no fault: operation:word=value, the word one of {', '.join(sorted(WORDS))}"
        )
    if fault.word in {"slow", "busy"} and fault.value:
        float(fault.value)
    if fault.word == "wrong_amount":
        int(fault.value)
    return fault


def of_order(amount: int, metadata: Mapping[str, str]) -> list[Fault]:
    """Return the faults that an order asks for. Raises ValueError for one that does not exist."""
    asked = [part for part in metadata.get(SIMULATE, "").split(",") if part.strip()]
    by_amount = BY_AMOUNT.get(amount % AMOUNT_DIGITS)
    return [read(text) for text in [*asked, *([by_amount] if by_amount else [])]]


class Faults:
    """The faults of one simulator."""

    def __init__(self) -> None:
        self._rules: list[tuple[Fault, float]] = []
        self.set(Rules())
        self._had: dict[tuple[str, str], None] = {}

    def set(self, rules: Rules) -> None:
        """Let these rules hold from now on. Raises ValueError."""
        self._rules = [(read(rule.fault), rule.share) for rule in rules.rules]
        self._random = random.Random(rules.seed)  # noqa: S311 - faults, not secrets

    def draw(self, operation: str, own: Iterable[Fault], call: str) -> dict[str, str]:
        """Return the words that befall this call, with their values.

        The faults of an order (`own`) befall the first call of its name alone, so that a repetition is answered.
        """
        first = (operation, call) not in self._had
        self._had[operation, call] = None
        if len(self._had) > MOST_REMEMBERED:
            del self._had[next(iter(self._had))]
        found = [fault for fault in own if fault.operation == operation and first]
        found += [fault for fault, share in self._rules if fault.operation == operation and self._hits(share)]
        return {fault.word: fault.value for fault in found}

    def _hits(self, share: float) -> bool:
        return self._random.random() < share
