"""A surface: the routes for one kind of client, with everything in which they differ from other surfaces.

A package under `handlers` exports its surface, and `handlers.app` lists it. Nothing outside of a surface asks which one
it is: a new surface is a package and a line in that list.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from aiohttp import web

from handlers.http.problems import contract_http_exception
from handlers.http.route import MIB

if TYPE_CHECKING:
    from core.errors import Refusal
    from handlers.http.parts import Parts
    from handlers.http.problems import ProblemType
    from handlers.http.route import Route

Json = dict[str, Any]
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Refuse = Callable[[web.HTTPException, str, str], web.Response]
Gate = Callable[[web.Request, "Parts"], Awaitable[web.Response | None]]


@dataclass(frozen=True, eq=False)
class Listener:
    """A port on which one contract answers alone, as the service did that the contract comes from.

    `setting` is the attribute of the settings that holds the port. `surfaces` are all that answer there, those of
    health and documentation included.

    `refuse` answers the framework's own refusals. Before one for a path or method that is none, the `gate` is asked,
    whose answer counts if it has one. With `tell_methods` every OPTIONS is answered, and the function writes the
    methods of its path. With `own_request_ids` each answer has a new UUID as its request id, whatever the caller sent.
    """

    setting: str
    surfaces: tuple[Surface, ...]
    refuse: Refuse = contract_http_exception
    gate: Gate | None = None
    tell_methods: Callable[[Iterable[str]], str] | None = None
    own_request_ids: bool = False


@dataclass(frozen=True, eq=False)
class Surface(ABC):
    """Routes that are called, refused and described in one way.

    `listener` is the port that the surface may have besides the common one. With `forgives_slash` a path that
    ends with a slash too many is redirected to the path without it.
    """

    name: str
    routes: tuple[Route, ...]
    listener: Listener | None = field(default=None, kw_only=True)
    forgives_slash: bool = field(default=False, kw_only=True)

    problem_types: ClassVar[Mapping[str, ProblemType]] = {}
    """The status and the title of each code that the surface can refuse with."""
    schemas: ClassVar[Mapping[str, Json]] = {}
    """The document's schemas of refusals, by name."""
    body_limit: ClassVar[int] = MIB
    """The bytes of a body, on routes that have no limit of their own."""
    pydantic: ClassVar[bool] = False
    """Whether bodies and queries are read by pydantic's rules. Without it they are read by msgspec's."""

    @abstractmethod
    def handler(self, route: Route, parts: Parts) -> Handler:
        """Return the aiohttp handler of `route`; made once, so that no request meets reflection."""

    @abstractmethod
    def refuse(self, refusal: Refusal) -> web.Response:
        """Answer an expected refusal."""

    def codes(self, route: Route) -> Iterable[str]:  # noqa: ARG002 - surfaces whose routes are hidden have none
        """Return the codes that the surface can refuse with before the handler of `route` is called."""
        return ()

    def parameters(self, route: Route) -> list[Json]:  # noqa: ARG002
        """Return the document's headers that every call of `route` carries, besides those of the route itself."""
        return []

    def refusals(self, codes: Sequence[str]) -> Json:  # noqa: ARG002
        """Return the document's content of an answer that refuses with one of `codes`."""
        return {}

    def example(self, code: str) -> Json | None:  # noqa: ARG002
        """Return the document's example of a refusal, None for a surface without examples."""
        return None

    def security(self, route: Route) -> list[Json]:  # noqa: ARG002
        """Return the document's alternative ways to prove who calls `route`."""
        return []
