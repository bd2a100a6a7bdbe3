"""KYC (know your customer): a user's level and state, the request for approval."""

from __future__ import annotations

import msgspec
from aiohttp import web

from core.wallets import kyc
from handlers.http.route import Call, Route, answer, table
from handlers.wallets.contract import Detail, platform_of


class KycOut(msgspec.Struct, frozen=True):
    """A user's KYC level and state."""

    kyc_level: int
    kyc_status: str


class ApprovedOut(msgspec.Struct, frozen=True):
    """An approval, and the level that it gives."""

    detail: str
    kyc_level: int


async def get_kyc(call: Call) -> web.Response:
    """Show the caller's KYC."""
    return answer(200, KycOut(call.user.kyc_level, call.user.kyc_status))


async def submit_kyc(call: Call) -> web.Response:
    """Ask for approval."""
    return answer(200, Detail(await kyc.submit(platform_of(call), call.user)))


async def approve_oneself(call: Call) -> web.Response:
    """Approve the caller, in development."""
    return answer(200, ApprovedOut("approved", await kyc.approve_oneself(platform_of(call), call.user)))


ROUTES = table(
    Route("GET", "/kyc", get_kyc, "get_kyc", "Show my KYC", answers={200: KycOut}),
    Route("POST", "/kyc/submit", submit_kyc, "submit_kyc", "Ask for approval", answers={200: Detail}),
    Route(
        "POST", "/kyc/dev/approve", approve_oneself, "approve_own_kyc", "Approve myself (development)",
        answers={200: ApprovedOut}, problems=("not_allowed",),
    ),
    tag="kyc", caller="user",
)  # fmt: skip
