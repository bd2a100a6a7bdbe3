"""The receivers of a principal: made with a secret that is shown once, listed, deleted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple
from uuid import UUID

from core import ids
from core.database import statements
from core.errors import Refusal
from core.outbox.signing import check_secret, new_secret

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from core.database import Database, Row
    from core.outbox.destinations import Destinations

_sql = statements("outbox")

# An event becomes one delivery for each endpoint that wants it, in one transaction; this bounds that.
MAX_ENDPOINTS: Final = 100
_START: Final = UUID(int=0)


class Endpoint(NamedTuple):
    """One receiver, without its secret. No `event_types` means all types."""

    id: UUID
    url: str
    event_types: tuple[str, ...]
    created_at: datetime


async def create(
    database: Database,
    destinations: Destinations,
    *,
    principal_id: int,
    url: str,
    event_types: Sequence[str] = (),
    secret: str | None = None,
) -> tuple[Endpoint, str]:
    """Store an endpoint and return it with its secret, which is never shown again.

    Raises Refusal `invalid_request` for a URL that leads nowhere we would go, for a weak secret, and when there are
    MAX_ENDPOINTS already.
    """
    destinations.check_url(url)
    if secret is not None:
        check_secret(secret)
    chosen = secret or new_secret()
    types = sorted(set(event_types))
    row = await database.fetchrow(
        _sql.create_webhook_endpoint, ids.new_uuid(), principal_id, url, types, [chosen], MAX_ENDPOINTS
    )
    if row is None:
        raise Refusal("invalid_request", f"There are {MAX_ENDPOINTS} endpoints already. Delete one first.")
    return _endpoint(row), chosen


async def list_page(
    database: Database, *, principal_id: int, after: UUID | None, limit: int
) -> list[Endpoint]:
    """Return up to `limit` endpoints behind `after`, oldest first."""
    rows = await database.fetch(_sql.list_webhook_endpoints, principal_id, after or _START, limit)
    return [_endpoint(row) for row in rows]


async def find(database: Database, *, principal_id: int, endpoint_id: UUID) -> Endpoint:
    """Return one endpoint. Raises Refusal `not_found`, for another principal's too."""
    row = await database.fetchrow(_sql.find_webhook_endpoint, principal_id, endpoint_id)
    if row is None:
        raise _missing(endpoint_id)
    return _endpoint(row)


async def delete(database: Database, *, principal_id: int, endpoint_id: UUID) -> None:
    """Delete one endpoint; what is still due to it fails as `endpoint_missing`. Raises Refusal `not_found`."""
    if await database.fetchval(_sql.delete_webhook_endpoint, principal_id, endpoint_id) is None:
        raise _missing(endpoint_id)


def _missing(endpoint_id: UUID) -> Refusal:
    return Refusal("not_found", f"There is no endpoint {endpoint_id}.")


def _endpoint(row: Row) -> Endpoint:
    return Endpoint(row["id"], row["url"], tuple(row["event_types"]), row["created_at"])
