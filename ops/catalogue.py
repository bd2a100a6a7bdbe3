"""The catalogue of refusals, docs/errors.md, made of the tables that answer them: `python -m ops.catalogue`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from core.ledger.outcomes import OUTCOMES_BY_CODE
from handlers.http.problems import PROBLEMS, ProblemType
from handlers.payments.kaspi.problems import KASPI_PROBLEMS
from handlers.payments.orders.problems import ORDER_PROBLEMS
from handlers.wallets.problems import CONTRACT_PROBLEMS

_HEAD = """\
# Refusals

This page is written by `python -m ops.catalogue > docs/errors.md` from the tables that the service answers with; a test
holds the two together. A running service tells the meaning of one code at `/problems/<code>`.

A refusal is a problem document (RFC 9457): `title` is the same for every occurrence, `detail` is a sentence about this
one, `error.code` is the word for machines (in the wallets' routes `code`, beside the older `error.code` of the form
`http_400`). Some codes add members of their own, such as the `account`. `X-Request-ID` of the answer finds the line in
the log.

## By status

| status | meaning | the caller |
|---|---|---|
"""
# The meaning of each status, and the thing to do; a status without a row fails the test.
STATUSES = {
    400: ("the request does not fit, or a rule says no", "mends the request; the same one is refused again"),
    401: ("nobody knows who calls", "signs in again, or sends the right key or signature"),
    403: ("the caller may not do this", "asks for another scope, level or role"),
    404: ("there is nothing of this name, for this caller", "checks the id"),
    405: ("the path has no such method", "looks into `Allow`"),
    408: ("the body came too slowly", "sends it again"),
    409: ("the state of something forbids it", "reads the state again and decides"),
    410: ("it is not kept any more", "goes on with what is kept"),
    412: ("it was changed since it was read", "reads it again, and sends its new `ETag` in `If-Match`"),
    413: ("the body is too large", "sends less at once"),
    415: ("the body is no JSON by its media type", "sends `Content-Type: application/json`"),
    422: ("it is well said, and cannot be done with these amounts or values", "changes them"),
    429: ("too much in a short time", "waits for `Retry-After`, then sends the same again"),
    500: ("a mistake of ours", "sends the same again under the same key, and tells us the request id"),
    502: (
        "a provider has refused, could not be reached, or has given an answer that makes no sense",
        "reads the sentence; asks how the payment stands, or sends a new order",
    ),
    503: ("not now", "waits for `Retry-After`, then sends the same again under the same key"),
}
_LEDGER = """
## /v1, webhooks and the service itself

A refusal that is **kept** stays under its idempotency key: the same call gets it again for ever, and another try wants
a new key. All others leave the key free.

| code | status | title | kept | meaning |
|---|---|---|---|---|
"""
_WALLETS = """
## The wallets

The titles are the sentences that clients of the wallets know. All other codes are those of the table above.

| code | status | title |
|---|---|---|
"""
_ORDERS = """
## Merchants' orders

The titles are the sentences that shops know. The create route refuses with 400, 401 or 502 alone: the waiting statuses
408, 429, 500 and 503 are 502 there, with `Retry-After` where one is known, and all others are 400.

| code | status | title |
|---|---|---|
"""
_KASPI = """
## Kaspi

The refusals of Kaspi payments. All other codes are those of the first table.

| code | status | title |
|---|---|---|
"""


def catalogue() -> str:
    """Return the text of the page."""
    tables = (PROBLEMS, CONTRACT_PROBLEMS, ORDER_PROBLEMS, KASPI_PROBLEMS)
    used = sorted({kind.status for table in tables for kind in table.values()})
    parts = [_HEAD, *(f"| {status} | {' | '.join(STATUSES[status])} |\n" for status in used)]
    parts += [_LEDGER, *_ledger_rows(), _WALLETS, *_rows(CONTRACT_PROBLEMS), _ORDERS, *_rows(ORDER_PROBLEMS)]
    parts += [_KASPI, *_rows(KASPI_PROBLEMS)]
    return "".join(parts)


def _ordered(table: Mapping[str, ProblemType]) -> list[tuple[str, ProblemType]]:
    return sorted(table.items(), key=lambda item: (item[1].status, item[0]))


def _ledger_rows() -> Iterator[str]:
    for code, kind in _ordered(PROBLEMS):
        outcome = OUTCOMES_BY_CODE.get(code)
        kept, meaning = ("", "") if outcome is None else ("kept" if outcome.freezes else "", outcome.meaning)
        yield f"| `{code}` | {kind.status} | {kind.title} | {kept} | {meaning} |\n"


def _rows(table: Mapping[str, ProblemType]) -> Iterator[str]:
    for code, kind in _ordered(table):
        yield f"| `{code}` | {kind.status} | {kind.title} |\n"


if __name__ == "__main__":
    print(catalogue(), end="")  # noqa: T201 - the page is the output
