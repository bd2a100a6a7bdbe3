"""Routes, calls and answers: the material of every surface.

A handlers module exports `ROUTES`. Its surface turns each route into one aiohttp handler, and `handlers.http.openapi`
into one operation of the document. Both read the same fields, so that they cannot disagree.
"""

from __future__ import annotations

import re
from dataclasses import KW_ONLY, dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import msgspec
from aiohttp import hdrs, web
from multidict import CIMultiDict, CIMultiDictProxy

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from core.access.api_keys import Principal
    from core.payables.payables import ToPay
    from core.service import Service
    from core.wallets.users import User
    from handlers.http.parts import Parts

Item = TypeVar("Item")

MIB = 1024 * 1024
# The longest value in a path, in characters: a UUID with a prefix, or a hash.
MAX_PATH_VALUE = 255

Caller = Literal[
    "anyone", "user", "user+admin", "admin", "internal", "merchant_key", "order_merchant", "order_provider"
]

JSON = CIMultiDictProxy(CIMultiDict({hdrs.CONTENT_TYPE: "application/json"}))
_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class Route:
    """One operation over HTTP; the OpenAPI document is made of the same fields.

    `path` is a template as aiohttp writes it (`/v1/accounts/{account}`), `operation` the operationId in snake_case,
    `scope` the scope that the caller's key must carry (None: anyone may call). An `admin` route wants the admin token
    or, if it has a scope, a key that carries the scope; a call of the administrator has no principal. Callers from
    TRUSTED_NETWORKS need no admin token on a `trusting` route.
    `body` and `query` are frozen Structs that forbid unknown fields; `parameters` gives types to names in the path (a
    name without one is a text of 1 to 255 characters). `answers` maps a status to the type of its JSON body (None: no
    JSON), `media` adds other media types of the good answer, and `problems` are the codes that the operation itself can
    refuse with: those of the surface are added.

    `caller` is the kind of caller of a route of the wallets' or the orders' surface. Its `body` and `query` are
    pydantic models, since the contract's leniency and its list of errors are pydantic's.

    `pays_code` says that the body's `code` is that of a payable, which is looked for together with the user.

    `key_in_header` says that the body's field `idempotency_key` may be left out where the header has the key.

    `body_limit` is in bytes (None: that of the surface); `Parts.body_limit` says how MAX_REQUEST_SIZE changes it.
    `cost` returns, from the decoded body, what the request counts against the rate limits (1). `idempotent` routes
    want an Idempotency-Key; `key_header` names the header in which another route takes a key, and `conditional` ones
    honour If-Match (`handlers.http.conditions`). `raw` routes get the bytes of the body undecoded. `limited` is False
    for routes that must answer under any load, `needs_service` for routes that answer before the service is open,
    too. A `hidden` route is not in the document. The document describes an operation by its `description`, or else by
    the docstring of the handler.
    """

    method: str
    path: str
    handler: Callable[[Call], Awaitable[web.StreamResponse]]
    operation: str
    summary: str
    tag: str = ""
    _: KW_ONLY
    scope: str | None = None
    admin: bool = False
    trusting: bool = False
    caller: Caller | None = None
    pays_code: bool = False
    key_in_header: bool = False
    body: Any = None
    query: Any = None
    parameters: Mapping[str, Any] = field(default_factory=dict)
    answers: Mapping[int, Any] = field(default_factory=dict)
    media: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
    body_limit: int | None = None
    cost: Callable[[Any], int] | None = None
    idempotent: bool = False
    key_header: str = ""
    conditional: bool = False
    raw: bool = False
    limited: bool = True
    needs_service: bool = True
    description: str = ""
    example: Mapping[str, Any] | None = None
    hidden: bool = False

    @property
    def path_names(self) -> tuple[str, ...]:
        """The names in the path, in their order."""
        return tuple(re.findall(r"\{(\w+)", self.path))


async def _nothing(_call: Call) -> web.StreamResponse:
    raise NotImplementedError


_UNSET = Route("", "", _nothing, "", "")


def table(*routes: Route, **common: Any) -> tuple[Route, ...]:
    """Return `routes`, each with the `common` fields that it does not set itself.

    A common parameter belongs to the routes whose path names it.
    """
    kinds = common.pop("parameters", {})
    found = []
    for route in routes:
        unset = [name for name in common if getattr(route, name) == getattr(_UNSET, name)]
        named = {name: kind for name, kind in kinds.items() if name in route.path_names}
        found.append(
            replace(route, **{name: common[name] for name in unset}, parameters={**named, **route.parameters})
        )
    return tuple(found)


class Call:
    """One request to one route, checked, as its handler gets it."""

    __slots__ = (
        "_path",
        "_user",
        "address",
        "body",
        "frozen",
        "idempotency_key",
        "kept_keys",
        "merchant_id",
        "parts",
        "principal",
        "query",
        "raw",
        "request",
        "request_id",
        "spelled_key",
        "to_pay",
    )

    def __init__(  # noqa: PLR0913, PLR0917 - one call site; a record of the checked parts
        self,
        request: web.Request,
        parts: Parts,
        principal: Principal | None,
        address: str,
        path: Mapping[str, Any],
        query: Any,
        body: Any,
        raw: bytes,
        idempotency_key: str | None,
        request_id: str,
    ) -> None:
        self.request = request
        self.parts = parts
        self.principal = principal
        self.address = address
        self._path = path
        self.query = query
        self.body = body
        self.raw = raw
        self.idempotency_key = idempotency_key
        self.request_id = request_id
        self.spelled_key = idempotency_key
        """The key as the caller spelled it; `idempotency_key` is what it means."""
        self.kept_keys: frozenset[str] = frozenset()
        """Spellings of keys under which something is stored, on a route of the wallet surface."""
        self._user: User | None = None
        self.merchant_id: int | None = None
        """The merchant who calls, on a route of the orders' surface."""
        self.to_pay: ToPay | None = None
        """The payable of the code in the body, on a route that `pays_code`; looked for together with the user."""
        self.frozen = False
        """Whether PostgreSQL repeats this answer under the key for ever, so that Redis may, too; set by the handler."""

    @property
    def service(self) -> Service:
        """The service."""
        return self.parts.service

    @property
    def caller(self) -> Principal:
        """The principal that calls, on a route with a scope."""
        if self.principal is None:
            raise TypeError("a route without a scope has no caller")
        return self.principal

    @property
    def user(self) -> User:
        """The user who is signed in, on a route of the wallet surface whose caller is a user."""
        if self._user is None:
            raise TypeError("a route without a user has none")
        return self._user

    @user.setter
    def user(self, user: User) -> None:
        self._user = user

    def path(self, name: str) -> Any:
        """Return the value in the place of `{name}` in the path, in the type that `Route.parameters` gives it.

        A value without a type is a text of 1 to 255 characters, none of them a control character.
        """
        return self._path[name]


def cut(found: list[Item], limit: int) -> tuple[list[Item], bool]:
    """Return the first `limit` of `found`, and whether more follow: `found` was asked for with one more."""
    return found[:limit], len(found) > limit


def answer(status: int, value: Any, headers: Mapping[str, str] | None = None) -> web.Response:
    """Answer `value` as JSON."""
    return json_answer(status, _encode(value), headers)


def json_answer(status: int, body: bytes, headers: Mapping[str, str] | None = None) -> web.Response:
    """Answer JSON that is already encoded, such as the stored answer of an earlier call."""
    response = web.Response(status=status, body=body, headers=JSON)
    if headers:
        response.headers.update(headers)
    return response
