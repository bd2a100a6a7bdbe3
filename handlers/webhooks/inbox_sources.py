"""Sources over HTTP: a principal registers senders of webhooks and the keys that they sign with."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

import msgspec
from aiohttp import web
from msgspec import UNSET, Meta, UnsetType

from core.inbox import locations, plain_hmac, sources
from handlers.http.conditions import etag, expected_revision
from handlers.http.route import Call, Route, answer, cut, table

TAG = "webhook sources"

Name = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=40,
        pattern=sources.NAME_PATTERN,
        description="The last part of its address, /webhooks/in/{name}; never used for another source.",
    ),
]
Description = Annotated[str, Meta(max_length=sources.MAX_DESCRIPTION)]
Location = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=locations.MAX_LENGTH,
        pattern=locations.PATTERN,
        description="`header:X-Name`, or a JSON pointer into the body such as `/data/id`.",
    ),
]
Secret = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=sources.MAX_SECRET,
        description=(
            "standard: whsec_ and 24 to 64 bytes in base64; standard_ed25519: the sender's public key, whpk_ and 32"
            " bytes in base64; hmac: 16 to 256 visible ASCII characters. When absent, one is made (not for"
            " standard_ed25519)."
        ),
    ),
]


class SignatureBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The form of a plain signature: the HMAC of the raw body in one header."""

    header: Annotated[str, Meta(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9-]+$")]
    algorithm: Literal["sha256", "sha512"] = "sha256"
    encoding: Literal["hex", "base64"] = "hex"
    prefix: Annotated[
        str,
        Meta(
            max_length=plain_hmac.MAX_PREFIX_LENGTH,
            pattern=r"^[!-~]*$",
            description="The text before the signature, such as `sha256=`.",
        ),
    ] = ""


class SourceBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A source to register. `signature` and `event_id` belong to the kind hmac, which needs both."""

    name: Name
    kind: sources.Kind = "standard"
    description: Description = ""
    secret: Secret | None = None
    signature: SignatureBody | None = None
    event_id: Annotated[
        list[Location],
        Meta(max_length=sources.MAX_ID_PARTS, description="Places of the event's id; several are joined."),
    ] = []
    event_type: Location = "/type"
    object_id: Location | None = None
    occurred_at: Location | None = None


class SourceChange(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The changes to a source; absent fields stay as they are. Its sender gets 404 while it is not enabled."""

    enabled: bool | None = None
    description: Description | None = None
    signature: SignatureBody | None = None
    event_id: Annotated[list[Location], Meta(min_length=1, max_length=sources.MAX_ID_PARTS)] | None = None
    event_type: Location | None = None
    object_id: Location | UnsetType | None = UNSET
    occurred_at: Location | UnsetType | None = UNSET


class RotationBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A new key, and the time in seconds for which the previous key stays good."""

    secret: Secret | None = None
    overlap_seconds: Annotated[int, Meta(ge=0, le=sources.MAX_OVERLAP_SECONDS)] = 86_400


class SourceView(msgspec.Struct, frozen=True, kw_only=True):
    """A source as it is shown. `rotating_until` is the time at which the previous key ends, or has ended."""

    id: UUID
    name: str
    path: str
    kind: sources.Kind
    enabled: bool
    description: str
    signature: plain_hmac.Scheme | None
    event_id: list[str]
    event_type: str
    object_id: str | None
    occurred_at: str | None
    rotating_until: datetime | None
    created_at: datetime
    revision: int


class SourceWithSecret(SourceView, frozen=True, kw_only=True):
    """A source with its new secret, which is shown this once."""

    secret: str


class SourcePage(msgspec.Struct, frozen=True):
    """A page of sources, oldest first; `next` continues the list as `after`, null at its end."""

    data: list[SourceView]
    next: UUID | None


class SourceQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The page of a list."""

    after: UUID | None = None
    limit: Annotated[int, Meta(ge=1, le=100)] = 50


async def create_source(call: Call) -> web.Response:
    """Register a source of the caller's principal."""
    body: SourceBody = call.body
    options = sources.Options(
        signature=_scheme(body.signature),
        event_id=tuple(body.event_id),
        event_type=body.event_type,
        object_id=body.object_id,
        occurred_at=body.occurred_at,
    )
    source, secret = await sources.create(
        call.service.database,
        call.parts.outbound.vault,
        principal_id=call.caller.id,
        name=body.name,
        kind=body.kind,
        options=options,
        description=body.description,
        secret=body.secret,
    )
    call.parts.inbound.sources.forget(source.name)
    return answer(
        201,
        SourceWithSecret(secret=secret, **_fields(source)),
        {"Location": f"/v1/webhook-sources/{source.id}", **etag(source.revision)},
    )


async def list_sources(call: Call) -> web.Response:
    """List the sources of the caller's principal."""
    query: SourceQuery = call.query
    found = await sources.list_page(
        call.service.database, principal_id=call.caller.id, after=query.after, limit=query.limit + 1
    )
    page, more = cut(found, query.limit)
    views = [SourceView(**_fields(source)) for source in page]
    return answer(200, SourcePage(views, page[-1].id if more else None))


async def get_source(call: Call) -> web.Response:
    """Show one source."""
    source = await sources.find(
        call.service.database, principal_id=call.caller.id, source_id=call.path("source_id")
    )
    return answer(200, SourceView(**_fields(source)), etag(source.revision))


async def update_source(call: Call) -> web.Response:
    """Change one source."""
    body: SourceChange = call.body
    changes: dict[str, Any] = {
        name: value
        for name in ("event_type", "signature", "event_id")
        if (value := getattr(body, name)) is not None
    }
    changes |= {
        name: value for name in ("object_id", "occurred_at") if (value := getattr(body, name)) is not UNSET
    }
    if "signature" in changes:
        changes["signature"] = _scheme(body.signature)
    if "event_id" in changes:
        changes["event_id"] = tuple(changes["event_id"])
    source = await sources.update(
        call.service.database,
        principal_id=call.caller.id,
        source_id=call.path("source_id"),
        description=body.description,
        changes=changes,
        enabled=body.enabled,
        expected_revision=expected_revision(call.request),
    )
    call.parts.inbound.sources.forget(source.name)
    return answer(200, SourceView(**_fields(source)), etag(source.revision))


async def rotate_secret(call: Call) -> web.Response:
    """Give one source a new key."""
    body: RotationBody = call.body
    source, secret = await sources.rotate(
        call.service.database,
        call.parts.outbound.vault,
        principal_id=call.caller.id,
        source_id=call.path("source_id"),
        secret=body.secret,
        overlap_seconds=body.overlap_seconds,
        expected_revision=expected_revision(call.request),
    )
    call.parts.inbound.sources.forget(source.name)
    return answer(200, SourceWithSecret(secret=secret, **_fields(source)), etag(source.revision))


async def delete_source(call: Call) -> web.Response:
    """Delete one source."""
    name = await sources.delete(
        call.service.database,
        principal_id=call.caller.id,
        source_id=call.path("source_id"),
        expected_revision=expected_revision(call.request),
    )
    call.parts.inbound.sources.forget(name)
    return web.Response(status=204)


def _scheme(body: SignatureBody | None) -> plain_hmac.Scheme | None:
    if body is None:
        return None
    return plain_hmac.Scheme(body.header, body.algorithm, body.encoding, body.prefix)


def _fields(source: sources.Source) -> dict[str, Any]:
    options = source.options
    return {
        "id": source.id,
        "name": source.name,
        "path": f"/webhooks/in/{source.name}",
        "kind": source.kind,
        "enabled": source.enabled,
        "description": source.description,
        "signature": options.signature,
        "event_id": list(options.event_id),
        "event_type": options.event_type,
        "object_id": options.object_id,
        "occurred_at": options.occurred_at,
        "rotating_until": source.rotating_until,
        "created_at": source.created_at,
        "revision": source.revision,
    }


_SOURCE_ID: dict[str, Any] = {"source_id": UUID}

ROUTES = table(
    Route(
        "POST", "/v1/webhook-sources", create_source, "create_webhook_source", "Register a source of events",
        scope="webhooks:write", body=SourceBody, answers={201: SourceWithSecret}, problems=("source_exists",),
        description="Events posted to /webhooks/in/{name} from then on are verified and stored. The secret is "
        "shown in this answer only.",
        example={
            "name": "shop",
            "kind": "hmac",
            "signature": {"header": "X-Shopify-Hmac-Sha256", "encoding": "base64"},
            "event_id": ["header:X-Shopify-Event-Id"],
            "event_type": "header:X-Shopify-Topic",
        },
    ),
    Route(
        "GET", "/v1/webhook-sources", list_sources, "list_webhook_sources", "List sources",
        scope="webhooks:read", query=SourceQuery, answers={200: SourcePage},
    ),
    Route(
        "GET", "/v1/webhook-sources/{source_id}", get_source, "get_webhook_source", "Show a source",
        scope="webhooks:read", answers={200: SourceView}, problems=("not_found",),
    ),
    Route(
        "PATCH", "/v1/webhook-sources/{source_id}", update_source, "update_webhook_source", "Change a source",
        scope="webhooks:write", body=SourceChange, answers={200: SourceView}, problems=("not_found",),
        conditional=True,
        description="`enabled: false` switches it off: its events are refused with 404, and the sender tries again.",
    ),
    Route(
        "POST", "/v1/webhook-sources/{source_id}/secret/rotate", rotate_secret, "rotate_webhook_source_secret",
        "Give a source a new secret", scope="webhooks:write", body=RotationBody, answers={200: SourceWithSecret},
        problems=("not_found",), conditional=True,
        description="The secret before it stays good for `overlap_seconds`; the one before that ends at once.",
    ),
    Route(
        "DELETE", "/v1/webhook-sources/{source_id}", delete_source, "delete_webhook_source", "Delete a source",
        scope="webhooks:write", answers={204: None}, problems=("not_found",),
        conditional=True,
        description="Its keys are gone at once; its name stays taken, and what it has sent stays.",
    ),
    tag=TAG, parameters=_SOURCE_ID,
)  # fmt: skip
