"""KYC and velocity limits, which a payment brings along and the ledger checks and counts under the payer's lock.

The figures are those of the wallet contract, section 3. A limit counts the money that leaves the payer's wallet, and
is raised by a fee that is paid on top of the amount.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal, NamedTuple

from core.database import queries
from core.ledger.items import ItemLimits

if TYPE_CHECKING:
    from collections.abc import Sequence

    from core.database import Database
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
_LIMITED: Final = frozenset({FUNDS, PER_TRANSFER, PER_DAY, HOUR_AMOUNT, HOUR_COUNT})

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
    """The money available in a wallet, and the money that left it within the hour and the UTC day; minor units."""

    available: int
    hour_sum: int
    hour_uses: int
    day_sum: int


async def read_outgoing(database: Database, payer: User) -> Outgoing | None:
    """Return the money and the uses that count against a payer's limits now, None for a payer without a wallet."""
    row = await database.fetchrow(_sql.outgoing, payer.account)
    return None if row is None else Outgoing(*(row[name] for name in Outgoing._fields))


async def first_cause(
    database: Database, outcome: Outcome, payer: User, taken: int, limits: ItemLimits, order: Sequence[str]
) -> str:
    """Return the first code in `order` that forbids taking `taken` minor units from the payer.

    The ledger stops at the first cause in its own order. Other causes are read anew, and may have passed meanwhile.
    """
    code = outcome.kind.code
    if code not in _LIMITED:
        return code
    outgoing = await read_outgoing(database, payer)
    if outgoing is None:
        return code
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


def _over(figure: int, limit: int | None) -> bool:
    return limit is not None and figure > limit
