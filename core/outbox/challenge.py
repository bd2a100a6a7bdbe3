"""The challenge that a URL answers to prove that its owner wants our events.

The challenge goes the way of every delivery (`core.outbox.egress`), signed with the endpoint's secrets, and never from
inside a transaction. Any 2xx with the challenge as its body, plain or as JSON, is the proof.
"""

from __future__ import annotations

import contextlib
import hmac
import json
import secrets as randomness
import time
from typing import TYPE_CHECKING, Final

import msgspec
import structlog

from core import ids
from core.database import queries
from core.errors import Refusal, expect_revision
from core.outbox.events import encode
from core.outbox.signing import message_id, opened_secrets, signed_headers

if TYPE_CHECKING:
    from uuid import UUID

    from core.database import Database
    from core.outbox.egress import Egress, Reply
    from core.vault import Vault

log = structlog.get_logger(__name__)
_sql = queries(__name__)

CHALLENGE_EVENT: Final = "webhook.challenge"
# So many random bytes cannot be guessed, and fit into the beginning of an answer that egress reads.
CHALLENGE_BYTES: Final = 32


class _Echo(msgspec.Struct):
    challenge: str


_echo = msgspec.json.Decoder(_Echo)


async def prove(
    database: Database,
    egress: Egress,
    vault: Vault,
    *,
    principal_id: int,
    endpoint_id: UUID,
    expected_revision: int | None = None,
) -> None:
    """Challenge the endpoint's URL once. An endpoint that was off as unverified is on when the URL has passed.

    Raises Refusal `not_found`, `precondition_failed` when the endpoint has not the expected revision, before or after
    the challenge, and `challenge_failed` when the URL has not echoed it, or another URL was set meanwhile.
    """
    row = await database.fetchrow(_sql.endpoint_to_challenge, principal_id, endpoint_id)
    if row is None:
        raise Refusal("not_found", f"There is no endpoint {endpoint_id}.")
    expect_revision(row["revision"], expected_revision, f"Endpoint {endpoint_id}")
    challenge = randomness.token_urlsafe(CHALLENGE_BYTES)
    body = encode(CHALLENGE_EVENT, {"endpoint": str(endpoint_id), "challenge": challenge})
    headers = json.loads(row["headers"]) | signed_headers(
        identity=message_id(ids.new_uuid()),
        event_type=CHALLENGE_EVENT,
        delivery_id=ids.new_uuid(),
        body=body,
        **opened_secrets(vault, endpoint_id, row["secrets"], row["signing_keys"]),
        timestamp=int(time.time()),
    )
    reply = await egress.post(row["url"], body=body, headers=headers)
    failure = _failure(reply, challenge)
    log.info("endpoint.challenged", endpoint_id=str(endpoint_id), status=reply.status, failure=failure)
    if failure is not None:
        raise Refusal("challenge_failed", f"The URL has not passed the challenge: {failure}.")
    if await database.fetchval(_sql.note_endpoint_proven, endpoint_id, row["url"], expected_revision) is None:
        row = await database.fetchrow(_sql.endpoint_to_challenge, principal_id, endpoint_id)
        if row is not None:
            expect_revision(row["revision"], expected_revision, f"Endpoint {endpoint_id}")
        raise Refusal("challenge_failed", "The endpoint was given another URL or deleted meanwhile.")


def _failure(reply: Reply, challenge: str) -> str | None:
    if reply.status is None:
        return reply.error
    if not reply.succeeded:
        return f"it answered {reply.status}"
    answers = [reply.excerpt.strip()]
    with contextlib.suppress(msgspec.MsgspecError):
        answers.append(_echo.decode(reply.excerpt).challenge)
    if any(hmac.compare_digest(answer.encode(), challenge.encode()) for answer in answers):
        return None
    return "it answered without the challenge"
