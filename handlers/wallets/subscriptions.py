"""Subscriptions."""

from __future__ import annotations

from typing import Annotated, Literal
from uuid import UUID

import msgspec
import pydantic
from aiohttp import web
from pydantic_core import PydanticCustomError

from core.recurring import charging, subscriptions
from core.recurring.subscriptions import LISTED, Subscription
from handlers.http.route import Call, Route, answer, table
from handlers.wallets.contract import (
    Body,
    Cents,
    Detail,
    PageQuery,
    Text,
    cut,
    linked,
    maybe_timestamp,
    platform_of,
    timestamp,
)

MAX_INTERVAL_DAYS = 365
MAX_INTERVAL_MONTHS = 12
# The most charges of one call of process_due: as many as some steps of the job.
MAX_COUNT = 500

Days = Annotated[int, pydantic.Field(ge=1, le=MAX_INTERVAL_DAYS)]

# The contract has no word for a subscription that is past due and goes on. GET of one subscription shows its dunning.
STATES = {"past_due": "active"}


class SubscriptionIn(Body):
    """A subscription to the merchant of a phone, every `interval_days`, or every `interval_months` by the calendar.

    Periods of months begin on the day of the subscription, or on the last day of a shorter month.
    """

    merchant_phone: Text
    amount_cents: Cents
    interval_days: Days = 30
    interval_months: Annotated[int, pydantic.Field(ge=1, le=MAX_INTERVAL_MONTHS)] | None = None

    @pydantic.model_validator(mode="after")
    def one_interval(self) -> SubscriptionIn:
        """Refuse two intervals."""
        if self.interval_months is not None and "interval_days" in self.model_fields_set:
            raise PydanticCustomError("one_interval", "Give interval_days or interval_months, not both")
        return self


class SubscriptionsQuery(PageQuery):
    """A part of the list: the subscriptions that the caller pays, or those by which the caller is paid."""

    role: Literal["payer", "merchant"] = "payer"
    status: Literal["active", "past_due", "canceled"] | None = None


class DueQuery(Body):
    """The most subscriptions to charge, brought within 1 to 500."""

    max_count: int = 50


class SubscribedOut(msgspec.Struct, frozen=True):
    """A new subscription, and the time of its first charge."""

    id: str
    next_charge_at: str


class SubscriptionOut(msgspec.Struct, frozen=True):
    """A subscription; one that goes by days has no `interval_months`."""

    id: str
    merchant_user_id: str
    amount_cents: int
    currency_code: str
    interval_days: int
    next_charge_at: str
    status: str
    created_at: str
    interval_months: int | msgspec.UnsetType = msgspec.UNSET


class DunningOut(msgspec.Struct, frozen=True):
    """The dunning of a subscription: tries that failed in this period, their reason, the time of the next try."""

    attempts: int
    last_error: str | None
    next_attempt_at: str | None
    missed_periods: int


class SubscriptionView(msgspec.Struct, frozen=True):
    """A subscription in full; `state` tells `past_due`, too."""

    id: str
    payer_user_id: str
    merchant_user_id: str
    amount_cents: int
    currency_code: str
    interval_days: int
    next_charge_at: str
    status: str
    created_at: str
    state: str
    last_transfer_id: str | None
    dunning: DunningOut
    interval_months: int | msgspec.UnsetType = msgspec.UNSET


class ChargedOut(msgspec.Struct, frozen=True):
    """The number of charged subscriptions, and the number of due ones."""

    processed: int
    count: int


async def create_subscription(call: Call) -> web.Response:
    """Subscribe to a merchant."""
    body: SubscriptionIn = call.body
    made = await subscriptions.create(
        platform_of(call),
        call.user,
        body.merchant_phone,
        body.amount_cents,
        body.interval_days,
        body.interval_months,
    )
    return answer(200, SubscribedOut(str(made.id), timestamp(made.next_charge_at)))


async def list_subscriptions(call: Call) -> web.Response:
    """List the caller's subscriptions."""
    query: SubscriptionsQuery = call.query
    most = query.most(LISTED)
    found = await subscriptions.of_user(
        platform_of(call), call.user, query.role, state=query.status, before=query.before, limit=most
    )
    items, last = cut(found, most - 1)
    said = answer(200, [_listed(subscription) for subscription in items])
    return linked(call, said, str(last.id)) if query.given and last is not None else said


