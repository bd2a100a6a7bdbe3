"""Kaspi's database (PostgreSQL or SQLite): the organization and device of each shop, and the audit log.

Device tokens are sealed. The old log could hold the bank's address with the access token in its errors; addresses are
cut out of them. The old service kept no payments: the bank is asked about an id of before as about any other.
A row of the log whose number is another's here gets that number with a minus sign: no row of an audit log is lost.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from core.database import queries
from core.importing.running import NEW, Known, Step, known
from core.importing.values import ValueProblemError
from core.payments.kaspi.configs import owner_of
from core.vault import SealedError, Vault

if TYPE_CHECKING:
    from core.importing.running import Context
    from core.importing.values import Values

_sql = queries(__name__)

_ADDRESS: Final = re.compile(r"(?:https?://|url[ :=('\"]+|token=)\S+", re.IGNORECASE)
_MOST_ERROR: Final = 500


async def write_config(context: Context, old: Values) -> Known:
    """Store the config of a shop, its device token sealed."""
    shop_id, token = old.whole("shop_id"), old.text_or_none("device_token", 50)
    vault, bin_ = Vault.of(context.settings), old.text("organization_bin", 12)
    sealed = None if token is None else vault.seal(token, owner_of(shop_id))
    made = await context.connection.fetchval(
        _sql.import_config,
        old.whole("id", 1),
        shop_id,
        bin_,
        sealed,
        old.flag("is_active"),
        old.text_or_none("provider", 20) or "kaspi",
        old.time("created_at"),
        old.time_or_none("updated_at") or old.time("created_at"),
    )
    if made is not None:
        return NEW
    there = await context.connection.fetchrow(_sql.known_config, shop_id)
    found = known(there, organization_bin=bin_)
    here = there and there["device_token"]
    try:
        same = token == (here and vault.open(here, owner_of(shop_id)))
    except SealedError as error:
        raise ValueProblemError(error.detail) from None
    if not same:
        raise ValueProblemError("the shop has another device token here")
    return found


async def write_log(context: Context, old: Values) -> Known:
    """Store a row of the log; its amounts were hundredths already."""
    error = old.text_or_none("error_message")
    columns = {
        "shop_id": old.whole("shop_id"),
        "organization_bin": old.text_or_none("organization_bin", 12) or "",
        "operation_type": old.text("operation_type", 20),
        "external_id": old.text_or_none("external_id", 255),
        "amount": old.whole_or_none("amount"),
        "status": old.text_or_none("status", 50),
        "error_message": None if error is None else _ADDRESS.sub("[address]", error)[:_MOST_ERROR],
        "provider": old.text_or_none("provider", 20) or "kaspi",
        "created_at": old.time("created_at"),
    }
    number = old.whole("id", 1)
    if await context.connection.fetchval(_sql.import_log, number, *columns.values()) is not None:
        return NEW
    try:
        return known(await context.connection.fetchrow(_sql.known_log, number), **columns)
    except ValueProblemError:
        number = -number
    if await context.connection.fetchval(_sql.import_log, number, *columns.values()) is not None:
        return Known(f"its number is another row's here: it has the number {number}", new=True)
    return known(await context.connection.fetchrow(_sql.known_log, number), **columns)


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
