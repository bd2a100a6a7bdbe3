"""All routes of the wallet surface."""

from __future__ import annotations

from handlers.api import Route
from handlers.wallets import (
    admin,
    auth,
    cash,
    internal,
    invoices,
    kyc,
    links,
    merchant_api,
    merchants,
    pay_page,
    refunds,
    requests,
    subscriptions,
    vouchers,
    wallet,
    webhooks,
)

ROUTES: tuple[Route, ...] = (
    *auth.ROUTES,
    *wallet.ROUTES,
    *merchants.ROUTES,
    *pay_page.ROUTES,
    *requests.ROUTES,
    *links.ROUTES,
    *invoices.ROUTES,
    *subscriptions.ROUTES,
    *refunds.ROUTES,
    *kyc.ROUTES,
    *cash.ROUTES,
    *vouchers.ROUTES,
    *webhooks.ROUTES,
    *internal.ROUTES,
    *merchant_api.ROUTES,
    *admin.ROUTES,
)
