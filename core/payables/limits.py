"""KYC and velocity limits, which a payment brings along and the ledger checks and counts under the payer's lock.

The figures are those of the wallet contract, section 3. A limit counts the money that leaves the payer's wallet, and
is raised by a fee that is paid on top of the amount.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

from core.database import queries
from core.errors import Refusal
from core.ledger.items import ItemLimits
from core.wallets.amounts import shown

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

    from core.database import Connection, Database
    from core.ledger.items import Outcome
    from core.settings import Settings
    from core.wallets.users import User

_sql = queries(__name__)

# The bounds of an hour on number and sum: person to person, at a merchant, or none.
Velocity = Literal["p2p", "qr", "none"]

FUNDS: Final = "insufficient_funds"
PER_TRANSFER: Final = "transfer_limit_exceeded"
PER_DAY: Final = "daily_amount_exceeded"
HOUR_AMOUNT: Final = "hourly_amount_exceeded"
HOUR_COUNT: Final = "hourly_count_exceeded"
# Only an account's own limits know a number of transfers a day.
DAY_COUNT: Final = "daily_count_exceeded"
_LIMITED: Final = frozenset({FUNDS, PER_TRANSFER, PER_DAY, HOUR_AMOUNT, HOUR_COUNT, DAY_COUNT})
HOUR: Final = timedelta(hours=1)

# Sentences of causes on either side of a payment, which say nothing of the other's wallet.
_PLAIN: Final = {
    FUNDS: "The wallet has too little money for that.",
    "account_frozen": "A wallet of this payment is frozen: no money leaves or reaches it.",
    "account_closed": "A wallet of this payment is closed.",
    "account_not_found": "A wallet of this payment does not exist.",
    "ceiling_exceeded": "The payee's wallet cannot take so much.",
    "balance_too_high": "The payee's wallet cannot take so much.",
    "balance_too_low": "The wallet has too little money for that.",
}

# The contract tells one cause: the first in the order of the kind.
FUNDS_FIRST: Final = (FUNDS, PER_TRANSFER, PER_DAY, HOUR_AMOUNT, HOUR_COUNT)
LIMITS_FIRST: Final = (PER_TRANSFER, PER_DAY, FUNDS, HOUR_AMOUNT, HOUR_COUNT)
VELOCITY_FIRST: Final = (HOUR_AMOUNT, HOUR_COUNT, PER_TRANSFER, PER_DAY, FUNDS)


def payer_limits(
    settings: Settings, payer: User, velocity: Velocity = "none", *, fee_on_top: int = 0
) -> ItemLimits:
    """Return the limits of a payment of `payer`, in minor units."""
    if payer.kyc_level > 0:
        per_transfer, per_day = settings.kyc_l1_tx_max_cents, settings.kyc_l1_daily_max_cents
    else:
        per_transfer, per_day = settings.kyc_l0_tx_max_cents, settings.kyc_l0_daily_max_cents
    hour_amount = hour_count = None
    if velocity == "p2p":
        hour_amount, hour_count = settings.fraud_p2p_max_sum_per_hour, settings.fraud_p2p_max_tx_per_hour
    elif velocity == "qr":
        hour_count = settings.fraud_qr_max_tx_per_hour
    return ItemLimits(per_transfer + fee_on_top, hour_amount, hour_count, per_day + fee_on_top)


def unreachable(settings: Settings) -> list[str]:
    """Return the names of limits on one transfer that another limit makes unreachable between persons."""
    hour = settings.fraud_p2p_max_sum_per_hour
    bounds = {
        "KYC_L0_TX_MAX_CENTS": (settings.kyc_l0_tx_max_cents, settings.kyc_l0_daily_max_cents),
        "KYC_L1_TX_MAX_CENTS": (settings.kyc_l1_tx_max_cents, settings.kyc_l1_daily_max_cents),
    }
    return [name for name, (most, day) in bounds.items() if most > min(day, hour)]


class Outgoing(NamedTuple):
    """The money available in a wallet, what left it within the hour and the UTC day, and the account's own limits.

    Amounts are minor units. `minutes` are those of the hour in which money left, oldest first, with their `amounts` and
    their `uses`.
    """

    available: int
    hour_sum: int
    hour_uses: int
    day_sum: int
    day_uses: int
    transfer_max: int | None
    hour_amount_max: int | None
    hour_count_max: int | None
    day_amount_max: int | None
    day_count_max: int | None
    read_at: datetime
    minutes: list[datetime]
    amounts: list[int]
    uses: list[int]

    def within(self, limits: ItemLimits | None) -> ItemLimits:
        """Return the bounds in force: of each pair of the payment's and the account's own the lower one."""
        own = ItemLimits(self.transfer_max, self.hour_amount_max, self.hour_count_max, self.day_amount_max)
        return ItemLimits(*map(_lower, own, limits or ItemLimits()))

    def frees(self, used: Sequence[int], limit: int, wanted: int) -> datetime:
        """Return when so many minutes of the hour are over that `wanted` more fits in `limit`, or all of them."""
        left = sum(used)
        end = self.read_at
        for minute, part in zip(self.minutes, used, strict=True):
            if left + wanted <= limit:
                break
            left -= part
            end = minute + HOUR
        return end


async def read_outgoing(database: Database, account: str) -> Outgoing | None:
    """Return the money and the uses that count against a wallet's limits now, None for an unknown account code."""
    row = await database.fetchrow(_sql.outgoing, account)
    return None if row is None else Outgoing(*(row[name] for name in Outgoing._fields))


