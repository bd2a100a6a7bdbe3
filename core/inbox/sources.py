"""Sources: senders registered at run time, with their form of signature, the locations of their ids, and their keys.

A key is stored so that it can be read again (`core.vault`), because signatures are computed with it. It is shown once,
when it is made or given.
"""

from __future__ import annotations

import re
import secrets as randomness
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, TypeAlias
from uuid import UUID

import msgspec

from core import ids
from core.database import queries
from core.errors import Refusal, expect_revision
from core.inbox import locations, plain_hmac, standard_webhooks
from core.vault import RESEALED, Resealed, SealedError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from core.database import Connection, Database, Row
    from core.vault import Vault

_sql = queries(__name__)

Kind: TypeAlias = Literal["standard", "standard_ed25519", "hmac"]

NAME_PATTERN: Final = r"^[a-z][a-z0-9-]{0,39}$"
MAX_DESCRIPTION: Final = 500
# No principal has so many senders. The bound holds for the metrics, too, which have a series for each source.
MAX_SOURCES: Final = 100
MAX_SECRET: Final = 1024
# One list of the command line shows at most so many sources.
MAX_LISTED: Final = 10_000
# After a week (in seconds) a sender that has not changed its key has forgotten it.
MAX_OVERLAP_SECONDS: Final = 604_800
NEW_SECRET_BYTES: Final = 32
# An event id is made of so many parts at most.
MAX_ID_PARTS: Final = 4
_START: Final = UUID(int=0)


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """The way in which a source's requests are read; the texts are locations (`core.inbox.locations`).

    Only sources of the kind `hmac` have `signature` and `event_id`, because Standard Webhooks fixes both.
    """

    signature: plain_hmac.Scheme | None = None
    event_id: tuple[str, ...] = ()
    event_type: str = "/type"
    object_id: str | None = None
    occurred_at: str | None = None


class Source(NamedTuple):
    """One source, without its keys. `rotating_until` is the time at which the previous key ends."""

    id: UUID
    name: str
    description: str
    kind: Kind
    options: Options
    enabled: bool
    rotating_until: datetime | None
    created_at: datetime
    revision: int


async def create(
    database: Database,
    vault: Vault,
    *,
    principal_id: int,
    name: str,
    kind: Kind,
    options: Options,
    description: str = "",
    secret: str | None = None,
) -> tuple[Source, str]:
    """Store a source and return it with its secret, which is never shown again.

    Raises Refusal `source_exists` for a name that any source has or had, and `invalid_request` for a weak or missing
    key, for options that do not fit the kind, and for more than MAX_SOURCES sources.
    """
    if re.fullmatch(NAME_PATTERN, name) is None:
        raise Refusal(
            "invalid_request", "A name has 1 to 40 letters a-z, digits and hyphens, a letter first."
        )
    _check_options(kind, options)
    chosen = _chosen_secret(kind, secret)
    row = await database.fetchrow(
        _sql.create_inbox_source,
        ids.new_uuid(),
        principal_id,
        name,
        description,
        kind,
        msgspec.json.encode(options).decode(),
        vault.seal(chosen, owner_of(name)),
        MAX_SOURCES,
    )
    if row is not None:
        return _source(row), chosen
    if await database.fetchval(_sql.inbox_source_name_taken, name):
        raise Refusal("source_exists", f"The name {name} is taken. Names of deleted sources stay taken.")
    raise Refusal("invalid_request", f"There are {MAX_SOURCES} sources already. Delete one first.")


async def list_page(database: Database, *, principal_id: int, after: UUID | None, limit: int) -> list[Source]:
    """Return up to `limit` sources behind `after`, oldest first."""
    rows = await database.fetch(_sql.list_inbox_sources, principal_id, after or _START, limit)
    return [_source(row) for row in rows]


async def list_all(database: Database) -> list[tuple[str, Source]]:
    """Return the first MAX_LISTED sources of all principals by name, each with the name of its principal."""
    rows = await database.fetch(_sql.list_all_inbox_sources, MAX_LISTED)
    return [(row["principal"], _source(row)) for row in rows]


async def find_by_name(database: Database, name: str) -> tuple[int, Source]:
    """Return the source of a name with the id of its principal. Raises Refusal `not_found`."""
    row = await database.fetchrow(_sql.find_inbox_source_by_name, name)
    if row is None:
        raise Refusal("not_found", f"There is no source {name!r}.")
    return row["principal_id"], _source(row)


async def principal_named(database: Database, name: str) -> int:
    """Return the id of a principal. Raises Refusal `not_found`."""
    found: int | None = await database.fetchval(_sql.principal_of_name, name)
    if found is None:
        raise Refusal("not_found", f"There is no principal {name!r}. `tallystick keys create` makes one.")
    return found


async def find(database: Database, *, principal_id: int, source_id: UUID) -> Source:
    """Return one source. Raises Refusal `not_found`, also for a source of another principal."""
    return _found(await database.fetchrow(_sql.find_inbox_source, principal_id, source_id), source_id)