async def get_subscription(call: Call) -> web.Response:
    """Show a subscription to its payer or its merchant."""
    found = await subscriptions.get(platform_of(call), call.user, call.path("subscription_id"))
    return answer(200, _view(found))


async def cancel_subscription(call: Call) -> web.Response:
    """End a subscription."""
    ended = await subscriptions.cancel(platform_of(call), call.user, call.path("subscription_id"))
    return answer(200, Detail("canceled" if ended else "already canceled"))


async def process_due_subscriptions(call: Call) -> web.Response:
    """Charge everybody's due subscriptions, in development."""
    query: DueQuery = call.query
    platform = platform_of(call)
    subscriptions.require_dev(platform)
    progress = await charging.charge_due(platform, min(max(query.max_count, 1), MAX_COUNT))
    return answer(200, ChargedOut(progress.done, progress.done + progress.failed))


async def force_subscription_due(call: Call) -> web.Response:
    """Make a subscription due, in development."""
    await subscriptions.force_due(platform_of(call), call.user, call.path("subscription_id"))
    return answer(200, Detail("ok"))


def _listed(subscription: Subscription) -> SubscriptionOut:
    return SubscriptionOut(
        id=str(subscription.id),
        merchant_user_id=str(subscription.merchant_id),
        amount_cents=subscription.amount,
        currency_code=subscription.currency,
        interval_days=subscription.interval_days,
        next_charge_at=timestamp(subscription.next_charge_at),
        status=STATES.get(subscription.state, subscription.state),
        created_at=timestamp(subscription.created_at),
        interval_months=subscription.interval_months or msgspec.UNSET,
    )


def _view(subscription: Subscription) -> SubscriptionView:
    ended = subscription.state == "canceled"
    last = subscription.last_transfer_id
    return SubscriptionView(
        id=str(subscription.id),
        payer_user_id=str(subscription.payer_id),
        merchant_user_id=str(subscription.merchant_id),
        amount_cents=subscription.amount,
        currency_code=subscription.currency,
        interval_days=subscription.interval_days,
        next_charge_at=timestamp(subscription.next_charge_at),
        status=STATES.get(subscription.state, subscription.state),
        created_at=timestamp(subscription.created_at),
        interval_months=subscription.interval_months or msgspec.UNSET,
        state=subscription.state,
        last_transfer_id=None if last is None else str(last),
        dunning=DunningOut(
            attempts=subscription.attempts,
            last_error=subscription.last_error,
            next_attempt_at=maybe_timestamp(None if ended else subscription.try_at),
            missed_periods=subscription.missed_periods,
        ),
    )


_SUBSCRIPTION = {"subscription_id": UUID}

ROUTES = table(
    Route(
        "POST", "/subscriptions", create_subscription, "create_subscription", "Subscribe to a merchant",
        body=SubscriptionIn, answers={200: SubscribedOut},
        problems=("merchant_not_found", "target_not_a_merchant", "transfer_limit_exceeded", "daily_amount_exceeded"),
    ),
    Route(
        "GET", "/subscriptions", list_subscriptions, "list_subscriptions", "List my newest subscriptions",
        query=SubscriptionsQuery, answers={200: list[SubscriptionOut]},
    ),
    Route(
        "POST", "/subscriptions/process_due", process_due_subscriptions, "process_due_subscriptions",
        "Charge all due subscriptions (development)", query=DueQuery, answers={200: ChargedOut},
        problems=("forbidden",),
    ),
    Route(
        "GET", "/subscriptions/{subscription_id}", get_subscription, "get_subscription",
        "Show a subscription and its dunning", answers={200: SubscriptionView},
        problems=("subscription_not_found", "forbidden"),
    ),
    Route(
        "POST", "/subscriptions/{subscription_id}/cancel", cancel_subscription, "cancel_subscription",
        "End a subscription", answers={200: Detail}, problems=("subscription_not_found", "forbidden"),
    ),
    Route(
        "POST", "/subscriptions/{subscription_id}/dev_force_due", force_subscription_due, "force_subscription_due",
        "Make a subscription due (development)", answers={200: Detail},
        problems=("forbidden", "subscription_not_found"),
    ),
    tag="subscriptions", caller="user", parameters=_SUBSCRIPTION,
)  # fmt: skip
