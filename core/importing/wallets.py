"""The wallets' database (PostgreSQL): users with their ids and wallets, balances, keys, endpoints, all that is open.

A user and a wallet keep their ids, so tokens that are out stay good under the same JWT_SECRET. A balance becomes one
opening entry from `system:opening:<currency>`; the old history stays in the old database. An idempotency key of an old
transfer is taken here: a call that an app repeats after the change is refused and never paid a second time.
"""

from __future__ import annotations

import base64
import binascii
from typing import TYPE_CHECKING, Any, Final

import msgspec

from core.audit import audited, record
from core.database import queries
from core.errors import Unavailable
from core.importing.running import KNOWN, NEW, Known, Step
from core.importing.values import ValueProblemError
from core.ledger.accounts import Limits, Opening, open_accounts
from core.ledger.items import SYSTEM_PRINCIPAL, Leg, Posting, operation_id
from core.ledger.outcomes import OUTCOMES_BY_CODE
from core.ledger.posting import post
from core.money import MAX_AMOUNT_MINOR
from core.outbox.signing import check_own_secret, owner_of
from core.payables.payables import with_metadata
from core.vault import Vault
from core.wallets.books import open_wallet, system_account, wallet_account
from core.wallets.merchant_endpoints import CONTRACT_EVENTS
from core.wallets.merchant_keys import READ_TRANSACTIONS, seal

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from uuid import UUID

    from core.database import Query, Row
    from core.importing.running import Context
    from core.importing.values import Values

    Writer = Callable[[Context, Values], Awaitable[Known]]

_sql = queries(__name__)

OPENING: Final = "opening"
ACTOR: Final = "system:import"
# An option of the command: phones of users who may have signed in by a code count as proven.
PHONES_PROVEN: Final = "phones_proven"

_MERCHANT: Final = frozenset({"none", "applied", "approved", "rejected", "suspended"})
_KYC: Final = frozenset({"none", "pending", "approved", "rejected"})
_MANDATES: Final = frozenset({"active", "revoked"})
_MODES: Final = frozenset({"dynamic", "static"})
_MOST_LEVEL: Final = 2
_MOST_BPS: Final = 10_000
_MOST_DAYS: Final = 365
# A refusal that is kept, under a fingerprint that no request has: every call under the key conflicts with it.
_KEPT: Final = OUTCOMES_BY_CODE["insufficient_funds"]


async def write_user(context: Context, old: Values) -> Known:
    """Store a user, open the wallet, and post the balance."""
    user_id, wallet_id = old.id("id"), old.id("wallet_id")
    currency = old.text("currency_code", 12)
    balance = old.whole("balance_cents", 0, MAX_AMOUNT_MINOR)
    created_at = old.time("created_at")
    username, note = old.text_or_none("username", 64), None
    if username and await context.connection.fetchval(_sql.username_taken, username, user_id):
        username, note = (
            None,
            f"the username {username!r} is another user's, in another case: carried over without it",
        )
    level = old.whole("kyc_level", 0, _MOST_LEVEL)
    row = await context.connection.fetchrow(
        _sql.import_user,
        user_id,
        wallet_id,
        old.text("phone", 32),
        username,
        old.text_or_none("password_hash"),
        old.text_or_none("name", 128),
        old.flag("is_merchant"),
        old.flag("is_agent"),
        old.one_of("merchant_status", _MERCHANT, "none"),
        old.whole_or_none("fee_bps", 0, _MOST_BPS),
        old.time_or_none("merchant_since"),
        level,
        old.one_of("kyc_status", _KYC, "none"),
        created_at,
        created_at if PHONES_PROVEN in context.options else None,
    )
    if row is None:
        known = await _user(context, user_id, "phone")
        if known["wallet_id"] != wallet_id:
            raise ValueProblemError("the user has another wallet here")
    await open_wallet(context.connection, wallet_id, currency)
    if balance:
        await _post_balance(context, wallet_id, currency, balance, known=row is None)
    if row is None:
        return KNOWN
    data = {"balance": balance, "currency": currency}
    await record(context.connection, audited("user.imported", ACTOR, data, user_id=user_id))
    return Known(note, new=True)


async def _post_balance(
    context: Context, wallet_id: UUID, currency: str, balance: int, *, known: bool
) -> None:
    """Post the balance of a new wallet; that of a known one must be the same as then, which may be none."""
    opening_id = operation_id(SYSTEM_PRINCIPAL, f"import:wallets:{wallet_id}")
    if known and await context.connection.fetchval(_sql.opening_posted, opening_id) is None:
        raise ValueProblemError(f"the balance is {balance} now, and none was carried over before")
    opening = system_account(OPENING, currency)
    await open_accounts(
        context.connection, [Opening(opening, currency, Limits(floor=None))], SYSTEM_PRINCIPAL
    )
    posting = Posting(
        opening_id,
        SYSTEM_PRINCIPAL,
        (Leg(opening, -balance), Leg(wallet_account(wallet_id), balance)),
        kind="wallet.opening",
        currency=currency,
        unfrozen=True,
        identity=("wallet.opening", balance, currency),
    )
    (outcome,) = await post(context.connection, [posting])
    if outcome.kind.code == "idempotency_conflict":
        raise ValueProblemError(f"the balance is {balance} now, and another one was carried over before")
    if not outcome.posted:
        raise outcome.refusal()


