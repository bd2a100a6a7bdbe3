"""Callbacks: one POST of given bytes about one object, to an address of the object's own and not of a subscription.

A callback is written by the transaction that changes its object, and sent by the outbox like every other delivery: with
the same id and bytes at each attempt, claimed under a lease, recorded, tried again by the schedule of its surface, and
removed when it is old. It goes to an endpoint that no principal owns or sees, one for each surface, owner and origin
(scheme, host, port), which holds the secret that signs; the whole address and the further headers stand with the event.

The latest state of an object counts. A callback that waits is superseded by a later one; one that is under way goes
first, and is not tried again then.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from urllib.parse import urlsplit
from uuid import UUID

from core import ids
from core.database import queries
from core.outbox.custom_headers import MAX_HEADER_VALUE
from core.outbox.destinations import MAX_NAME_LENGTH, MAX_URL_LENGTH
from core.outbox.egress import TOTAL_TIMEOUT_SECONDS
from core.outbox.schedule import Schedule
from core.outbox.signing import new_secret, owner_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from core.database import Connection, Database, Row
    from core.outbox.egress import Egress, Reply
    from core.settings import Settings
    from core.vault import Vault

_sql = queries(__name__)

ORCHESTRATION: Final = "orchestration"
ORDERS: Final = "orders"
# The owner of the one receiver of all merchants of orders who have no address of their own.
EVERYBODY: Final = "all"

# No principal has this id, so nobody lists these endpoints, and no event is fanned out to them.
NOBODY: Final = -1
EVENT_TYPE: Final = "callback"
# A body is as long as an answer of its surface may be. A longer one fails at once.
MAX_BODY_BYTES: Final = 1024 * 1024
MAX_OWNER: Final = 512  # bytes
MAX_ERROR: Final = 1024
# Attempts that one look at an object's callbacks shows.
SHOWN_ATTEMPTS: Final = 1_000

# The old notifier of merchants made five attempts, half an hour apart, and went on for ever after answers of 5xx.
ORDERS_ATTEMPTS: Final = 5
ORDERS_WAIT_SECONDS: Final = 1_800.0

SUPERSEDED: Final = "superseded: A later callback has taken its place."
# The origin of an address that is none: its callbacks fail at once.
NOWHERE: Final = "nowhere:"
_PORTS: Final = {"https": 443, "http": 80}

# The states of a callback as the orchestration service numbered them.
NONE: Final = 0
PENDING: Final = 1
SUCCESS: Final = 10
FAILED: Final = 20
# Another character would end the header, and whoever chose the value would write the next one.
_NOT_IN_HEADERS: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_STATES: Final = {"delivered": SUCCESS, "failed": FAILED}

DISPATCHED: Final = "callback_dispatched"
DISPATCH_FAILED: Final = "callback_dispatch_failed"


class Callback(NamedTuple):
    """A POST of `body`, which is JSON, to `url`, about the object `object_id` of a surface.

    `owner` names whose receiver it is; receivers of one owner at one origin share a secret. The `headers` are stored
    as they are, so they hold no secret.
    """

    surface: str
    object_id: str
    owner: str
    url: str
    body: bytes
    headers: Mapping[str, str] = {}


class Request(NamedTuple):
    """The part of a callback that its claimed delivery brings beside the bytes."""

    surface: str
    url: str
    headers: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """The rules for the callbacks of one surface.

    Addresses that the operator has set may be private and without TLS: those at `trusted_hosts` (a host, or host:port)
    and `trusted_url`. The hosts also get `secret_headers`, which nobody else does.
    """

    schedule: Schedule
    timeout_seconds: float = TOTAL_TIMEOUT_SECONDS
    trusted_hosts: frozenset[str] = frozenset()
    trusted_url: str = ""
    secret_headers: Mapping[str, str] = field(default_factory=dict, repr=False)

    def trusts(self, url: str) -> bool:
        """Say whether the operator has named the host of an address."""
        parts = urlsplit(url)
        host = (parts.hostname or "").removesuffix(".")
        port = parts.port or _PORTS.get(parts.scheme)
        return not self.trusted_hosts.isdisjoint({host, f"{host}:{port}"}) and "@" not in parts.netloc


@dataclass(frozen=True, slots=True)
class Courier:
    """The way of callbacks through the sender: the kind of each surface, without any for a sender that knows none."""

    kinds: Mapping[str, Kind] = field(default_factory=dict)

    @classmethod
    def of(cls, settings: Settings) -> Courier:
        """Read PAYMENTS_CALLBACK_*, APP_API_KEY and MERCHANT_CALLBACK_URL."""
        most = settings.payments_callback_max_attempts
        wait = settings.payments_callback_retry_interval_minutes * 60.0
        key = settings.app_api_key
        return cls(
            {
                ORCHESTRATION: Kind(
                    schedule=Schedule(wait, 1.0, most, (wait,)),
                    timeout_seconds=settings.payments_callback_http_timeout_seconds,
                    trusted_hosts=frozenset(map(str.lower, settings.payments_callback_trusted_hosts)),
                    secret_headers={"X-API-Key": key} if key else {},
                ),
                ORDERS: Kind(
                    schedule=Schedule(ORDERS_WAIT_SECONDS, 1.0, ORDERS_ATTEMPTS, (ORDERS_WAIT_SECONDS,)),
                    trusted_url=settings.merchant_callback_url,
                ),
            }
        )

    @property
    def longer_seconds(self) -> float:
        """By how much a callback may take longer than an ordinary delivery."""
        longest = max((kind.timeout_seconds for kind in self.kinds.values()), default=0.0)
        return max(0.0, longest - TOTAL_TIMEOUT_SECONDS)

    def attempts(self) -> tuple[list[str], list[int]]:
        """Return the surfaces, and the most attempts at a callback of each."""
        return list(self.kinds), [kind.schedule.max_attempts for kind in self.kinds.values()]

    def schedule_of(self, request: Request | None, others: Schedule) -> Schedule:
        """Return the schedule of a callback, or that of all `others`."""
        kind = None if request is None else self.kinds.get(request.surface)
        return others if kind is None else kind.schedule

    async def post(self, egress: Egress, request: Request, body: bytes, signed: Mapping[str, str]) -> Reply:
        """Send a callback with its signed headers. The wallet form of the signature is not for its receivers."""
        kind = self.kinds.get(request.surface) or Kind(schedule=Schedule(0.0, 1.0, 1))
        trusted = kind.trusts(request.url)
        headers = {**request.headers, **{name: text for name, text in signed.items() if name[:2] != "X-"}}
        return await egress.post(
            request.url,
            body=body,
            headers={**headers, **kind.secret_headers} if trusted else headers,
            trusted=trusted or (bool(kind.trusted_url) and request.url == kind.trusted_url),
            timeout_seconds=kind.timeout_seconds,
        )


class Standing(NamedTuple):
    """How the latest callback of an object stands: NONE, PENDING, SUCCESS or FAILED, and the attempts that were made.

    A pending one that waits for its next attempt has `next_at`.
    """

    state: int = NONE
    attempts: int = 0
    last_error: str | None = None
    next_at: datetime | None = None
    finished_at: datetime | None = None


class Dispatch(NamedTuple):
    """One attempt, for a timeline: `kind` is DISPATCHED or DISPATCH_FAILED, `number` counts from 1 for each callback.

    `is_last` marks the last attempt at its callback so far; if that waits for another one, `next_at` is its time.
    """

    delivery_id: UUID
    kind: str
    number: int
    at: datetime
    status: int | None
    error: str | None
    body: bytes
    is_last: bool
    next_at: datetime | None
    is_over: bool


class Receiver(NamedTuple):
    """The servers that get the callbacks of a surface for one owner at one origin."""

    id: UUID
    surface: str
    owner: str
    origin: str
    created_at: datetime


async def write_callback(connection: Connection, vault: Vault, callback: Callback) -> UUID:
    """Write a callback in the caller's transaction, which holds the lock of the object; return its delivery's id.

    Wake `core.work.wakeup.DELIVERIES` after the commit. Nothing is refused here, because no address may keep an object
    from changing: a callback that cannot be sent has failed at once.
    """
    origin, objection = _origin_of(callback)
    endpoint_id = await _endpoint(connection, vault, callback.surface, _name_of(callback.owner), origin)
    object_id = callback.object_id
    behind = False
    if live := await connection.fetch(_sql.lock_callbacks, callback.surface, object_id):
        ended = [row["id"] for row in live if row["state"] != "leased"]
        await connection.execute(_sql.end_callbacks, ended, SUPERSEDED)
        # One that is under way goes first; whoever records its attempt lets this one go.
        behind = any(row["state"] == "leased" and row["endpoint_id"] == endpoint_id for row in live)
    await connection.execute(_sql.supersede_callbacks, callback.surface, object_id)
    delivery_id = ids.new_uuid()
    headers = {
        name: _NOT_IN_HEADERS.sub("?", text).strip()[:MAX_HEADER_VALUE]
        for name, text in callback.headers.items()
    }
    request = {"url": _stored(callback.url)[: 2 * MAX_URL_LENGTH], "headers": headers}
    await connection.execute(
        _sql.write_callback,
        ids.new_uuid(),
        delivery_id,
        endpoint_id,
        callback.surface,
        object_id,
        NOBODY,
        EVENT_TYPE,
        callback.body if len(callback.body) <= MAX_BODY_BYTES else b"",
        json.dumps(request),
        "failed" if objection else "waiting" if behind else "pending",
        objection,
    )
    return delivery_id


def objection_to(url: str) -> str | None:
    """Return why no callback can ever be sent to an address, None for one that can be."""
    return _origin_of(Callback("", "", "", url, b""))[1]


def request_of(row: Row) -> Request | None:
    """Return the request of a claimed delivery, None for one that is no callback."""
    if row["request"] is None or row["surface"] is None:
        return None
    request: dict[str, Any] = json.loads(row["request"])
    return Request(row["surface"], request["url"], request["headers"])


async def standings_of(
    source: Connection | Database, surface: str, object_ids: Sequence[str]
) -> dict[str, Standing]:
    """Return how the latest callback of each object stands; an object without one has the state NONE."""
    found = {object_id: Standing() for object_id in object_ids}
    for row in await source.fetch(_sql.callback_states, surface, list(found)):
        state = _STATES.get(row["state"], PENDING)
        error = None if state == SUCCESS else _error(row)
        found[row["object_id"]] = Standing(state, row["attempts"], error, row["next_at"], row["finished_at"])
    return found


async def dispatches_of(source: Connection | Database, surface: str, object_id: str) -> list[Dispatch]:
    """Return the attempts at an object's callbacks that are kept, the oldest first."""
    rows = await source.fetch(_sql.callback_attempts, surface, object_id, SHOWN_ATTEMPTS)
    found: list[Dispatch] = []
    for place, row in enumerate(rows):
        well = row["status"] is not None and 200 <= row["status"] < 300
        last = place + 1 == len(rows) or rows[place + 1]["delivery_id"] != row["delivery_id"]
        found.append(
            Dispatch(
                row["delivery_id"],
                DISPATCHED if well else DISPATCH_FAILED,
                row["number"],
                row["at"],
                row["status"],
                None if well else _error({"last_status": row["status"], "last_error": row["error"]}),
                row["body"],
                last,
                row["next_at"] if last else None,
                last and row["state"] in _STATES,
            )
        )
    return found


