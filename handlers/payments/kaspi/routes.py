"""The surface of the Kaspi contract: on the common port, and alone on KASPI_PORT."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from handlers.http.docs import documented
from handlers.http.route import Call, Route, answer, table
from handlers.http.surface import Listener
from handlers.payments.kaspi import admin, payments
from handlers.payments.kaspi.surface import KaspiSurface

if TYPE_CHECKING:
    from aiohttp import web

# The version that the contract's clients look for.
VERSION: Final = "1.0.0"


class KaspiHealth(msgspec.Struct, frozen=True):
    """The answer of a process that is alive."""

    status: str
    """The word `ok`."""
    service: str
    version: str


class KaspiIndex(msgspec.Struct, frozen=True):
    """The service and its addresses: `docs`, `health`, and the first parts of all others in `endpoints`."""

    service: str
    version: str
    docs: str
    health: str
    endpoints: dict[str, str]


async def show_health(_call: Call) -> web.Response:
    """Answer without asking anybody."""
    return answer(200, KaspiHealth("ok", "payment-service", VERSION))


async def show_index(_call: Call) -> web.Response:
    """Tell the addresses of the service."""
    endpoints = {"payments": "/payments/kaspi", "admin": "/admin"}
    return answer(200, KaspiIndex("Payment Service", VERSION, "/docs", "/health", endpoints))


_HEALTH = Route(
    "GET", "/health", show_health, "get_health", "Whether the process is alive", "Service",
    answers={200: KaspiHealth}, limited=False, needs_service=False,
)  # fmt: skip
_SITE_HEALTH = table(
    Route("GET", "/api/health", show_health, "kaspi_site_health", "Whether the process is alive"),
    tag="Service", answers={200: KaspiHealth}, limited=False, needs_service=False,
)  # fmt: skip
_INDEX = Route(
    "GET", "/", show_index, "get_index", "The addresses of the service", "Service",
    answers={200: KaspiIndex}, limited=False, needs_service=False,
)  # fmt: skip
ROUTES = (*payments.ROUTES, *admin.ADMIN, *admin.SITE, *_SITE_HEALTH)
_CONTRACT = KaspiSurface("kaspi contract", (*ROUTES, _HEALTH, _INDEX), own_port=True, forgives_slash=True)
_DOCUMENTED = documented((_CONTRACT,), "/redoc", title="Payment Service", version=VERSION)
KASPI = KaspiSurface(
    "kaspi", ROUTES, forgives_slash=True, listener=Listener("kaspi_port", (_CONTRACT, _DOCUMENTED))
)
