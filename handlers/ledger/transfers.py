"""Transfers over HTTP: posted alone or as a batch, reversed and found."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated, Any
from uuid import UUID

import msgspec
from aiohttp import web
from msgspec import Meta

from core import metrics
from core.access.guard import batch_cost
from core.access.keys import kept_spellings, plain_key
from core.errors import Refusal
from core.ledger import accounts, movements, transfers
from core.ledger.items import Outcome, Posting, operation_id, sentence
from core.ledger.movements import BatchPart, moment
from core.ledger.outcomes import OUTCOMES_BY_CODE
from core.ledger.transfers import NEWEST, ListedTransfer, Transfer, TransferFilter
from handlers.http.conditions import etag, expected_revision, reader
from handlers.http.route import MIB, Call, Route, answer, table
from handlers.http.times import Time
from handlers.ledger.access import check_debits
from handlers.ledger.bodies import (
    MAX_NAME,
    MAX_VALUE,
    AccountCode,
    BatchBody,
    Kind,
    Reference,
    ReversalBody,
    TransferBody,
    movement,
)

REPLAYED = {"Idempotent-Replayed": "true"}
TAG = "Transfers"

Limit = Annotated[int, Meta(ge=1, le=1_000, description="The most items of a page; 100 when absent.")]
Cursor = Annotated[
    str,
    Meta(
        pattern=r"^[0-9]{1,19}$",
        description="The `next` of the page before; absent for the first page.",
    ),
]

for _word in ("replayed", *OUTCOMES_BY_CODE):
    metrics.LEDGER_TRANSFERS.begin(_word)
_REFUSALS = tuple(code for code in OUTCOMES_BY_CODE if code != "posted")
_TRANSFER_REFUSALS = tuple(
    code
    for code in _REFUSALS
    if not code.startswith(
        ("hold_", "exceeds_", "transfer_not", "already_", "group_", "precondition_", "effective_before")
    )
)


class ItemFailure(msgspec.Struct, frozen=True, omit_defaults=True):
    """The refusal of an item."""

    code: str
    message: str
    account: str | None = None
    differs: tuple[str, ...] = ()


class BatchResult(msgspec.Struct, frozen=True, omit_defaults=True):
    """The outcome of one item, with `transfer` when the outcome is `posted`, else with `error`."""

    key: str
    outcome: str
    transfer: Transfer | None = None
    error: ItemFailure | None = None


class BatchAnswer(msgspec.Struct, frozen=True):
    """One result an item, in the order of the request."""

    posted: int
    refused: int
    results: list[BatchResult]


class TransferPage(msgspec.Struct, frozen=True):
    """A page of transfers, newest first; `next` is null on the last page."""

    data: list[ListedTransfer]
    next: str | None


class TransferQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The filters of a list of transfers."""

    account: AccountCode | None = None
    kind: Kind | None = None
    reference: Reference | None = None
    metadata: (
        Annotated[
            str,
            Meta(
                pattern=r"^.{1,40}:.{0,500}$",
                description="One pair, as `name:value`. Where there are several colons, each may be the one between "
                "name and value.",
            ),
        ]
        | None
    ) = None
    recorded_from: Time | None = None
    recorded_before: Time | None = None
    cursor: Cursor | None = None
    limit: Limit = 100


async def create_transfer(call: Call) -> web.Response:
    """Post one transfer."""
    body: TransferBody = call.body
    posting = movements.transfer(call.caller.id, _key(call), movement(body))
    await check_debits(call, [posting])
    poster = call.service.ledger.poster
    outcome = (await poster.dry_run([posting]))[0] if body.dry_run else await poster.submit(posting)
    _settle(call, outcome, dry_run=body.dry_run)
    return answer(200 if body.dry_run else 201, transfers.describe(posting, outcome), _replayed(outcome))


async def create_batch(call: Call) -> web.Response:
    """Post a batch of transfers."""
    body: BatchBody = call.body
    kept = await kept_spellings(call.service.database, call.caller.id, [item.key for item in body.transfers])
    parts = [
        BatchPart(item.key if item.key in kept else plain_key(item.key), movement(item), item.group)
        for item in body.transfers
    ]
    if not all(part.key for part in parts):
        raise Refusal("invalid_request", "The key of an item has a character other than blanks.")
    postings = movements.batch(call.caller.id, parts)
    await check_debits(call, postings)
    poster = call.service.ledger.poster
    outcomes = await (poster.dry_run(postings) if body.dry_run else poster.submit_many(postings))
    posted = sum(outcome.posted for outcome in outcomes)
    if not body.dry_run:
        _count(outcomes)
    results = [
        _result(item.key, posting, outcome)
        for item, posting, outcome in zip(body.transfers, postings, outcomes, strict=True)
    ]
    return answer(200, BatchAnswer(posted, len(results) - posted, results))


async def reverse_transfer(call: Call) -> web.Response:
    """Reverse a transfer, whole or in part."""
    body: ReversalBody = call.body
    posting = await transfers.prepare_reversal(
        call.service.database,
        call.path("transfer"),
        id_=operation_id(call.caller.id, _key(call)),
        principal_id=call.caller.id,
        amount=body.amount,
        kind=body.kind,
        reference=body.reference,
        metadata=body.metadata or None,
        effective_at=body.effective_at,
        expected_revision=expected_revision(call.request),
        administered="admin" in call.caller.scopes,
    )
    await check_debits(call, [posting])
    outcome = await call.service.ledger.poster.submit(posting)
    _settle(call, outcome)
    return answer(201, transfers.describe(posting, outcome), _replayed(outcome))


