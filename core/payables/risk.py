"""The risk score of a payment (wallet contract, section 3), off unless FRAUD_RISK_ENABLED."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from core.audit import audited, by_user, record
from core.errors import Refusal

if TYPE_CHECKING:
    from core.database import Database
    from core.settings import Settings
    from core.wallets.users import User

_YOUNG: Final = timedelta(days=1)
_RECENT: Final = timedelta(days=7)
_NIGHT_ENDS_HOUR: Final = 6


def score(settings: Settings, payer: User, amount: int, now: datetime, merchant: User | None = None) -> int:
    """Return the points of a payment of `amount` minor units at `now`: the more, the riskier."""
    age = now - payer.created_at
    points = 30 if age < _YOUNG else 10 if age < _RECENT else 0
    points += {0: 20, 1: 5}.get(payer.kyc_level, 0)
    points += 25 if amount >= settings.fraud_high_amount_cents else 0
    points += 10 if now.astimezone(UTC).hour < _NIGHT_ENDS_HOUR else 0
    since = None if merchant is None else merchant.merchant_since or merchant.created_at
    return points + (10 if since is not None and now - since < _RECENT else 0)


async def assess(
    database: Database,
    settings: Settings,
    payer: User,
    amount: int,
    *,
    operation: str,
    merchant: User | None = None,
) -> None:
    """Record a payment whose score is high, and raise Refusal `risk_blocked` for one whose score is too high.

    It stands before the money moves, in a statement of its own: what was blocked is recorded, too.
    """
    if not settings.fraud_risk_enabled:
        return
    points = score(settings, payer, amount, datetime.now(UTC), merchant)
    blocked = points >= settings.fraud_block_score
    if not blocked and points < settings.fraud_flag_score:
        return
    data = {"operation": operation, "amount_cents": amount, "score": points}
    event = "fraud.block" if blocked else "fraud.flag"
    await record(database, audited(event, by_user(payer.id), data, user_id=payer.id))
    if blocked:
        raise Refusal("risk_blocked", "This payment was stopped by the risk rules.")