async def receivers(database: Database, *, after: UUID | None = None, limit: int = 100) -> list[Receiver]:
    """Return up to `limit` receivers of callbacks behind `after`, the oldest first."""
    rows = await database.fetch(_sql.list_callback_endpoints, after or UUID(int=0), limit)
    return [Receiver(row["id"], row["surface"], row["owner"], row["url"], row["created_at"]) for row in rows]


async def is_known(connection: Connection, surface: str, owner: str) -> bool:
    """Say whether an owner of callbacks exists here: as a merchant, the holder of a service's key, or a receiver."""
    everybody = (surface, owner) == (ORDERS, EVERYBODY)
    return everybody or await connection.fetchval(_sql.callback_owner_known, surface, _name_of(owner)) is True


async def secret_of(
    connection: Connection,
    vault: Vault,
    surface: str,
    owner: str,
    url: str,
    *,
    new: bool = False,
    secret: str | None = None,
) -> str:
    """Return the secret that signs callbacks of an owner to `url`; it is made if there is none, or if `new`.

    A given `secret` takes its place. The old one ends at once. Raises SealedError.
    """
    origin, _ = _origin_of(Callback(surface, "", owner, url, b""))
    endpoint_id = await _endpoint(connection, vault, surface, _name_of(owner), origin)
    name = owner_of(endpoint_id)
    if new or secret is not None:
        chosen = secret or new_secret()
        await connection.execute(_sql.rotate_callback_secret, endpoint_id, vault.seal(chosen, name))
        return chosen
    row = await connection.fetchrow(_sql.callback_endpoint, surface, _name_of(owner), origin)
    if row is None:
        raise LookupError(f"the receiver {endpoint_id} was stored and is gone")
    return vault.open(row["secrets"][0], name)


