"""Administration: merchants, KYC reviews, frozen wallets, sign-ins, credits, demo users."""

from __future__ import annotations

from typing import Annotated, Literal
from uuid import UUID

import msgspec
import pydantic
from aiohttp import web
from pydantic_core import PydanticCustomError

from core.money import MAX_AMOUNT_MINOR
from core.payables import credits as given
from core.payables.credits import Demo
from core.wallets import administration
from core.wallets.administration import Merchant, MerchantChanges
from core.wallets.balances import read_balance
from core.wallets.config import MAX_BASIS_POINTS
from handlers.http.route import Call, Route, answer, table
from handlers.wallets.admin.endpoints import TAG, Limit, Offset
from handlers.wallets.contract import Body, Detail, Name, Phone, platform_of, timestamp

MAX_AIRDROP = 50_000
MAX_AIRDROP_OFFSET = 10_000_000
_FIRST = UUID(int=0)

BasisPoints = Annotated[int, pydantic.Field(ge=0, le=MAX_BASIS_POINTS)]
MerchantStatus = Literal["none", "applied", "approved", "rejected", "suspended"]
KycStatus = Literal["none", "pending", "approved", "rejected"]
Reason = Annotated[str, pydantic.Field(min_length=1, max_length=500)]


class MerchantsQuery(Body):
    """One merchant by phone, or a part of the list; `after` continues it behind the user id of its last merchant."""

    phone: Annotated[str, pydantic.Field(min_length=1, max_length=64)] | None = None
    status: Annotated[str, pydantic.Field(max_length=16)] | None = None
    limit: Limit = 50
    offset: Offset = 0
    after: UUID | None = None


class MerchantView(msgspec.Struct, frozen=True):
    """A user as a merchant. A null fee stands for the platform's."""

    user_id: str
    phone: str
    is_merchant: bool
    merchant_status: str
    merchant_fee_bps: int | None


class MerchantsOut(msgspec.Struct, frozen=True, omit_defaults=True):
    """Merchants, oldest first; with `phone` one merchant's own fields in place of a list."""

    items: list[MerchantView] | msgspec.UnsetType = msgspec.UNSET
    limit: int | msgspec.UnsetType = msgspec.UNSET
    offset: int | msgspec.UnsetType = msgspec.UNSET
    user_id: str | msgspec.UnsetType = msgspec.UNSET
    phone: str | msgspec.UnsetType = msgspec.UNSET
    is_merchant: bool | msgspec.UnsetType = msgspec.UNSET
    merchant_status: str | msgspec.UnsetType = msgspec.UNSET
    merchant_fee_bps: int | msgspec.UnsetType | None = msgspec.UNSET


class MerchantIn(Body):
    """Changes to a merchant. An absent or null field stays as it is; `no_own_fee` takes the merchant's own fee away."""

    is_merchant: bool | None = None
    merchant_status: MerchantStatus | None = None
    merchant_fee_bps: BasisPoints | None = None
    no_own_fee: bool = False


class AirdropIn(Body):
    """The amount (the setting's starting credit when absent), and the users: `limit` of them behind `offset` others."""

    amount_cents: Annotated[int, pydantic.Field(le=MAX_AMOUNT_MINOR)] | None = None
    limit: Annotated[int, pydantic.Field(ge=1, le=MAX_AIRDROP)] = 10_000
    offset: Annotated[int, pydantic.Field(ge=0, le=MAX_AIRDROP_OFFSET)] = 0


class AirdropQuery(AirdropIn):
    """The same fields as a query, which counts where there is no body."""


class AirdropOut(msgspec.Struct, frozen=True, omit_defaults=True):
    """The numbers of users that were looked at, that got the credit now, and that had it or could not get it."""

    processed: int
    credited: int
    skipped: int
    amount_cents: int
    limit: int | msgspec.UnsetType = msgspec.UNSET
    offset: int | msgspec.UnsetType = msgspec.UNSET


class SeedIn(Body):
    """A demo user."""

    phone: Phone
    name: Name = None
    starting_balance_cents: Annotated[int, pydantic.Field(ge=0, le=MAX_AMOUNT_MINOR)] = 0
    kyc_level: Annotated[int, pydantic.Field(ge=0, le=2)] = 1
    kyc_status: KycStatus = "approved"
    is_merchant: bool = False
    merchant_fee_bps: BasisPoints | None = None