async def write_wrong_balance(_context: Context, old: Values) -> Known:
    """Tell of a wallet whose balance is not the sum of its entries. The balance counts."""
    raise ValueProblemError(
        f"the balance is {old.whole('balance_cents')}, and the entries sum to {old.whole('entries')}"
    )


async def write_total(context: Context, old: Values) -> Known:
    """Compare the sum of a currency's wallets with the money that was carried over."""
    currency, balance = old.text("currency_code", 12), old.whole("balance")
    opening = system_account(OPENING, currency)
    opened = await context.connection.fetchval(_sql.opened_balance, opening) or 0
    if opened != balance:
        raise ValueProblemError(f"the wallets have {balance}, and {opened} of it was carried over")
    return KNOWN


async def write_merchant_key(context: Context, old: Values) -> Known:
    """Store a merchant's key, its secret sealed."""
    key_id, user_id = old.text("key_id", 64), old.id("user_id")
    await _user(context, user_id)
    try:
        sealed = seal(context.settings, key_id, old.text("secret", 128))
    except Unavailable as error:
        raise ValueProblemError(error.detail) from None
    scope = old.text_or_none("scope", 200) or READ_TRANSACTIONS
    return _new(
        await context.connection.fetchval(
            _sql.import_merchant_key, key_id, user_id, sealed, scope, old.time("created_at")
        )
    )


async def write_endpoint(context: Context, old: Values) -> Known:
    """Store a webhook endpoint, its secret sealed, for the four types that receivers of the contract know."""
    endpoint_id = old.id("id")
    user = await _user(context, old.id("user_id"))
    secret = old.text("secret")
    check_own_secret(secret)
    return _new(
        await context.connection.fetchval(
            _sql.import_endpoint,
            endpoint_id,
            user["principal_id"],
            old.text("url", 512),
            sorted(CONTRACT_EVENTS),
            [Vault.of(context.settings).seal(secret, owner_of(endpoint_id))],
            old.flag("active"),
            old.time("created_at"),
        )
    )


async def write_passkey(context: Context, old: Values) -> Known:
    """Store a passkey that has a public key; one without can prove nothing."""
    user_id = old.id("user_id")
    await _user(context, user_id)
    return _new(
        await context.connection.fetchval(
            _sql.import_passkey,
            _bytes(old, "credential_id"),
            user_id,
            _bytes(old, "public_key"),
            old.whole_or_none("sign_count", 0) or 0,
            old.time("created_at"),
        )
    )


async def write_request(context: Context, old: Values) -> Known:
    """Store an open payment request."""
    metadata = old.json("metadata_json")
    return await _payable(
        context,
        old,
        "request",
        payee=old.id("requester_user_id"),
        payer=old.id("target_user_id"),
        expires="expires_at",
        details=with_metadata(metadata if isinstance(metadata, dict) else None),
    )


async def write_invoice(context: Context, old: Values) -> Known:
    """Store an open invoice."""
    details = {"reference": old.text_or_none("reference"), "description": old.text_or_none("description")}
    return await _payable(
        context,
        old,
        "invoice",
        payee=old.id("issuer_user_id"),
        payer=old.id("payer_user_id"),
        due="due_at",
        details=details,
    )


async def write_link(context: Context, old: Values) -> Known:
    """Store a link that can be paid; one without an amount stays open."""
    reusable = old.one_of("mode", _MODES, "dynamic") == "static" or not old.whole("amount_cents", 0)
    return await _payable(
        context, old, "link", payee=old.id("user_id"), expires="expires_at", reusable=reusable
    )


async def write_qr(context: Context, old: Values) -> Known:
    """Store a QR code that can be paid; a static one stays open."""
    reusable = old.one_of("mode", _MODES, "dynamic") == "static"
    return await _payable(
        context, old, "qr", payee=old.id("user_id"), expires="expires_at", reusable=reusable
    )


async def _payable(  # noqa: PLR0913 - the fields of a payable
    context: Context,
    old: Values,
    kind: str,
    *,
    payee: UUID,
    payer: UUID | None = None,
    expires: str | None = None,
    due: str | None = None,
    reusable: bool = False,
    details: dict[str, Any] | None = None,
) -> Known:
    for user_id in filter(None, (payee, payer)):
        await _user(context, user_id)
    created_at = old.time("created_at")
    return _new(
        await context.connection.fetchval(
            _sql.import_payable,
            old.id("id"),
            kind,
            old.text("code", 64) if "code" in old.row else None,
            payee,
            payer,
            None if reusable else old.whole("amount_cents", 1, MAX_AMOUNT_MINOR),
            old.text("currency_code", 12),
            reusable,
            old.time_or_none(expires) if expires else None,
            old.time_or_none(due) if due else None,
            msgspec.json.encode(details or {}).decode(),
            created_at,
        )
    )


