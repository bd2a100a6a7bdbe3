"""Outcomes of an item, in order of precedence: of two causes the one that stands first here is told.

The numbers are those of `sql/functions/ledger_post.sql`, and their order means nothing. A frozen outcome is kept under
its idempotency key for ever; one that is not frozen leaves the key free for another try.
"""

from __future__ import annotations

from typing import NamedTuple


class OutcomeKind(NamedTuple):
    """One outcome of an item: its number, its word on the wire, whether it freezes under the key, and its meaning."""

    number: int
    code: str
    freezes: bool
    meaning: str


_TABLE = (
    OutcomeKind(0, "posted", True, "It is done."),
    OutcomeKind(
        3, "idempotency_conflict", False, "The key was used for another body; the answer names what differs."
    ),
    OutcomeKind(
        90, "group_failed", False, "Another item of its group was refused; nothing of the group was done."
    ),
    OutcomeKind(20, "transfer_not_found", False, "There is no transfer with this id."),
    OutcomeKind(21, "hold_not_found", False, "There is no hold with this id."),
    OutcomeKind(22, "account_not_found", False, "There is no account with this code."),
    OutcomeKind(30, "account_closed", False, "The account is closed for good."),
    OutcomeKind(31, "account_frozen", False, "The account is frozen: nothing may leave or reach it."),
    OutcomeKind(
        40, "currency_mismatch", False, "The accounts, or the stated currency, are of different currencies."
    ),
    OutcomeKind(41, "legs_unbalanced", False, "The legs do not sum to zero."),
    OutcomeKind(
        34,
        "effective_time_out_of_range",
        False,
        "It would take effect further back or ahead than is allowed.",
    ),
    OutcomeKind(33, "period_closed", False, "It would take effect before the closed date of its currency."),
    OutcomeKind(32, "precondition_failed", False, "It was changed since: its ETag is not that of If-Match."),
    OutcomeKind(
        35, "effective_before_original", False, "The reversal would take effect before the transfer itself."
    ),
    OutcomeKind(50, "hold_not_open", True, "The hold was captured in full, voided or expired before."),
    OutcomeKind(51, "hold_expired", True, "The hold's time is over."),
    OutcomeKind(52, "exceeds_hold", True, "More than the hold has left."),
    OutcomeKind(53, "already_reversed", True, "The transfer has been reversed in full."),
    OutcomeKind(54, "exceeds_reversible", True, "More than the transfer has left to reverse."),
    OutcomeKind(60, "version_mismatch", True, "The account has another version than the condition expects."),
    OutcomeKind(
        63, "revision_mismatch", True, "The account was changed since the revision of the condition."
    ),
    OutcomeKind(80, "balance_overflow", True, "A balance would leave the range of 2^62 - 1 minor units."),
    OutcomeKind(61, "balance_too_low", True, "The balance after it would be below the condition's minimum."),
    OutcomeKind(62, "balance_too_high", True, "The balance after it would be above the condition's maximum."),
    OutcomeKind(
        64,
        "available_too_low",
        True,
        "The available balance after it would be below the condition's minimum.",
    ),
    OutcomeKind(
        65,
        "available_too_high",
        True,
        "The available balance after it would be above the condition's maximum.",
    ),
    OutcomeKind(70, "transfer_limit_exceeded", True, "More than the account may send in one transfer."),
    OutcomeKind(
        71, "insufficient_funds", True, "The available balance would fall below the account's floor."
    ),
    OutcomeKind(
        72, "ceiling_exceeded", True, "Balance and open holds would rise above the account's ceiling."
    ),
    OutcomeKind(73, "hourly_amount_exceeded", True, "More than the account may send within an hour."),
    OutcomeKind(
        74, "hourly_count_exceeded", True, "More transfers than the account may send within an hour."
    ),
    OutcomeKind(75, "daily_amount_exceeded", True, "More than the account may send on one UTC day."),
    OutcomeKind(76, "daily_count_exceeded", True, "More transfers than the account may send on one UTC day."),
)

# The expiry job alone meets this outcome, with a hold that was extended after the job had seen it.
_NOT_DUE = OutcomeKind(55, "hold_not_due", False, "The hold's time is not over yet.")

# Outcomes of the wallet platform, for items that pay a payable. Both stand before the balances (60 and above), 23
# before 56; the figure of 56 is the payable's state.
PAYABLE_NOT_FOUND = OutcomeKind(23, "payable_not_found", False, "There is nothing to pay under this id.")
PAYABLE_NOT_OPEN = OutcomeKind(56, "payable_not_open", False, "It was paid, canceled, rejected or expired.")
PAYABLE_STATES = ("open", "paid", "canceled", "rejected", "expired")

OUTCOMES_BY_CODE: dict[str, OutcomeKind] = {kind.code: kind for kind in _TABLE}

# Refusals that only holds whose time is over have caused: they do not freeze, since the expiry job is about to give
# these holds back.
_LAPSED = tuple(
    OutcomeKind(kind.number + 100, kind.code, False, kind.meaning)
    for kind in _TABLE
    if kind.code in {"available_too_low", "insufficient_funds", "ceiling_exceeded"}
)

OUTCOMES: dict[int, OutcomeKind] = {
    kind.number: kind for kind in (*_TABLE, *_LAPSED, _NOT_DUE, PAYABLE_NOT_FOUND, PAYABLE_NOT_OPEN)
}

# Outcomes of ledger_post for a key that was used before: with this body and done, with this body and refused.
REPLAYED_POSTED = 1
REPLAYED_REFUSED = 2
CONFLICT = OUTCOMES_BY_CODE["idempotency_conflict"].number
POSTED = OUTCOMES_BY_CODE["posted"].number
