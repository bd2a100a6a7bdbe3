"""The surface of the wallets: their contract on the common port, and alone on WALLET_PORT."""

from __future__ import annotations

import msgspec
from aiohttp import web

from handlers.http import health
from handlers.http.dispatch import ApiSurface
from handlers.http.docs import documented
from handlers.http.route import Call, Route, answer, table
from handlers.http.surface import Listener
from handlers.wallets import (
    blocks,
    cash,
    internal,
    invoices,
    kyc,
    links,
    merchant_api,
    merchant_endpoints,
    merchants,
    refunds,
    requests,
    subscriptions,
    topups,
    vouchers,
    wallet,
)
from handlers.wallets.admin import config as admin
from handlers.wallets.auth import passkeys, sign_in
from handlers.wallets.surface import WalletSurface


class Alive(msgspec.Struct, frozen=True):
    """The answer of a process whose database answers; `env` is ENV."""

    status: str
    env: str


async def show_health(call: Call) -> web.Response:
    """Answer whether the database answers; if not, by the bare 500 that the contract's probes know."""
    if not await health.has_database(call):
        return web.Response(status=500, text="Internal Server Error")
    return answer(200, Alive("ok", call.parts.settings.env))


ROUTES: tuple[Route, ...] = (
    *sign_in.ROUTES,
    *passkeys.ROUTES,
    *wallet.ROUTES,
    *topups.ROUTES,
    *merchants.ROUTES,
    *requests.ROUTES,
    *blocks.ROUTES,
    *links.ROUTES,
    *invoices.ROUTES,
    *subscriptions.ROUTES,
    *refunds.ROUTES,
    *kyc.ROUTES,
    *cash.ROUTES,
    *vouchers.ROUTES,
    *merchant_endpoints.ROUTES,
    *internal.ROUTES,
    *merchant_api.ROUTES,
    *admin.ROUTES,
)
# WALLET_PORT has only the routes of the contract, answered as the contract says.
_SERVICE = table(
    Route(
        "GET", "/health", show_health, "get_health", "Whether process and database are alive",
        answers={200: Alive}, needs_service=False,
    ),
    Route(
        "GET", "/metrics", health.metrics_page, "get_metrics", "Metrics for Prometheus",
        admin=True, trusting=True, answers={200: None}, media=("text/plain",),
    ),
    tag="Service", limited=False,
)  # fmt: skip
_CONTRACT = (
    WalletSurface("wallets", ROUTES, forgives_slash=True),
    ApiSurface("wallets' service", _SERVICE, strict=False, forgives_slash=True),
)
_DOCUMENTED = documented(_CONTRACT, "/redoc", title="Payments API", version="0.1.0")
WALLETS = WalletSurface(
    "wallets", ROUTES, forgives_slash=True, listener=Listener("wallet_port", (*_CONTRACT, _DOCUMENTED))
)