async def _endpoint(connection: Connection, vault: Vault, surface: str, owner: str, origin: str) -> UUID:
    """Return the id of the endpoint, which is made for the first callback."""
    row = await connection.fetchrow(_sql.callback_endpoint, surface, owner, origin)
    if row is None:
        made = ids.new_uuid()
        secret = vault.seal(new_secret(), owner_of(made))
        await connection.execute(_sql.create_callback_endpoint, made, NOBODY, surface, owner, origin, secret)
        # A twin may have been quicker; a statement of its own sees its commit.
        row = await connection.fetchrow(_sql.callback_endpoint, surface, owner, origin)
    if row is None:
        raise LookupError(f"the receiver of {owner!r} at {origin!r} was stored and is gone")
    found: UUID = row["id"]
    return found


def _origin_of(callback: Callback) -> tuple[str, str | None]:
    """Return scheme, host and port of the address, and why it can never be sent to, if so."""
    if len(callback.body) > MAX_BODY_BYTES:
        return NOWHERE, f"The body is longer than {MAX_BODY_BYTES} bytes."
    url = callback.url
    if len(url) > MAX_URL_LENGTH:
        return NOWHERE, f"The URL cannot be used: it is longer than {MAX_URL_LENGTH} characters."
    try:
        parts = urlsplit(url)
        scheme, host, port = parts.scheme, parts.hostname, parts.port or _PORTS.get(parts.scheme)
    except ValueError:
        scheme, host, port = "", None, None
    if (
        not host
        or len(host) > MAX_NAME_LENGTH
        or scheme not in _PORTS
        or not url.isascii()
        or not url.isprintable()
    ):
        return NOWHERE, "The URL cannot be used: it is not well-formed."
    return f"{scheme}://{host}:{port}", None


def _stored(text: str) -> str:
    """Return a text as the database can hold it: no text may keep a payment from changing."""
    return text.replace("\0", "").encode("utf-8", "ignore").decode()


def _name_of(owner: str) -> str:
    """Return an owner as a receiver has it."""
    return _stored(owner).encode()[:MAX_OWNER].decode("utf-8", "ignore") or "-"


def _error(row: Mapping[str, Any] | Row) -> str | None:
    """Return the last error in the words of the orchestration service."""
    if row["last_error"] == SUPERSEDED or row["last_status"] is None:
        error: str | None = row["last_error"]
        return None if error is None else error[:MAX_ERROR]
    return f"callback endpoint returned status={row['last_status']}"