class SeedUser(msgspec.Struct, frozen=True):
    """The user."""

    id: str
    phone: str
    name: str | None
    is_merchant: bool
    kyc_level: int
    kyc_status: str


class SeedWallet(msgspec.Struct, frozen=True):
    """The user's money, in minor units."""

    id: str
    balance_cents: int
    currency_code: str


class SeedOut(msgspec.Struct, frozen=True):
    """A demo user who is signed in."""

    access_token: str
    token_type: str
    user: SeedUser
    wallet: SeedWallet


class KycQuery(Body):
    """The length of the list; `after` continues it behind the user id of its last applicant."""

    limit: Limit = 50
    after: UUID | None = None


class ApplicantOut(msgspec.Struct, frozen=True):
    """A user who waits for a review."""

    user_id: str
    phone: str
    name: str | None
    kyc_level: int
    kyc_status: str
    created_at: str


class ApplicantsOut(msgspec.Struct, frozen=True):
    """Users who wait for a review, oldest first; `next` continues the list as `after`, null at its end."""

    items: list[ApplicantOut]
    next: str | None


class ReviewIn(Body):
    """Approve to a level, or reject with a reason."""

    decision: Literal["approve", "reject"]
    level: Annotated[int, pydantic.Field(ge=1, le=2)] = 1
    reason: Reason | None = None

    @pydantic.model_validator(mode="after")
    def say_why(self) -> ReviewIn:
        """Refuse a rejection without a reason."""
        if self.decision == "reject" and self.reason is None:
            raise PydanticCustomError("reason_required", "A rejection has a reason")
        return self


class ReviewOut(msgspec.Struct, frozen=True):
    """The user's KYC after the review."""

    detail: str
    kyc_level: int


class ReasonIn(Body):
    """Why."""

    reason: Reason


class SignOutOut(msgspec.Struct, frozen=True):
    """The number of sign-ins that were ended."""

    detail: str
    sessions: int


async def list_merchants(call: Call) -> web.Response:
    """Show one merchant by phone, or list them."""
    query: MerchantsQuery = call.query
    platform = platform_of(call)
    if query.phone is not None:
        # An unencoded plus arrives as a blank.
        phone = f"+{query.phone[1:]}" if query.phone.startswith(" ") else query.phone
        return answer(200, _merchant(await administration.merchant_of(platform, phone)))
    found = await administration.merchants(
        platform,
        after=query.after or _FIRST,
        limit=query.limit,
        offset=query.offset,
        status=query.status,
    )
    return answer(200, MerchantsOut([_merchant(one) for one in found], query.limit, query.offset))


async def set_merchant(call: Call) -> web.Response:
    """Make a user a merchant, or change the merchant's verification and fee."""
    body: MerchantIn = call.body
    changes = MerchantChanges(body.is_merchant, body.merchant_status, body.merchant_fee_bps, body.no_own_fee)
    await administration.set_merchant(platform_of(call), call.path("user_id"), changes)
    return answer(200, Detail("ok"))


async def airdrop(call: Call) -> web.Response:
    """Give the starting credit to users who do not have it."""
    asked: AirdropIn = call.body if call.raw else call.query
    platform = platform_of(call)
    amount = platform.settings.starting_credit_cents if asked.amount_cents is None else asked.amount_cents
    if amount <= 0:
        return answer(200, AirdropOut(0, 0, 0, 0))
    done = await given.airdrop(platform, amount, limit=asked.limit, offset=asked.offset)
    return answer(200, AirdropOut(*done, amount, asked.limit, asked.offset))


async def seed_demo_user(call: Call) -> web.Response:
    """Make a demo user and sign them in."""
    body: SeedIn = call.body
    platform = platform_of(call)
    demo = Demo(
        body.phone, body.name, body.kyc_level, body.kyc_status, body.is_merchant, body.merchant_fee_bps
    )
    user = await given.seed_demo(platform, demo, body.starting_balance_cents)
    standing = await read_balance(platform, user)
    return answer(
        200,
        SeedOut(
            call.parts.tokens.issue(user, None),
            "bearer",
            SeedUser(str(user.id), user.phone, user.name, user.is_merchant, user.kyc_level, user.kyc_status),
            SeedWallet(str(user.wallet_id), standing.balance, standing.currency),
        ),
    )


