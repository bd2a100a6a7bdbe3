"""Payments of before, as the engine has them: one attempt, its provider's names, and a timeline that begins here.

No money is posted for what was paid before: it has reached the merchants by other books. The level of the attempt says
that it was paid, so a webhook that comes again posts nothing, and a refund posts what goes back. A payment that is
open is looked at by the engine, and posts when it is paid.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec

from core.database import queries
from core.ids import derived_uuid
from core.importing.running import KNOWN, NEW
from core.ledger.items import SYSTEM_PRINCIPAL, operation_id
from core.payments.payments import UNKNOWN_FINGERPRINT
from core.payments.states import OPEN_STATES, State

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime
    from uuid import UUID

    from core.importing.running import Context, Known
    from core.payments.payments import Details

_sql = queries(__name__)

ACTOR: Final = "person:import"


class OldPayment(NamedTuple):
    """A payment as it stood; `amount` in units of 10 to the power of -`scale`. `key` names it among its surface's."""

    key: str
    surface: str
    caller: str
    request_id: str
    amount: int
    scale: int
    currency: str
    method: str
    state: State
    provider: str
    created_at: datetime
    updated_at: datetime
    details: Details
    provider_id: str | None = None
    names: Mapping[str, str] = MappingProxyType({})
    url: str | None = None
    word: str = ""
    expires_at: datetime | None = None

    @property
    def id(self) -> UUID:
        """The id, the same in every run. Payments are listed by their ids, so it has the time of the payment."""
        return derived_uuid(f"import:{self.surface}:{self.key}", self.created_at)

    @property
    def attempt_id(self) -> UUID:
        """The id of the attempt."""
        return operation_id(SYSTEM_PRINCIPAL, f"import:{self.surface}:{self.key}:attempt")


async def store(context: Context, old: OldPayment, *, looked_at: bool = True) -> Known:
    """Store a payment with its attempt; a known one is left as it is. `looked_at` by the engine while it is open."""
    received = old.amount if old.state is State.PAID else 0
    made = await context.connection.fetchval(
        _sql.import_payment,
        old.id,
        old.surface,
        old.caller,
        old.request_id,
        UNKNOWN_FINGERPRINT,
        old.amount,
        old.scale,
        old.currency,
        old.method,
        msgspec.json.encode(old.details).decode(),
        str(old.state),
        [old.provider],
        received,
        old.created_at,
        old.updated_at,
        old.expires_at,
    )
    if made is None:
        return KNOWN
    await context.connection.execute(
        _sql.import_attempt,
        old.attempt_id,
        old.id,
        old.provider,
        old.provider_id,
        msgspec.json.encode(dict(old.names)).decode(),
        str(old.state),
        old.url,
        old.word,
        received,
        looked_at and old.state in OPEN_STATES,
        old.created_at,
        old.updated_at,
    )
    named = sorted({name for name in (old.provider_id, *old.names.values()) if name})
    await context.connection.execute(_sql.import_names, old.provider, named, old.attempt_id)
    data = {"before": str(old.state), "after": str(old.state), "provider": old.provider}
    await context.connection.execute(
        _sql.import_step, old.id, old.attempt_id, ACTOR, str(old.state), msgspec.json.encode(data).decode()
    )
    return NEW
