"""Kaspi's database (PostgreSQL or SQLite): the organization and device of each shop, and the audit log.

Device tokens are sealed. The old log could hold the bank's address with the access token in its errors; addresses are
cut out of them. The old service kept no payments: the bank is asked about an id of before as about any other.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from core.database import queries
from core.importing.running import KNOWN, NEW, Known, Step
from core.payments.kaspi.configs import owner_of
from core.vault import Vault

if TYPE_CHECKING:
    from core.importing.running import Context
    from core.importing.values import Values

_sql = queries(__name__)

_ADDRESS: Final = re.compile(r"(?:https?://|url[ :=('\"]+|token=)\S+", re.IGNORECASE)
_MOST_ERROR: Final = 500


async def write_config(context: Context, old: Values) -> Known:
    """Store the config of a shop, its device token sealed."""
    shop_id, token = old.whole("shop_id"), old.text_or_none("device_token", 50)
    sealed = None if token is None else Vault.of(context.settings).seal(token, owner_of(shop_id))
    made = await context.connection.fetchval(
        _sql.import_config,
        old.whole("id", 1),
        shop_id,
        old.text("organization_bin", 12),
        sealed,
        old.flag("is_active"),
        old.text_or_none("provider", 20) or "kaspi",
        old.time("created_at"),
        old.time_or_none("updated_at") or old.time("created_at"),
    )
    return KNOWN if made is None else NEW


async def write_log(context: Context, old: Values) -> Known:
    """Store a row of the log; its amounts were hundredths already."""
    error = old.text_or_none("error_message")
    made = await context.connection.fetchval(
        _sql.import_log,
        old.whole("id", 1),
        old.whole("shop_id"),
        old.text_or_none("organization_bin", 12) or "",
        old.text("operation_type", 20),
        old.text_or_none("external_id", 255),
        old.whole_or_none("amount"),
        old.text_or_none("status", 50),
        None if error is None else _ADDRESS.sub("[address]", error)[:_MOST_ERROR],
        old.text_or_none("provider", 20) or "kaspi",
        old.time("created_at"),
    )
    return KNOWN if made is None else NEW


STEPS: Final = (
    Step(
        "configs",
        frozenset({"paymentconfig"}),
        _sql.old_configs,
        write_config,
        lambda old: f"shop_id={old.row['shop_id']}",
        _sql.after_configs,
    ),
    Step(
        "log",
        frozenset({"paymentlog"}),
        _sql.old_log,
        write_log,
        lambda old: f"id={old.row['id']}",
        _sql.after_log,
    ),
)
