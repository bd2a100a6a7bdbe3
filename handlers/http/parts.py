"""The parts that the surfaces of one process share."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiohttp import hdrs, web
from multidict import istr

from core.access.addresses import UNKNOWN, Addresses
from core.identity.tokens import Tokens
from handlers.http.admin_token import Administrators
from handlers.http.route import MIB

if TYPE_CHECKING:
    from core.access.api_keys import ApiKeys
    from core.access.guard import Guard
    from core.access.internal_callers import InternalCallers
    from core.errors import Refusal
    from core.identity.identity import Identity
    from core.payments.flow import Payments
    from core.payments.orchestration.desk import Desk
    from core.payments.orchestration.provider_events import EventDesk
    from core.platform import Platform
    from core.service import Service
    from core.settings import Settings
    from core.storage.replica import Replica
    from core.work.gauges import Collector
    from handlers.http.route import Route
    from handlers.webhooks.inbox_receive import Inbound
    from handlers.webhooks.outbox_parts import Outbound

FORWARDED_FOR = istr("X-Forwarded-For")
# Headers that proxies add: RFC 7239, RFC 9110 section 7.6.3, and those of the usual servers and networks.
PROXIES_HEADERS = tuple(
    istr(name)
    for name in (
        "X-Forwarded-For", "Forwarded", "Via", "X-Real-IP", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Forwarded-Port",
        "X-Forwarded-Server", "X-Client-IP", "X-Cluster-Client-IP", "X-Original-Forwarded-For",
        "X-Envoy-External-Address", "True-Client-IP", "CF-Connecting-IP", "Fastly-Client-IP",
    )
)  # fmt: skip


class Parts:
    """The parts that routes answer with, on all ports of one process.

    The parts that need only the settings are there at once. The others, from `service` on, are there once
    `handlers.opening` has opened them; until then `missing` says why they are not.
    """

    __slots__ = (
        "_behind_proxies",
        "_origins",
        "addresses",
        "administrators",
        "api_keys",
        "callers",
        "collector",
        "desk",
        "guard",
        "identity",
        "inbound",
        "migrated",
        "missing",
        "outbound",
        "payments",
        "platform",
        "provider_events",
        "replica",
        "service",
        "settings",
        "stopping",
        "tokens",
    )

    service: Service
    guard: Guard
    api_keys: ApiKeys
    inbound: Inbound
    outbound: Outbound
    platform: Platform
    identity: Identity
    payments: Payments
    callers: InternalCallers
    collector: Collector
    desk: Desk
    provider_events: EventDesk

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.addresses = Addresses(settings.trusted_proxies, settings.trusted_networks)
        self._behind_proxies = bool(settings.trusted_proxies)
        # `*` lets every page read answers, but no page act with the rights of the network that its reader sits in.
        self._origins = frozenset(origin.rstrip("/").lower() for origin in settings.allowed_origins) - {"*"}
        self.administrators = Administrators(settings)
        self.tokens = Tokens(settings)
        self.missing: Refusal | None = None
        self.replica: Replica | None = None
        # /ready remembers both: a process that stops, and a schema that was found whole once.
        self.stopping = False
        self.migrated = False

    def address_of(self, request: web.Request) -> str:
        """Return the client's address."""
        if not self._behind_proxies:
            return request.remote or UNKNOWN
        return self.addresses.client(request.remote, request.headers.getall(FORWARDED_FOR, ()))

    def trusts(self, request: web.Request) -> bool:
        """Whether the request comes from a network in TRUSTED_NETWORKS.

        A page in a trusted person's browser is nobody to trust unless ALLOWED_ORIGINS has its origin by name.
        """
        origin = request.headers.get(hdrs.ORIGIN)
        if origin is not None and origin.lower() not in self._origins:
            return False
        hops = request.headers.getall(FORWARDED_FOR, ())
        return self.addresses.trusts(request.remote, hops, passed_on=passed_on(request))

    def body_limit(self, route: Route, of_surface: int) -> int:
        """Return the bytes that a body of `route` may have: its own limit, or that of its surface.

        A limit of 1 MiB or more is for MAX_REQUEST_SIZE=1048576 and goes up and down with it. A smaller one is what its
        route needs, so that MAX_REQUEST_SIZE only lowers it.
        """
        own, most = route.body_limit or of_surface, self.settings.max_request_size
        return own * most // MIB if own >= MIB else min(own, most)


def passed_on(request: web.Request) -> bool:
    """Whether a proxy has passed the request on, as far as the headers tell."""
    return any(name in request.headers for name in PROXIES_HEADERS)


PARTS: web.AppKey[Parts] = web.AppKey("parts", Parts)
CONTRACT: web.AppKey[str] = web.AppKey("contract", str)
"""The setting of the port on which an application answers as a contract says; the common application has none."""
