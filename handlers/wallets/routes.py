"""All routes of the wallet surface."""

from __future__ import annotations

from handlers.http.route import Route
from handlers.pay_page import page
from handlers.wallets import (
    admin,
    auth,
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
    vouchers,
    wallet,
)

ROUTES: tuple[Route, ...] = (
    *auth.ROUTES,
    *wallet.ROUTES,
    *merchants.ROUTES,
    *page.ROUTES,
    *requests.ROUTES,
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
