"""Endpoints, the receivers of a principal: made with a secret that is shown once, changed, switched, deleted."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager, contextmanager
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from uuid import UUID

import asyncpg

from core import ids
from core.database import queries
from core.errors import Refusal, expect_revision
from core.outbox.custom_headers import check_headers
from core.outbox.events import check_patterns
from core.outbox.signing import (
    check_own_secret,
    check_secret,
    new_secret,
    new_signing_key,
    opened_signing_key,
    owner_of,
    sealed_signing_key,
    stored_public_key,
)
from core.vault import RESEALED, Resealed, SealedError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
    from datetime import datetime

    from core.database import Connection, Database, Row
    from core.outbox.destinations import Destinations
    from core.vault import Vault

_sql = queries(__name__)

# An event becomes one delivery for each endpoint that wants it, in one transaction; this number bounds it.
MAX_ENDPOINTS: Final = 100
MAX_DESCRIPTION: Final = 500
# The overlap of a rotation is a week at most: longer than any roll-out, short enough that a leaked secret ends.
MAX_OVERLAP_SECONDS: Final = 7 * 86_400
# Secrets that count at once: each makes a signature of every delivery, and receivers read a few only.
MAX_SECRETS: Final = 4
# The reasons why an endpoint is off, as `disabled_reason` tells them.
UNVERIFIED: Final = "unverified"
BY_OWNER: Final = "by_owner"
BY_ADMIN: Final = "by_admin"
GONE: Final = "gone"
FAILING: Final = "failing"
# The signatures of Standard Webhooks: HMAC alone, or ed25519 beside it.
SYMMETRIC: Final = "v1"
ASYMMETRIC: Final = "v1a"

_START: Final = UUID(int=0)


class Endpoint(NamedTuple):
    """One receiver, without its secret. No `event_types` means all types; a pattern ends in `*`.

    `failing_since` is the first failure since the last success, `old_secrets_until` the end of a rotation's overlap.
    `public_key` checks the signatures v1a, for a receiver that asked for them. An endpoint with `verify` is off until
    its URL has echoed a challenge (`core.outbox.challenge`); `verified_at` is when it did. The events of one object go
    to an `ordered` endpoint one after the other (`core.outbox.ordering`). `batch_size` is the most events that one
    message carries (`core.outbox.batching`).
    """

    id: UUID
    url: str
    event_types: tuple[str, ...]
    description: str
    header_names: tuple[str, ...]
    signature: str
    public_key: str | None
    ordered: bool
    batch_size: int
    verify: bool
    verified_at: datetime | None
    created_at: datetime
    old_secrets_until: datetime | None
    disabled_at: datetime | None
    disabled_reason: str | None
    failing_since: datetime | None
    failed_deliveries: int
    revision: int


class NewEndpoint(NamedTuple):
    """An endpoint to create. Without a secret one is made; an `own_secret` is any text, as in the wallet contract."""

    url: str
    event_types: Sequence[str] = ()
    description: str = ""
    headers: Mapping[str, str] = MappingProxyType({})
    signature: str = SYMMETRIC
    ordered: bool = False
    batch_size: int = 1
    verify: bool = False
    secret: str | None = None
    own_secret: bool = False


class Rotated(NamedTuple):
    """The new secret of an endpoint, which is never shown again, and when the old ones end."""

    secret: str
    public_key: str | None
    old_secrets_until: datetime
    revision: int


class EndpointChanges(NamedTuple):
    """Changes of an endpoint; a field that is None stays as it is."""

    url: str | None = None
    event_types: Sequence[str] | None = None
    description: str | None = None
    headers: Mapping[str, str] | None = None
    signature: str | None = None
    ordered: bool | None = None
    batch_size: int | None = None
    verify: bool | None = None
    enabled: bool | None = None


async def create(
    database: Connection | Database,
    destinations: Destinations,
    vault: Vault,
    *,
    principal_id: int,
    wanted: NewEndpoint,
) -> tuple[Endpoint, str]:
    """Store an endpoint and return it with its secret, which is never shown again.

    Raises Refusal `invalid_request` for a URL that no delivery may go to, for types that no event has, for a weak
    secret, for headers that an endpoint may not set, for order together with batches, and when there are MAX_ENDPOINTS
    already.
    """
    destinations.check_url(wanted.url)
    check_patterns(wanted.event_types, field="event_types")
    check_headers(wanted.headers)
    if wanted.secret is not None:
        (check_own_secret if wanted.own_secret else check_secret)(wanted.secret)
    secret = wanted.secret or new_secret()
    endpoint_id = ids.new_uuid()
    with _ordered_or_batched():
        row = await database.fetchrow(
            _sql.create_webhook_endpoint,
            endpoint_id,
            principal_id,
            wanted.url,
            sorted(set(wanted.event_types)),
            wanted.description,
            json.dumps(dict(wanted.headers)),
            [vault.seal(secret, owner_of(endpoint_id))],
            MAX_ENDPOINTS,
            _new_signing_keys(vault, wanted.signature, endpoint_id),
            wanted.verify,
            wanted.ordered,
            wanted.batch_size,
        )
    if row is None:
        raise Refusal("invalid_request", f"There are {MAX_ENDPOINTS} endpoints already. Delete one first.")
    return _endpoint(row), secret


async def list_page(
    database: Database, *, principal_id: int, after: UUID | None, limit: int
) -> list[Endpoint]:
    """Return up to `limit` endpoints behind `after`, oldest first."""
    rows = await database.fetch(_sql.list_webhook_endpoints, principal_id, after or _START, limit)
    return [_endpoint(row) for row in rows]


async def find(database: Connection | Database, *, principal_id: int | None, endpoint_id: UUID) -> Endpoint:
    """Return one endpoint. Raises Refusal `not_found`, for another principal's too (None: operators see all)."""
    row = await database.fetchrow(_sql.find_webhook_endpoint, principal_id, endpoint_id)
    if row is None:
        raise _missing(endpoint_id)
    return _endpoint(row)


