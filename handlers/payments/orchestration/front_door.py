"""The front door of both transports: the request id first, then the key of an internal service, then its access."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from core.errors import Refusal
from core.payments.orchestration.desk import Viewer

if TYPE_CHECKING:
    from handlers.http.parts import Parts

REQUEST_ID: Final = "x-request-id"
API_KEY: Final = "x-api-key"
# A caller that has shown neither may still be the provider itself, whose signature is enough.
UNSHOWN: Final = frozenset({"request_id_required", "api_key_required"})


async def enter(parts: Parts, request_id: str | None, key: str | None, place: str) -> Viewer:
    """Return the service that calls; `place` is the word for where entries are: header or metadata.

    Raises Refusal with the contract's words, and Unavailable when nobody can say whose the key is.
    """
    if not (request_id or "").strip():
        raise Refusal("request_id_required", f"{REQUEST_ID} header is required")
    presented = (key or "").strip()
    if not presented:
        raise Refusal("api_key_required", f"missing {API_KEY} {place}")
    service = parts.settings.app_service_name
    caller = await parts.callers.authenticate(presented)
    if not caller.may_call(service):
        raise Refusal("forbidden", "forbidden")
    return Viewer(caller.name, caller.sees_all(service))
