"""Spans of calls to other services."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self
from urllib.parse import urlsplit

from core import tracing

if TYPE_CHECKING:
    from types import TracebackType

    from core.tracing.live import Scope

_LEAST_ERROR = 400


class Outgoing:
    """A block that calls `service`. It sets `status` when it has one; without tracing nothing else happens.

    The host alone is told of an address, since paths and queries may be secrets. These services get no `traceparent`:
    they are other people's, and have no use for it.
    """

    __slots__ = ("_about", "_scope", "status")

    def __init__(self, service: str, method: str, url: str) -> None:
        self._about = (service, method, url)
        self._scope: Scope | None = None
        self.status: int | None = None

    def __enter__(self) -> Self:
        if tracing.active is not None:
            service, method, url = self._about
            host, port = _place_of(url)
            self._scope = tracing.active.outgoing(f"{method} {service}", method, host, port)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        scope, self._scope = self._scope, None
        if scope is None:
            return
        if self.status is None:
            scope.end(None if kind is None else kind.__name__)
        else:
            word = str(self.status) if self.status >= _LEAST_ERROR else None
            scope.end(word, http__response__status_code=self.status)


def _place_of(url: str) -> tuple[str, int | None]:
    try:
        parts = urlsplit(url)
        return parts.hostname or "", parts.port
    except ValueError:
        return "", None