async def update(
    database: Database,
    destinations: Destinations,
    vault: Vault,
    *,
    principal_id: int,
    endpoint_id: UUID,
    changes: EndpointChanges,
    expected_revision: int | None = None,
) -> Endpoint:
    """Make the changes, and return the endpoint as it is then.

    Deliveries that were kept for an endpoint while it was off are sent by a recovery only. Another URL has to prove
    itself, if the endpoint wants that. Raises Refusal like `create`, `not_found`, `precondition_failed` when it has not
    the expected revision, and `endpoint_unverified` when it shall be switched on before its URL is proven.
    """
    if changes.url is not None:
        destinations.check_url(changes.url)
    if changes.event_types is not None:
        check_patterns(changes.event_types, field="event_types")
    if changes.headers is not None:
        check_headers(changes.headers)
    with _ordered_or_batched():
        async with _locked(database, principal_id, endpoint_id, expected_revision) as connection:
            if changes._replace(enabled=None) == EndpointChanges():
                endpoint = await find(connection, principal_id=principal_id, endpoint_id=endpoint_id)
            else:
                endpoint = await _changed(connection, vault, principal_id, endpoint_id, changes)
            return await _switched_by_owner(connection, endpoint, enabled=changes.enabled)


async def _changed(
    connection: Connection, vault: Vault, principal_id: int, endpoint_id: UUID, changes: EndpointChanges
) -> Endpoint:
    row = await connection.fetchrow(
        _sql.update_webhook_endpoint,
        principal_id,
        endpoint_id,
        changes.url,
        None if changes.event_types is None else sorted(set(changes.event_types)),
        changes.description,
        None if changes.headers is None else json.dumps(dict(changes.headers)),
        None if changes.signature is None else _new_signing_keys(vault, changes.signature, endpoint_id),
        changes.verify,
        changes.ordered,
        changes.batch_size,
    )
    if row is None:
        raise _missing(endpoint_id)
    return _endpoint(row)


async def _switched_by_owner(connection: Connection, endpoint: Endpoint, *, enabled: bool | None) -> Endpoint:
    # A challenge switches on an endpoint that is off as unverified, and must not do so after its owner switched it off.
    if enabled or (enabled is False and endpoint.disabled_reason in {None, UNVERIFIED}):
        return await switch(connection, endpoint.id, None if enabled else BY_OWNER)
    return endpoint


async def switch(connection: Connection, endpoint_id: UUID, off_for: str | None) -> Endpoint:
    """Switch an endpoint off for a reason, or on (None), which forgets its failures; return it as it is then.

    The caller knows that the endpoint exists and holds its row. Raises Refusal `endpoint_unverified` when it shall be
    on and its URL has yet to prove itself.
    """
    row = await connection.fetchrow(_sql.switch_webhook_endpoint, endpoint_id, off_for)
    if row is None:
        raise Refusal("endpoint_unverified", "The URL has yet to echo a challenge. Have it challenged first.")
    return _endpoint(row)