async def update(
    database: Database,
    *,
    principal_id: int,
    source_id: UUID,
    description: str | None = None,
    changes: Mapping[str, Any] | None = None,
    enabled: bool | None = None,
    expected_revision: int | None = None,
) -> Source:
    """Change the values that are given; `changes` are fields of the options.

    Raises Refusal `not_found`, `invalid_request`, and `precondition_failed` when it has not the expected revision.
    """
    async with database.transaction() as connection:
        source = await _locked(connection, principal_id, source_id, expected_revision)
        if description is None and enabled is None and not changes:
            return source
        options = msgspec.structs.replace(source.options, **changes or {})
        _check_options(source.kind, options)
        row = await connection.fetchrow(
            _sql.update_inbox_source,
            principal_id,
            source_id,
            description,
            msgspec.json.encode(options).decode(),
            enabled,
        )
        return _found(row, source_id)


async def rotate(
    database: Database,
    vault: Vault,
    *,
    principal_id: int,
    source_id: UUID,
    secret: str | None,
    overlap_seconds: int,
    expected_revision: int | None = None,
) -> tuple[Source, str]:
    """Give a source a new key and return both; the previous key stays good for `overlap_seconds`, an older one ends.

    Raises Refusal `not_found`, `precondition_failed` like `update`, and `invalid_request` for a weak or missing key.
    """
    async with database.transaction() as connection:
        source = await _locked(connection, principal_id, source_id, expected_revision)
        chosen = _chosen_secret(source.kind, secret)
        sealed = vault.seal(chosen, owner_of(source.name))
        row = await connection.fetchrow(
            _sql.rotate_inbox_source, principal_id, source_id, sealed, float(overlap_seconds)
        )
        return _found(row, source_id), chosen


async def delete(
    database: Database, *, principal_id: int, source_id: UUID, expected_revision: int | None = None
) -> str:
    """Delete a source and its keys, and return its name; its events stay.

    Raises Refusal `not_found`, and `precondition_failed` like `update`.
    """
    async with database.transaction() as connection:
        source = await _locked(connection, principal_id, source_id, expected_revision)
        await connection.execute(_sql.delete_inbox_source, principal_id, source_id)
    return source.name


async def _locked(
    connection: Connection, principal_id: int, source_id: UUID, expected_revision: int | None
) -> Source:
    """Return the source and hold its row, so that of two changes of one revision one is refused."""
    source = _found(await connection.fetchrow(_sql.lock_inbox_source, principal_id, source_id), source_id)
    expect_revision(source.revision, expected_revision, f"Source {source.name}")
    return source


async def reseal(database: Database, vault: Vault) -> Resealed:
    """Seal all keys anew under the first key of `vault`."""
    done = lost = 0
    after = _START
    while rows := await database.fetch(_sql.sources_to_reseal, after, RESEALED):
        for row in rows:
            after, owner = row["id"], owner_of(row["name"])
            before = (row["secret"], row["previous_secret"])
            try:
                sealed = [stored and vault.reseal(stored, owner) for stored in before]
            except SealedError:
                lost += 1
                continue
            done += await database.execute(_sql.reseal_source, after, *before, *sealed)
    return Resealed(done, lost)


def owner_of(name: str) -> str:
    """Return the name under which the keys of a source are sealed."""
    return f"source:{name}"


def _check_options(kind: Kind, options: Options) -> None:
    if kind == "hmac" and (options.signature is None or not options.event_id):
        raise Refusal(
            "invalid_request", "A source of the kind hmac says in signature and event_id where both stand."
        )
    if kind != "hmac" and (options.signature is not None or options.event_id):
        raise Refusal(
            "invalid_request", f"A source of the kind {kind} has no signature and event_id to choose."
        )
    for place in (*options.event_id, options.event_type, options.object_id, options.occurred_at):
        if place is not None and (
            len(place) > locations.MAX_LENGTH or re.fullmatch(locations.PATTERN, place) is None
        ):
            raise Refusal(
                "invalid_request",
                f"{place[:80]!r} is no place in a request: header:X-Name, or a pointer like /data/id.",
            )
    if len(options.event_id) > MAX_ID_PARTS:
        raise Refusal("invalid_request", f"An event's id is made of {MAX_ID_PARTS} parts at most.")


def _chosen_secret(kind: Kind, given: str | None) -> str:
    """Return the given key, or a new one. Raises Refusal `invalid_request` for a malformed or weak key."""
    if given is None:
        if kind == "standard_ed25519":
            raise _bad_secret("the sender's public key is needed: whpk_ and 32 bytes in base64")
        return (
            standard_webhooks.new_secret() if kind == "standard" else randomness.token_hex(NEW_SECRET_BYTES)
        )
    try:
        if kind == "hmac":
            plain_hmac.check_secret(given)
        elif kind == "standard":
            standard_webhooks.secret_key(given)
        else:
            standard_webhooks.public_key(given)
    except ValueError as error:
        raise _bad_secret(str(error)) from None
    return given


def _bad_secret(reason: str) -> Refusal:
    return Refusal("invalid_request", f"The secret cannot be used: {reason}.", field="secret")


def _found(row: Row | None, source_id: UUID) -> Source:
    if row is None:
        raise _missing(source_id)
    return _source(row)


def _missing(source_id: UUID) -> Refusal:
    return Refusal("not_found", f"There is no source {source_id}.")


def _source(row: Row) -> Source:
    return Source(
        row["id"],
        row["name"],
        row["description"],
        row["kind"],
        read_options(row["options"]),
        row["disabled_at"] is None,
        row["previous_until"],
        row["created_at"],
        row["revision"],
    )


def read_options(text: str) -> Options:
    """Return the options as they are stored."""
    return msgspec.json.decode(text, type=Options)
