"""The orders' databases (PostgreSQL): plans, merchants, hashes of their keys, tokens, and payments with their keys.

An order keeps its number, its order id and its event id, so a repeated create finds its first payment. The second
database holds logs; of it only notifications that were never delivered are told (`tallystick import orders_logs`).
"""

from __future__ import annotations

import binascii
from typing import TYPE_CHECKING, Final

from core.database import queries
from core.importing.payments import OldPayment, store
from core.importing.running import KNOWN, NEW, Known, Step, known
from core.importing.values import ValueProblemError
from core.payments.orders.orders import SURFACE
from core.payments.payments import Details
from core.payments.rules import NO_CURRENCY
from core.payments.states import State
from core.providers import links

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from core.database import Query
    from core.importing.running import Context
    from core.importing.values import Values

    Writer = Callable[[Context, Values], Awaitable[Known]]

_sql = queries(__name__)

SCALE: Final = 8
_CENTS: Final = 2
_ACTIVE: Final = 1
_STATES: Final = {1: State.PENDING, 2: State.PAID, 3: State.FAILED}
_HASH_BYTES: Final = 32
# The old word for requests of the create route.
_SOURCE: Final = "payments:create"


async def write_plan(context: Context, old: Values) -> Known:
    """Store a plan."""
    number, name = old.whole("id", 1), old.text("name", 255)
    price, tokens = old.units("price", _CENTS), old.whole("tokens", 0)
    if await context.connection.fetchval(_sql.import_plan, number, name, price, tokens) is not None:
        return NEW
    there = await context.connection.fetchrow(_sql.known_plan, number)
    return known(there, name=name, price_cents=price, tokens=tokens)


async def write_merchant(context: Context, old: Values) -> Known:
    """Store a merchant. Passwords stay behind: nobody could sign in with one."""
    number, email, created_at = old.whole("id", 1), old.text_or_none("email", 255), old.time("created_at")
    made = await context.connection.fetchval(
        _sql.import_merchant,
        number,
        f"orders:merchant:{number}",
        old.text("name", 255),
        email,
        old.whole("status") == _ACTIVE,
        created_at,
    )
    if made is not None:
        return NEW
    there = await context.connection.fetchrow(_sql.known_merchant, number)
    return known(there, email=email, created_at=created_at)


async def write_key(context: Context, old: Values) -> Known:
    """Store the hash of a key, which is SHA-256 in hexadecimal digits."""
    try:
        digest = bytes.fromhex(old.text("hash", 64))
    except (ValueError, binascii.Error):
        digest = b""
    if len(digest) != _HASH_BYTES:
        raise ValueProblemError("its hash is none of SHA-256")
    merchant = old.whole("merchant_id", 1)
    context.need("merchants", merchant)
    made = await context.connection.fetchval(
        _sql.import_order_key, digest, merchant, old.whole("status") == _ACTIVE, old.time("created_at")
    )
    if made is not None:
        return NEW
    return known(await context.connection.fetchrow(_sql.known_order_key, digest), merchant_id=merchant)


async def write_subscription(context: Context, old: Values) -> Known:
    """Store a subscription. The old service switched one off when its tokens were used up; here that is no switch."""
    used = old.whole("used_tokens", 0)
    merchant, plan, created_at = (
        old.whole("user_id", 1),
        old.whole("subscription_id", 1),
        old.time("created_at"),
    )
    context.need("merchants", merchant)
    context.need("plans", plan)
    made = await context.connection.fetchval(
        _sql.import_order_subscription,
        merchant,
        plan,
        used,
        old.whole("status") == _ACTIVE or used >= old.whole("tokens", 0),
        created_at,
        old.time("updated_at"),
    )
    if made is not None:
        return NEW
    there = await context.connection.fetchrow(_sql.known_order_subscription, merchant, plan)
    return known(there, created_at=created_at)


async def write_alias(context: Context, old: Values) -> Known:
    """Store an alias; its address is PROVIDER_URL for all."""
    return _new(
        await context.connection.fetchval(
            _sql.import_alias, old.text("alias", 255), old.text("name", 255), old.time("created_at")
        )
    )


async def write_order(context: Context, old: Values) -> Known:
    """Store an order and its payment, and the request that has used a token for it."""
    number, merchant, order_id = old.whole("id", 1), old.whole("merchant_id", 1), old.whole("order_id", 1)
    state = _STATES.get(old.whole("status"))
    if state is None:
        raise ValueProblemError("its status is not known")
    plan = old.whole_or_none("subscription_id", 1)
    if plan is None:
        raise ValueProblemError("no request of it is known, and so no plan")
    context.need("merchants", merchant)
    context.need("plans", plan)
    amount, created_at = old.units("amount", SCALE), old.time("created_at")
    payment = OldPayment(
        str(number),
        SURFACE,
        str(merchant),
        str(order_id),
        amount,
        SCALE,
        NO_CURRENCY,
        "payment_link",
        state,
        links.NAME,
        created_at,
        old.time("updated_at"),
        Details(f"Order {order_id}", str(number)),
        str(number),
        word="carried over",
    )
    stored = await store(context, payment, looked_at=False)
    made = await context.connection.fetchval(
        _sql.import_order,
        number,
        payment.id,
        merchant,
        order_id,
        plan,
        old.text("alias", 255),
        amount,
        old.units("price", SCALE),
        state is not State.FAILED,
        created_at,
    )
    if made is None:
        if stored.new:
            raise ValueProblemError("its number or order id is another order's here")
        there = await context.connection.fetchrow(_sql.known_order, number)
        return known(
            there,
            payment_id=payment.id,
            merchant_id=merchant,
            order_id=order_id,
            amount=amount,
            created_at=created_at,
        )
    source = old.text_or_none("source", 64) or _SOURCE
    event_id = old.text("event_id", 255)
    await context.connection.execute(
        _sql.import_order_request, merchant, event_id, number, plan, amount, source, created_at
    )
    return NEW


async def write_notification(_context: Context, old: Values) -> Known:
    """Tell of a notification that was never delivered."""
    number, tries = old.whole("payment_id"), old.whole("retry_count")
    raise ValueProblemError(f"the merchant was never told of payment {number}, after {tries} tries")


def _new(made: object) -> Known:
    return KNOWN if made is None else NEW


def _step(
    name: str, read: Query, write: Writer, *tables: str, after: Query | None = None, needed: bool = False
) -> Step:
    names = ("id", "alias", "merchant_id", "user_id")
    return Step(
        name,
        frozenset(tables),
        read,
        write,
        lambda old: next(f"{one}={old.row[one]}" for one in names if one in old.row),
        after,
        needed,
    )


STEPS: Final = (
    _step("plans", _sql.old_plans, write_plan, "subscriptions", after=_sql.after_plans, needed=True),
    _step("merchants", _sql.old_merchants, write_merchant, "users", after=_sql.after_merchants, needed=True),
    _step("keys", _sql.old_keys, write_key, "merchant_api_keys"),
    _step(
        "subscriptions",
        _sql.old_subscriptions_of_merchants,
        write_subscription,
        "user_subscriptions",
        "subscriptions",
    ),
    _step("aliases", _sql.old_aliases, write_alias, "providers"),
    _step(
        "orders",
        _sql.old_orders,
        write_order,
        "payments",
        "providers",
        "api_requests",
        after=_sql.after_orders,
    ),
)
LOG_STEPS: Final = (_step("notifications", _sql.old_notifications, write_notification, "payment_logs"),)