async def write_mandate(context: Context, old: Values) -> Known:
    """Store a mandate. A cap of zero is none, since no invoice would be below it."""
    payer, issuer = old.id("payer_user_id"), old.id("issuer_user_id")
    await _user(context, payer)
    await _user(context, issuer)
    return _new(
        await context.connection.fetchval(
            _sql.import_mandate,
            old.id("id"),
            payer,
            issuer,
            old.flag("autopay"),
            old.whole_or_none("max_amount_cents", 1, MAX_AMOUNT_MINOR),
            old.one_of("status", _MANDATES, "active"),
            old.time("created_at"),
            old.time("updated_at"),
        )
    )


async def write_subscription(context: Context, old: Values) -> Known:
    """Store a subscription that goes on, with its next charge."""
    payer, merchant = old.id("payer_user_id"), old.id("merchant_user_id")
    await _user(context, payer)
    await _user(context, merchant)
    return _new(
        await context.connection.fetchval(
            _sql.import_subscription,
            old.id("id"),
            payer,
            merchant,
            old.whole("amount_cents", 1, MAX_AMOUNT_MINOR),
            old.text("currency_code", 12),
            old.whole("interval_days", 1, _MOST_DAYS),
            old.time("next_charge_at"),
            old.time("created_at"),
            old.time("updated_at"),
        )
    )


async def write_voucher(_context: Context, old: Values) -> Known:
    """Tell of a voucher: the old service took its money from nowhere, so there is none to set aside."""
    amount = f"{old.whole('amount_cents')} {old.text('currency_code')}"
    raise ValueProblemError(f"a voucher of {amount} is open: make a new one here, which is paid for")


async def write_cash_request(_context: Context, old: Values) -> Known:
    """Tell of a cash request: an agent and a customer stand at a counter, and end it before the change."""
    kind, amount = old.text("type"), old.whole("amount_cents")
    raise ValueProblemError(f"a cash request ({kind}, {amount}) is under way: let it end, or cancel it")


async def write_transfer_key(context: Context, old: Values) -> Known:
    """Take the idempotency key of an old transfer, for the user who gave it."""
    user_id = old.id_or_none("payer_id") or old.id("payee_id")
    user = await _user(context, user_id)
    key = operation_id(user["principal_id"], old.text("idempotency_key", 255))
    return _new(await context.connection.fetchval(_sql.import_key, key, _KEPT.number, old.time("created_at")))


async def _user(context: Context, user_id: UUID, taken: str = "") -> Row:
    """Return a user that was carried over. Raises ValueProblemError for one that is not here."""
    row = await context.connection.fetchrow(_sql.find_imported_user, user_id)
    if row is None:
        raise ValueProblemError(
            f"its {taken} is another user's" if taken else f"its user {user_id} is not here"
        )
    return row


def _new(made: object) -> Known:
    return KNOWN if made is None else NEW


def _bytes(old: Values, name: str) -> bytes:
    """Return bytes that the old service stored as such or in base64url."""
    value = old.row[name]
    if isinstance(value, bytes):
        return value
    text = old.text(name)
    try:
        return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except (binascii.Error, ValueError):
        raise ValueProblemError(f"{name} is no base64url") from None


def _step(name: str, read: Query, write: Writer, *tables: str, label: str = "id") -> Step:
    return Step(name, frozenset(tables), read, write, lambda old: f"{label}={old.row.get(label)}")


STEPS: Final = (
    _step("users", _sql.old_users, write_user, "users", "wallets", "merchants"),
    _step("balances", _sql.old_wrong_balances, write_wrong_balance, "wallets", "ledger_entries"),
    _step("totals", _sql.old_totals, write_total, "wallets", label="currency_code"),
    _step("merchant_keys", _sql.old_merchant_keys, write_merchant_key, "merchant_api_keys", label="key_id"),
    _step("endpoints", _sql.old_endpoints, write_endpoint, "webhook_endpoints"),
    _step("passkeys", _sql.old_passkeys, write_passkey, "passkey_credentials", label="user_id"),
    _step("requests", _sql.old_requests, write_request, "payment_requests"),
    _step("invoices", _sql.old_invoices, write_invoice, "invoices"),
    _step("links", _sql.old_links, write_link, "payment_links"),
    _step("qr_codes", _sql.old_qr_codes, write_qr, "qr_codes", "merchants"),
    _step("mandates", _sql.old_mandates, write_mandate, "ebill_mandates"),
    _step("subscriptions", _sql.old_subscriptions, write_subscription, "subscriptions"),
    _step("vouchers", _sql.old_vouchers, write_voucher, "topup_vouchers"),
    _step("cash_requests", _sql.old_cash_requests, write_cash_request, "cash_requests"),
    _step("transfer_keys", _sql.old_transfer_keys, write_transfer_key, "transfers", "wallets"),
)