async def first_cause(
    database: Database, outcome: Outcome, payer: User, taken: int, limits: ItemLimits, order: Sequence[str]
) -> str:
    """Return the first code in `order` that forbids taking `taken` minor units from the payer.

    The ledger stops at the first cause in its own order. Other causes are read anew, and may have passed meanwhile.
    """
    code = outcome.kind.code
    outgoing = await read_outgoing(database, payer.account) if code in _LIMITED else None
    return code if outgoing is None else _first(code, outgoing, taken, limits, order)


class Taking(NamedTuple):
    """Money that a payment takes from one account: minor units, its limits (None: the account's own alone), causes."""

    account: str
    amount: int
    currency: str
    limits: ItemLimits | None = None
    causes: Sequence[str] = FUNDS_FIRST


async def explained(database: Database, outcome: Outcome, taking: Taking) -> Refusal:
    """Return the refusal of an outcome with a sentence for the payer: amounts, what is left, when the limit ends.

    The code is the first of the payment's own order of causes, as in `first_cause`. No sentence names an account.
    """
    code = outcome.kind.code
    if outcome.account != taking.account or code not in _LIMITED:
        return Refusal(code, _PLAIN.get(code, outcome.kind.meaning))
    outgoing = await read_outgoing(database, taking.account)
    if outgoing is None:
        return Refusal(code, outcome.kind.meaning)
    bounds = outgoing.within(taking.limits)
    found = _first(code, outgoing, taking.amount, bounds, taking.causes)
    return limit_refusal(found, taking.amount, taking.currency, outgoing, bounds)


async def give_limits_back(connection: Connection, payable_ids: Sequence[UUID]) -> None:
    """Give back to the limits of the payers what the holds of payables have used up that ended unpaid just now.

    The transaction that ends them calls this, after it has voided the holds.
    """
    if payable_ids:
        await connection.fetchval(_sql.give_back, list(payable_ids))