async def list_kyc(call: Call) -> web.Response:
    """List the users who wait for a KYC review."""
    query: KycQuery = call.query
    found = await administration.waiting_for_review(
        platform_of(call), after=query.after or _FIRST, limit=query.limit + 1
    )
    items = [
        ApplicantOut(
            str(one.user_id), one.phone, one.name, one.kyc_level, one.kyc_status, timestamp(one.created_at)
        )
        for one in found[: query.limit]
    ]
    return answer(200, ApplicantsOut(items, items[-1].user_id if len(found) > query.limit else None))


async def review_kyc(call: Call) -> web.Response:
    """Approve or reject an applicant."""
    body: ReviewIn = call.body
    level, status = await administration.review(
        platform_of(call), call.path("user_id"), body.decision, level=body.level, reason=body.reason
    )
    return answer(200, ReviewOut(status, level))


async def freeze_wallet(call: Call) -> web.Response:
    """Freeze a wallet."""
    return await _freeze(call, frozen=True)


async def unfreeze_wallet(call: Call) -> web.Response:
    """Unfreeze a wallet."""
    return await _freeze(call, frozen=False)


async def _freeze(call: Call, *, frozen: bool) -> web.Response:
    body: ReasonIn = call.body
    changed = await administration.freeze(
        platform_of(call), call.path("user_id"), frozen=frozen, reason=body.reason
    )
    word = "frozen" if frozen else "active"
    return answer(200, Detail(word if changed else f"already {word}"))


async def end_sign_ins(call: Call) -> web.Response:
    """Sign a user out everywhere."""
    return answer(
        200,
        SignOutOut("signed out", await administration.end_sign_ins(platform_of(call), call.path("user_id"))),
    )


def _merchant(found: Merchant) -> MerchantView:
    return MerchantView(str(found.user_id), *found[1:])


_USER_ID = {"user_id": UUID}

ROUTES = table(
    Route(
        "GET", "/admin/merchants", list_merchants, "admin_list_merchants", "Show a merchant, or list them",
        query=MerchantsQuery, answers={200: MerchantsOut}, problems=("user_not_found",),
    ),
    Route(
        "POST", "/admin/merchants/{user_id}/set", set_merchant, "admin_set_merchant", "Change a merchant",
        body=MerchantIn, answers={200: Detail}, problems=("user_not_found",),
    ),
    Route(
        "POST", "/admin/airdrop_starting_credit", airdrop, "admin_airdrop", "Give the starting credit",
        query=AirdropQuery, body=AirdropIn, answers={200: AirdropOut},
        description="Each user gets it once in all. The fields may stand in the query or in the body.",
    ),
    Route(
        "POST", "/admin/seed_demo_user", seed_demo_user, "admin_seed_demo_user", "Make a demo user",
        body=SeedIn, answers={200: SeedOut}, problems=("not_allowed",),
        description="In development and tests only.",
    ),
    Route(
        "GET", "/admin/kyc", list_kyc, "admin_list_kyc", "List users who wait for a KYC review",
        query=KycQuery, answers={200: ApplicantsOut},
    ),
    Route(
        "POST", "/admin/kyc/{user_id}/review", review_kyc, "admin_review_kyc", "Approve or reject an applicant",
        body=ReviewIn, answers={200: ReviewOut}, problems=("user_not_found", "kyc_not_pending"),
    ),
    Route(
        "POST", "/admin/wallets/{user_id}/freeze", freeze_wallet, "admin_freeze_wallet", "Freeze a wallet",
        body=ReasonIn, answers={200: Detail}, problems=("user_not_found", "account_closed"),
    ),
    Route(
        "POST", "/admin/wallets/{user_id}/unfreeze", unfreeze_wallet, "admin_unfreeze_wallet",
        "Unfreeze a wallet", body=ReasonIn, answers={200: Detail},
        problems=("user_not_found", "account_closed"),
    ),
    Route(
        "POST", "/admin/users/{user_id}/sign_out", end_sign_ins, "admin_end_sign_ins", "End all sign-ins of a user",
        answers={200: SignOutOut}, problems=("user_not_found",),
    ),
    tag=TAG, caller="admin", parameters=_USER_ID,
)  # fmt: skip
