"""The bodies that the routes of endpoints read and answer."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

import msgspec

from core.outbox.batching import MAX_BATCH_SIZE
from core.outbox.custom_headers import MAX_HEADERS
from core.outbox.destinations import MAX_URL_LENGTH
from core.outbox.endpoints import MAX_DESCRIPTION, MAX_OVERLAP_SECONDS
from handlers.webhooks.outbox_parts import EventPattern

Url = Annotated[
    str,
    msgspec.Meta(
        min_length=1,
        max_length=MAX_URL_LENGTH,
        description="The URL that deliveries are posted to; https, and a public address.",
    ),
]
Patterns = Annotated[
    list[EventPattern],
    msgspec.Meta(
        max_length=100,
        description="The types it wants, such as payment.succeeded or requests.*; none means all.",
    ),
]
Description = Annotated[str, msgspec.Meta(max_length=MAX_DESCRIPTION)]
Headers = Annotated[
    dict[str, str],
    msgspec.Meta(
        max_length=MAX_HEADERS, description="Sent with every delivery. Their values are never shown again."
    ),
]
Signature = Annotated[
    Literal["v1", "v1a"],
    msgspec.Meta(
        description=(
            "v1a: beside the signatures v1 (HMAC) deliveries carry v1a (ed25519), which is checked with `public_key`."
        )
    ),
]
Verify = Annotated[
    bool,
    msgspec.Meta(
        description=(
            "Nothing is sent until the URL has echoed a challenge. A challenge follows each new URL, and each demand."
        )
    ),
]
BatchSize = Annotated[
    int,
    msgspec.Meta(
        ge=1,
        le=MAX_BATCH_SIZE,
        description="Events that one message may carry, as `batch`; 1: no batches. Not together with `ordered`.",
    ),
]
Ordered = Annotated[
    bool,
    msgspec.Meta(
        description=(
            "The events of one object go one after the other: one that is tried again holds back those after it."
        )
    ),
]
Secret = Annotated[
    str,
    msgspec.Meta(
        max_length=100, description="whsec_ and 24 to 64 random bytes in base64; when absent, one is made."
    ),
]


class EndpointBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An endpoint to create."""

    url: Url
    event_types: Patterns = []
    description: Description = ""
    headers: Headers = {}
    signature: Signature = "v1"
    ordered: Ordered = False
    batch_size: BatchSize = 1
    verify: Verify = False
    secret: Secret | None = None


class EndpointChange(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Changes of an endpoint; a field that is left out or null stays as it is."""

    url: Url | None = None
    event_types: Patterns | None = None
    description: Description | None = None
    headers: Headers | None = None
    signature: Signature | None = None
    ordered: Ordered | None = None
    batch_size: BatchSize | None = None
    verify: Verify | None = None
    enabled: bool | None = None


class Rotation(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A new secret for an endpoint. `overlap_seconds` 0 ends the old one at once, for one that has leaked."""

    secret: Secret | None = None
    overlap_seconds: Annotated[int, msgspec.Meta(ge=0, le=MAX_OVERLAP_SECONDS)] = 86_400


class EndpointView(msgspec.Struct, frozen=True, kw_only=True):
    """An endpoint as it is shown. `public_key` is `whpk_` and 32 bytes in base64, null unless it asked for v1a.

    `disabled_reason`: `by_owner`, `by_admin`, `gone` (it answered 410), `failing` or `unverified`. `failing_since` is
    the first failure since the last success, `failed_deliveries` how many deliveries were given up since then.
    """

    id: UUID
    url: str
    event_types: list[str]
    description: str
    header_names: list[str]
    signature: str
    public_key: str | None
    ordered: bool
    batch_size: int
    verify: bool
    verified_at: datetime | None
    created_at: datetime
    enabled: bool
    disabled_at: datetime | None
    disabled_reason: str | None
    failing_since: datetime | None
    failed_deliveries: int
    old_secrets_until: datetime | None
    revision: int


class NewEndpointView(EndpointView, frozen=True, kw_only=True):
    """An endpoint just created, with its secret, which is shown this once."""

    secret: str


class SecretView(msgspec.Struct, frozen=True):
    """A new secret, shown this once. Until `old_secrets_until` deliveries are signed with the old one, too.

    `public_key` is new as well, for an endpoint that has one.
    """

    secret: str
    public_key: str | None
    old_secrets_until: datetime
    revision: int


class TestView(msgspec.Struct, frozen=True):
    """A test on its way: its `webhook-id`, and the id of its delivery."""

    event: str
    delivery: UUID


class EndpointPage(msgspec.Struct, frozen=True):
    """A page of endpoints, oldest first; `next` continues the list as `after`, null at its end."""

    data: list[EndpointView]
    next: UUID | None


class EndpointQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A page of the list."""

    after: UUID | None = None
    limit: Annotated[int, msgspec.Meta(ge=1, le=100)] = 50