async def get_transfer(call: Call) -> web.Response:
    """Show one transfer."""
    found = await transfers.get_transfer(call.service.database, call.path("transfer"))
    return answer(200, found, etag(found.reversed))


async def list_transfers(call: Call) -> web.Response:
    """List transfers."""
    query: TransferQuery = call.query
    database = reader(call, "list", moment(query.recorded_before))
    wanted = TransferFilter(
        account=await accounts.get_account(database, query.account) if query.account is not None else None,
        recorded_from=moment(query.recorded_from),
        recorded_before=moment(query.recorded_before),
        kind=query.kind,
        reference=query.reference,
        metadata=list(_readings(query.metadata)) if query.metadata is not None else None,
    )
    page, more = await transfers.list_transfers(
        database, wanted, before=position(query.cursor), limit=query.limit
    )
    return answer(200, TransferPage([transfer for _, transfer in page], str(page[-1][0]) if more else None))


def _readings(pair: str) -> Iterator[dict[str, str]]:
    """Yield each name and value that `name:value` may mean, since either may have colons of its own."""
    for found in re.finditer(":", pair):
        name, value = pair[: found.start()], pair[found.end() :]
        if 1 <= len(name) <= MAX_NAME and len(value) <= MAX_VALUE:
            yield {name: value}


def position(cursor: str | None) -> int:
    """Return the position below which a page begins."""
    return min(int(cursor), NEWEST) if cursor is not None else NEWEST


def _key(call: Call) -> str:
    return call.idempotency_key or ""  # the dispatcher refuses a call without one on these routes


def _settle(call: Call, outcome: Outcome, *, dry_run: bool = False) -> None:
    """Count the outcome and note whether it is final under the key. Raises the refusal of an item that was refused."""
    if not dry_run:
        call.frozen = outcome.kind.freezes
        _count([outcome])
    if not outcome.posted:
        raise outcome.refusal()


def _count(outcomes: list[Outcome]) -> None:
    for outcome in outcomes:
        metrics.LEDGER_TRANSFERS.add("replayed" if outcome.replayed else outcome.kind.code)


def _replayed(outcome: Outcome) -> dict[str, str] | None:
    return REPLAYED if outcome.replayed else None


def _result(key: str, posting: Posting, outcome: Outcome) -> BatchResult:
    if outcome.posted:
        return BatchResult(key, outcome.kind.code, transfer=transfers.describe(posting, outcome))
    failure = ItemFailure(outcome.kind.code, sentence(outcome), outcome.account, outcome.differs)
    return BatchResult(key, outcome.kind.code, error=failure)


def _cost(body: Any) -> int:
    return batch_cost(len(body.transfers))


_ID = {"transfer": UUID}
_EXAMPLE = {
    "from": "customer:17",
    "to": "merchant:4",
    "amount": 1250,
    "kind": "payment",
    "reference": "order-981",
}

ROUTES = table(
    Route(
        "POST", "/v1/transfers", create_transfer, "create_transfer", "Post a transfer",
        scope="transfers:write", body=TransferBody, answers={201: Transfer, 200: Transfer}, idempotent=True,
        problems=_TRANSFER_REFUSALS,
        example=_EXAMPLE,
        description="All legs are posted or none. The answer carries each account's balance right after its entry. "
        "With `dry_run` nothing is kept, no key is used up, and the status is 200.",
    ),
    Route(
        "POST", "/v1/transfers/batch", create_batch, "create_transfers", "Post a batch of transfers",
        scope="transfers:write", body=BatchBody, body_limit=4 * MIB, answers={200: BatchAnswer}, cost=_cost,
        description="Up to 5,000 transfers and 20,000 legs, done in order, each with its own key and its own "
        "outcome. Neighbours with the same `group` are done together or not at all.",
    ),
    Route(
        "GET", "/v1/transfers", list_transfers, "list_transfers", "List transfers, newest first",
        scope="transfers:read", query=TransferQuery, answers={200: TransferPage}, problems=("account_not_found",),
    ),
    Route(
        "GET", "/v1/transfers/{transfer}", get_transfer, "get_transfer", "Show a transfer",
        scope="transfers:read", answers={200: ListedTransfer}, problems=("transfer_not_found",),
    ),
    Route(
        "POST", "/v1/transfers/{transfer}/reversals", reverse_transfer, "reverse_transfer", "Reverse a transfer",
        scope="transfers:write", body=ReversalBody, answers={201: Transfer}, idempotent=True,
        problems=(
            *_TRANSFER_REFUSALS, "transfer_not_found", "not_reversible", "already_reversed", "exceeds_reversible",
            "effective_before_original",
        ),
        description="All of it, or `amount` in minor units of its largest leg, the first of several. Reversals never "
        "exceed the transfer. Out of a frozen account only a key with the scope `admin` reverses.",
        conditional=True,
    ),
    tag=TAG, parameters=_ID,
)  # fmt: skip
