"""The risk score of a payment (wallet contract, section 3), off unless FRAUD_RISK_ENABLED."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from core.audit import audited, by_user
from core.errors import Refusal

if TYPE_CHECKING:
    from core.ledger.items import Audited
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


class Blocked(Refusal):
    """The refusal of a payment by the risk rules; `record` is its audit record."""

    def __init__(self, record: Audited) -> None:
        super().__init__("risk_blocked", "This payment was stopped by the risk rules.")
        self.record = record


def assess(
    settings: Settings,
    payer: User,
    amount: int,
    now: datetime,
    operation: str,
    merchant: User | None = None,
) -> Audited | None:
    """Return the audit record of a payment with a high score, else None. Raises Blocked for too high a score."""
    if not settings.fraud_risk_enabled:
        return None
    points = score(settings, payer, amount, now, merchant)
    data = {"operation": operation, "amount_cents": amount, "score": points}
    if points >= settings.fraud_block_score:
        raise Blocked(audited("fraud.block", by_user(payer.id), data, user_id=payer.id))
    if points >= settings.fraud_flag_score:
        return audited("fraud.flag", by_user(payer.id), data, user_id=payer.id)
    return None
