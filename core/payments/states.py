"""States: the one table that says where an attempt goes when something is seen, and the state of its payment.

Everything that moves an attempt comes through this table: the answer of a call, an event, a look, a person. It has a
row for each pair, so nothing is left to chance, and three promises hold by its shape:

- money that has arrived stays in sight: PAID is never left, and MISMATCHED is left for PAID alone;
- UNKNOWN is left only when somebody who knows has spoken; a time that is over is a wish, and never an answer;
- sights commute: the state in the end does not depend on the order in which they came, or on how often, but for the
  name of a payment that was closed without money, which the first to close it gives.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Final, NamedTuple


class State(StrEnum):
    """The state of an attempt, and of the payment that it is made for."""

    CREATED = "created"
    """It is stored, and the provider has not answered yet."""
    PENDING = "pending"
    """The provider waits for the payer."""
    PROCESSING = "processing"
    """The payer has paid, and the provider does not know yet whether the money comes."""
    UNKNOWN = "unknown"
    """Nobody here knows whether the provider has done what it was asked for."""
    PAID = "paid"
    MISMATCHED = "mismatched"
    """Money has come that is not what was asked for, or came twice; it lies on a suspense account."""
    FAILED = "failed"
    CANCELED = "canceled"
    EXPIRED = "expired"


class Seen(StrEnum):
    """Something that was seen of an attempt, or asked of it."""

    OPEN = "open"
    PROCESSING = "processing"
    PAID = "paid"
    """Paid with the amount and in the currency that were asked for."""
    DIFFERENT = "different"
    """Paid otherwise: another amount, another currency, or a second time."""
    FAILED = "failed"
    CANCELED = "canceled"
    EXPIRED = "expired"
    ABSENT = "absent"
    """The provider has never heard of it."""
    DECLINED = "declined"
    """The provider has refused the order."""
    UNSENT = "unsent"
    """The provider has certainly not got this call."""
    UNKNOWN = "unknown"
    """A call ended in a way that tells nothing."""
    CANCEL_ASKED = "cancel_asked"
    EXPIRE_ASKED = "expire_asked"
    ACCEPTED = "accepted"
    """A person lets the merchant have money that lies in suspense."""
    RETURNED = "returned"
    """A person has given money that lies in suspense back at the provider."""


class Effect(StrEnum):
    """A consequence of a transition beside the new state."""

    COLLECT = "collect"
    """The money goes to the merchant's account."""
    SUSPEND = "suspend"
    """The money goes to the suspense account."""
    LOOK = "look"
    """The provider is asked soon how the attempt stands."""
    GIVE_UP = "give_up"
    """The provider is asked soon to let nobody pay any more."""
    NEXT = "next"
    """Nothing was charged, so another provider may be tried."""
    NOTE = "note"
    """The sight contradicts what is known, and the timeline says so."""
    REFUSE = "refuse"
    """The asking comes too late, or there is no money that it could be about."""


class Next(NamedTuple):
    """The state after a transition, and its effects."""

    state: State
    effects: frozenset[Effect] = frozenset()


OPEN_STATES: Final = frozenset({State.CREATED, State.PENDING, State.PROCESSING, State.UNKNOWN})
MONEY_STATES: Final = frozenset({State.PAID, State.MISMATCHED})
CLOSED_STATES: Final = frozenset({State.FAILED, State.CANCELED, State.EXPIRED})


def _to(state: State, *effects: Effect) -> Next:
    return Next(state, frozenset(effects))


_ARRIVES: Final = {
    Seen.PAID: _to(State.PAID, Effect.COLLECT),
    Seen.DIFFERENT: _to(State.MISMATCHED, Effect.SUSPEND),
}
_ENDS: Final = {
    Seen.FAILED: _to(State.FAILED),
    Seen.CANCELED: _to(State.CANCELED),
    Seen.EXPIRED: _to(State.EXPIRED),
}


def _no_word(state: State) -> dict[Seen, Next]:
    """Return the part of a row for a person's words about money, where there is none."""
    return dict.fromkeys((Seen.ACCEPTED, Seen.RETURNED), _to(state, Effect.REFUSE))


def _asked(state: State, effect: Effect | None) -> dict[Seen, Next]:
    effects = () if effect is None else (effect,)
    return dict.fromkeys((Seen.CANCEL_ASKED, Seen.EXPIRE_ASKED), _to(state, *effects))


def _begun(state: State) -> dict[Seen, Next]:
    """Return the row of a state in which the provider has certainly got the order: what denies that is noted."""
    return {
        Seen.OPEN: _to(state),
        Seen.PROCESSING: _to(State.PROCESSING),
        **_ARRIVES,
        **_ENDS,
        Seen.ABSENT: _to(state, Effect.NOTE),
        Seen.DECLINED: _to(state, Effect.NOTE),
        Seen.UNSENT: _to(state),  # a later call did not go out, which says nothing of the first
        Seen.UNKNOWN: _to(state, Effect.LOOK),
        **_asked(state, Effect.GIVE_UP),
        **_no_word(state),
    }