async def rotate_secret(
    database: Database,
    vault: Vault,
    *,
    principal_id: int,
    endpoint_id: UUID,
    secret: str | None,
    overlap_seconds: float,
    expected_revision: int | None = None,
) -> Rotated:
    """Give an endpoint a new secret, and a new pair of keys if it has one; return the secret and the old ones' end.

    Until that end deliveries carry both signatures: all in Standard Webhooks, the oldest secret's in the wallet form.
    Raises Refusal `invalid_request` for a weak secret, `not_found`, `precondition_failed` like `update`, and
    `too_many_secrets` when another one would end the oldest before its time.
    """
    if secret is not None:
        check_secret(secret)
    chosen = secret or new_secret()
    async with _locked(database, principal_id, endpoint_id, expected_revision) as connection:
        row = await connection.fetchrow(
            _sql.rotate_webhook_secret,
            principal_id,
            endpoint_id,
            vault.seal(chosen, owner_of(endpoint_id)),
            overlap_seconds,
            *_new_signing_keys(vault, ASYMMETRIC, endpoint_id),
            MAX_SECRETS,
        )
        if row is None:
            found = await find(connection, principal_id=principal_id, endpoint_id=endpoint_id)
            raise Refusal(
                "too_many_secrets",
                f"{MAX_SECRETS} secrets count already, until {found.old_secrets_until}. Wait for that, or end the old"
                " ones with overlap_seconds 0.",
            )
    return Rotated(chosen, _public_key(row), row["old_secrets_until"], row["revision"])


async def delete(
    database: Database, *, principal_id: int, endpoint_id: UUID, expected_revision: int | None = None
) -> None:
    """Delete one endpoint. Deliveries still due to it fail as `endpoint_missing`.

    Raises Refusal `not_found`, and `precondition_failed` like `update`.
    """
    async with _locked(database, principal_id, endpoint_id, expected_revision) as connection:
        await connection.execute(_sql.delete_webhook_endpoint, principal_id, endpoint_id)


@asynccontextmanager
async def _locked(
    database: Database, principal_id: int, endpoint_id: UUID, expected_revision: int | None
) -> AsyncIterator[Connection]:
    """Open a transaction that holds the endpoint's row, so that of two changes of one revision one is refused."""
    async with database.transaction() as connection:
        revision = await connection.fetchval(_sql.lock_webhook_endpoint, principal_id, endpoint_id)
        if revision is None:
            raise _missing(endpoint_id)
        expect_revision(revision, expected_revision, f"Endpoint {endpoint_id}")
        yield connection


async def reseal(database: Database, vault: Vault) -> Resealed:
    """Seal all secrets and signing keys anew under the first key of `vault`."""
    done = lost = 0
    after = _START
    while rows := await database.fetch(_sql.endpoints_to_reseal, after, RESEALED):
        for row in rows:
            after, owner = row["id"], owner_of(row["id"])
            try:
                secrets = [vault.reseal(stored, owner) for stored in row["secrets"]]
                keys = [
                    sealed_signing_key(vault, opened_signing_key(vault, stored, owner), owner)
                    for stored in row["signing_keys"]
                ]
            except SealedError:
                lost += 1
                continue
            done += await database.execute(
                _sql.reseal_endpoint, after, row["secrets"], row["signing_keys"], secrets, keys
            )
    return Resealed(done, lost)


@contextmanager
def _ordered_or_batched() -> Iterator[None]:
    """Turn the database's no into a refusal: the events of one message do not go one after the other."""
    try:
        yield
    except asyncpg.CheckViolationError as error:
        if error.constraint_name != "webhook_endpoints_ordered_or_batched":
            raise
        raise Refusal(
            "invalid_request",
            "An endpoint may ask for order or for batches, not for both.",
            field="batch_size",
        ) from None


def _missing(endpoint_id: UUID) -> Refusal:
    return Refusal("not_found", f"There is no endpoint {endpoint_id}.")


def _new_signing_keys(vault: Vault, signature: str, endpoint_id: UUID) -> list[str]:
    if signature != ASYMMETRIC:
        return []
    return [sealed_signing_key(vault, new_signing_key(), owner_of(endpoint_id))]


def _public_key(row: Row) -> str | None:
    return stored_public_key(row["signing_keys"][0]) if row["signing_keys"] else None


def _endpoint(row: Row) -> Endpoint:
    headers: dict[str, Any] = json.loads(row["headers"])
    return Endpoint(
        row["id"],
        row["url"],
        tuple(row["event_types"]),
        row["description"],
        tuple(sorted(headers)),
        ASYMMETRIC if row["signing_keys"] else SYMMETRIC,
        _public_key(row),
        row["ordered"],
        row["batch_size"],
        row["verify"],
        row["verified_at"],
        row["created_at"],
        row["old_secrets_until"],
        row["disabled_at"],
        row["disabled_reason"],
        row["failing_since"],
        row["failed_deliveries"],
        row["revision"],
    )