def limit_refusal(code: str, amount: int, currency: str, outgoing: Outgoing, bounds: ItemLimits) -> Refusal:
    """Return the refusal of `code` for a wallet that was to send `amount` minor units."""
    transfer_max, hour_amount, hour_count, day_amount = bounds
    midnight = outgoing.read_at.replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=1)
    match code:
        case "insufficient_funds":
            have = shown(max(outgoing.available, 0), currency)
            return Refusal(
                code, f"{shown(amount, currency)} is needed, and {have} is available in the wallet."
            )
        case "transfer_limit_exceeded" if transfer_max is not None:
            most = shown(transfer_max, currency)
            return Refusal(code, f"At most {most} may be sent at once.", limit_cents=transfer_max)
        case "daily_amount_exceeded" if day_amount is not None:
            left = max(day_amount - outgoing.day_sum, 0)
            said = f"{_left(left, day_amount, currency)} today. The next day begins at 00:00 UTC."
            return Refusal(code, said, limit_cents=day_amount, left_cents=left, resets_at=_text(midnight))
        case "daily_count_exceeded" if outgoing.day_count_max is not None:
            said = f"At most {outgoing.day_count_max} payments may be made on one day, which begins at 00:00 UTC."
            return Refusal(code, said, limit_count=outgoing.day_count_max, resets_at=_text(midnight))
        case "hourly_amount_exceeded" if hour_amount is not None:
            left = max(hour_amount - outgoing.hour_sum, 0)
            frees = outgoing.frees(outgoing.amounts, hour_amount, amount)
            until = _waiting(outgoing, frees, possible=amount <= hour_amount)
            said = f"{_left(left, hour_amount, currency)} within an hour."
            return _later(code, said, until, limit_cents=hour_amount, left_cents=left)
        case "hourly_count_exceeded" if hour_count is not None:
            frees = outgoing.frees(outgoing.uses, hour_count, 1)
            until = _waiting(outgoing, frees, possible=hour_count > 0)
            said = f"At most {hour_count} payments may be made within an hour."
            return _later(code, said, until, limit_count=hour_count, left_count=0)
    return Refusal(code, _PLAIN.get(code, "A limit of the wallet forbids it."))


class _Wait(NamedTuple):
    """The end of a window: the time, the seconds until then, and whether the payment fits after it."""

    end: datetime
    seconds: float
    possible: bool


def _waiting(outgoing: Outgoing, end: datetime, *, possible: bool) -> _Wait:
    # A payment above the whole limit never fits; a client that waits for the hour at least asks rarely.
    seconds = (end - outgoing.read_at).total_seconds() if possible else HOUR.total_seconds()
    return _Wait(end, max(seconds, 1.0), possible)


def _later(code: str, said: str, wait: _Wait, **extra: Any) -> Refusal:
    if wait.possible:
        said = f"{said} It is possible again at {wait.end:%H:%M} UTC."
        extra["resets_at"] = _text(wait.end)
    return Refusal(code, said, retry_after=wait.seconds, **extra)


def _left(left: int, limit: int, currency: str) -> str:
    return f"{shown(left, currency)} of {shown(limit, currency)} may still be sent"


def _text(moment: datetime) -> str:
    return moment.isoformat().replace("+00:00", "Z")


def _first(code: str, outgoing: Outgoing, taken: int, limits: ItemLimits, order: Sequence[str]) -> str:
    causes = overstepped(outgoing, taken, limits)
    return next((cause for cause in order if cause in causes or cause == code), code)


def overstepped(outgoing: Outgoing, taken: int, limits: ItemLimits) -> set[str]:
    """Return the codes that forbid taking `taken` minor units from the payer now."""
    holds = {
        FUNDS: taken > outgoing.available,
        PER_TRANSFER: _over(taken, limits.transfer_max),
        PER_DAY: _over(outgoing.day_sum + taken, limits.day_amount_max),
        HOUR_AMOUNT: _over(outgoing.hour_sum + taken, limits.hour_amount_max),
        HOUR_COUNT: _over(outgoing.hour_uses + 1, limits.hour_count_max),
    }
    return {cause for cause, over in holds.items() if over}


def _lower(one: int | None, other: int | None) -> int | None:
    return one if other is None else other if one is None else min(one, other)


def _over(figure: int, limit: int | None) -> bool:
    return limit is not None and figure > limit