def _paid(state: State, arrives: Mapping[Seen, Next]) -> dict[Seen, Next]:
    return {
        **dict.fromkeys((Seen.OPEN, Seen.PROCESSING, Seen.UNSENT, Seen.UNKNOWN), _to(state)),
        **arrives,
        **dict.fromkeys(
            (Seen.FAILED, Seen.CANCELED, Seen.EXPIRED, Seen.ABSENT, Seen.DECLINED), _to(state, Effect.NOTE)
        ),
        **_asked(state, Effect.REFUSE),
        Seen.ACCEPTED: _to(State.PAID),
        Seen.RETURNED: _to(state),
    }


def _closed(state: State) -> dict[Seen, Next]:
    """Return the row of a state without money. Someone could still pay what is open there, so it is given up."""
    return {
        **dict.fromkeys((Seen.OPEN, Seen.PROCESSING), _to(state, Effect.GIVE_UP)),
        **_ARRIVES,
        **dict.fromkeys(
            (
                Seen.FAILED, Seen.CANCELED, Seen.EXPIRED, Seen.ABSENT, Seen.DECLINED, Seen.UNSENT, Seen.UNKNOWN,
            ),
            _to(state),
        ),
        **_asked(state, None),
        **_no_word(state),
    }  # fmt: skip


TABLE: Final[Mapping[State, Mapping[Seen, Next]]] = {
    State.CREATED: {
        Seen.OPEN: _to(State.PENDING),
        Seen.PROCESSING: _to(State.PROCESSING),
        **_ARRIVES,
        **_ENDS,
        # The call may be on its way still; an attempt whose call is over is UNKNOWN before anybody looks.
        Seen.ABSENT: _to(State.CREATED, Effect.LOOK),
        Seen.DECLINED: _to(State.FAILED, Effect.NEXT),
        Seen.UNSENT: _to(State.FAILED, Effect.NEXT),
        Seen.UNKNOWN: _to(State.UNKNOWN, Effect.LOOK),
        **_asked(State.CREATED, Effect.GIVE_UP),
        **_no_word(State.CREATED),
    },
    State.UNKNOWN: {
        Seen.OPEN: _to(State.PENDING),
        Seen.PROCESSING: _to(State.PROCESSING),
        **_ARRIVES,
        **_ENDS,
        # No other provider is tried from here: the payer may have been asked already.
        Seen.ABSENT: _to(State.FAILED),
        Seen.DECLINED: _to(State.FAILED),
        # This call did not go out, but the one before it may have.
        Seen.UNSENT: _to(State.UNKNOWN, Effect.LOOK),
        Seen.UNKNOWN: _to(State.UNKNOWN, Effect.LOOK),
        **_asked(State.UNKNOWN, Effect.GIVE_UP),
        **_no_word(State.UNKNOWN),
    },
    State.PENDING: _begun(State.PENDING),
    # A payer whose money did not come may pay otherwise: PROCESSING stays until the provider names an end.
    State.PROCESSING: _begun(State.PROCESSING),
    State.PAID: _paid(
        State.PAID,
        {
            Seen.PAID: _to(State.PAID, Effect.COLLECT),
            # Money beyond the amount lies in suspense, and the payment is paid all the same.
            Seen.DIFFERENT: _to(State.PAID, Effect.SUSPEND, Effect.NOTE),
        },
    ),
    State.MISMATCHED: _paid(State.MISMATCHED, _ARRIVES),
    State.FAILED: _closed(State.FAILED),
    State.CANCELED: _closed(State.CANCELED),
    State.EXPIRED: _closed(State.EXPIRED),
}


def transition(state: State, seen: Seen) -> Next:
    """Return the state and the effects that follow when an attempt in `state` is `seen` so."""
    return TABLE[state][seen]


# The first that an attempt is in names the payment; two attempts are open at once only if a provider has erred.
_PRECEDENCE: Final = (
    State.PAID,
    State.MISMATCHED,
    State.PROCESSING,
    State.PENDING,
    State.UNKNOWN,
    State.CREATED,
)


def overall(attempts: Iterable[State]) -> State:
    """Return the state of a payment from those of its attempts, the oldest first; there is at least one."""
    states = list(attempts)
    return next((state for state in _PRECEDENCE if state in states), states[-1])


def chart() -> str:
    """Return the table as a state chart in Mermaid's words, which docs/payments.md shows."""
    arrows: dict[tuple[State, State], list[str]] = {}
    for state, row in TABLE.items():
        for seen, then in row.items():
            if then.state != state:
                arrows.setdefault((state, then.state), []).append(seen)
    lines = ["stateDiagram-v2", "    [*] --> created"]
    lines += [f"    {one} --> {other}: {', '.join(seen)}" for (one, other), seen in arrows.items()]
    lines += [f"    {state} --> [*]" for state in State if state not in OPEN_STATES]
    return "\n".join(lines)
