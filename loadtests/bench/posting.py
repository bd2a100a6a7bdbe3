"""How the benchmark calls the posting function without HTTP: the one file that knows `ledger_post` and its tables."""

import random
import uuid
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple

from loadtests.bench.clients.workload import ACCOUNT_PREFIX, HOT_ACCOUNT, WIDTHS
from loadtests.bench.subject import Books, Connection

#: Items of one call when a ledger is filled. As many as the lane gathers at 64 connections: batches leave rows of their
#: own, so a ledger filled by the thousand would be smaller and faster to search than a grown one.
FILL_ITEMS = 64
#: Batches that one call of the sequencer numbers.
SEAL_BATCHES = 500

# One transfer of two legs by principal 1. {payer} and {payee} are expressions of the accounts' codes, {amount} is the
# caller's way to write a parameter.
_SINGLE = """
SELECT outcomes[1] AS outcome FROM ledger_post(
    ARRAY[gen_random_uuid()], '{{0}}', '{{7}}', '{{7}}', '{{1}}', '{{payment}}', '{{1}}', '{{2}}',
    ARRAY[{payer}, {payee}], '{{1,2}}', ARRAY[-{amount}::bigint, {amount}::bigint],
    NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, FALSE
)
"""
# $1 ids, $2 and $3 first and last leg of each item, $4 codes of accounts, $5 and $6 account and amount of each leg,
# $7 how many, $8 kind of all, $9 references or null.
_MANY = """
SELECT outcomes FROM ledger_post(
    $1::uuid[], array_fill(0::smallint, ARRAY[$7::integer]), array_fill(7::bigint, ARRAY[$7::integer]),
    array_fill(7::bigint, ARRAY[$7::integer]), array_fill(1, ARRAY[$7::integer]),
    array_fill($8::text, ARRAY[$7::integer]), $2::integer[], $3::integer[], $4::text[], $5::integer[],
    $6::bigint[], NULL, NULL, NULL, NULL, NULL, NULL, $9::text[], NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, FALSE
)
"""
_BOOKS = """
SELECT
    (SELECT count(*) FROM accounts WHERE code <> $1) AS accounts,
    (SELECT count(*) FROM transfers) AS transfers,
    (SELECT count(*) FROM entries) AS entries,
    (SELECT coalesce(floor(extract(epoch FROM min(recorded_at))), 0)::bigint FROM batches) AS earliest,
    (SELECT coalesce(ceil(extract(epoch FROM max(recorded_at))), 1)::bigint FROM batches) AS latest
"""
_SEALED = "SELECT coalesce((SELECT max(seq) FROM batches), 0) <= (SELECT batch FROM feed_head)"
_SEAL = "SELECT ledger_seal($1)"


class Payment(NamedTuple):
    """One transfer of two legs, between the accounts of these codes."""

    id: uuid.UUID
    payer: str
    payee: str
    amount: int
    reference: str | None = None


class PostingError(Exception):
    """The ledger refused what the benchmark posts, so nothing that follows would mean anything."""


def pgbench_script(books: Books, *, hot: bool) -> str:
    """One transfer a transaction, uniform over the accounts or always from the hot one. A refusal ends the client."""
    call = _SINGLE.format(
        payer=f"'{HOT_ACCOUNT}'" if hot else _code_of(":payer"), payee=_code_of(":payee"), amount=":amount"
    )
    lines = [] if hot else [f"\\set payer random(1, {books.accounts})"]
    payee = f"1 + (:payer - 1 + random(1, {books.accounts - 1})) % {books.accounts}"
    lines.append(f"\\set payee random(1, {books.accounts})" if hot else f"\\set payee {payee}")
    check = f"SELECT 1 / (outcome = 0)::integer FROM ({call.strip()}) AS posted;"  # noqa: S608 - both parts are ours
    return "\n".join([*lines, "\\set amount random(100, 999)", " ".join(check.split()), ""])


def _code_of(number: str) -> str:
    return f"'{ACCOUNT_PREFIX}' || lpad({number}::text, {WIDTHS['from']}, '0')"


def code(number: int) -> str:
    """The code of the account of this number, from 1."""
    return f"{ACCOUNT_PREFIX}{number:0{WIDTHS['from']}}"


async def direct(connection: Connection, books: Books, seed: int) -> Callable[[], Awaitable[object]]:
    """A call that posts one uniform transfer with a prepared statement; it raises PostingError on a refusal."""
    prepared = await connection.prepare(_SINGLE.format(payer="$1", payee="$2", amount="$3"))
    draw = random.Random(seed)

    async def call() -> None:
        payer, payee = draw.sample(range(1, books.accounts + 1), 2)
        outcome = await prepared.fetchval(code(payer), code(payee), draw.randint(100, 999))
        if outcome != 0:
            raise PostingError(f"a transfer was refused with outcome {outcome}")

    return call


async def post_many(connection: Connection, accounts: Sequence[int], items: int, draw: random.Random) -> None:
    """Posts transfers between the accounts of these numbers in one call and one commit."""
    pairs = [draw.sample(accounts, 2) for _ in range(items)]
    amounts = [draw.randint(100, 999) for _ in pairs]
    await post_payments(
        connection,
        "payment",
        [
            Payment(uuid.UUID(int=draw.getrandbits(128)), code(payer), code(payee), amount)
            for (payer, payee), amount in zip(pairs, amounts, strict=True)
        ],
    )


async def post_payments(connection: Connection, kind: str, payments: Sequence[Payment]) -> None:
    """Posts payments in one call and one commit; either all of them have a reference, or none."""
    codes = {code for payment in payments for code in (payment.payer, payment.payee)}
    places = {code: place for place, code in enumerate(sorted(codes), start=1)}
    references = [payment.reference for payment in payments]
    outcomes = await connection.fetchval(
        _MANY,
        [payment.id for payment in payments],
        list(range(1, 2 * len(payments), 2)),
        list(range(2, 2 * len(payments) + 1, 2)),
        list(places),
        [places[code] for payment in payments for code in (payment.payer, payment.payee)],
        [amount for payment in payments for amount in (-payment.amount, payment.amount)],
        len(payments),
        kind,
        None if None in references else references,
    )
    if any(outcomes):
        raise PostingError(f"a transfer was refused with outcome {max(outcomes)}")


async def seal_all(connection: Connection) -> None:
    """Numbers and seals whatever was posted, as the worker would."""
    while await connection.fetchval(_SEAL, SEAL_BATCHES):
        pass


async def is_sealed(connection: Connection) -> bool:
    """Whether the sequencer has caught up."""
    return bool(await connection.fetchval(_SEALED))


async def books(connection: Connection) -> Books:
    """Counts what is there; raises PostingError where there are no accounts."""
    row = await connection.fetchrow(_BOOKS, HOT_ACCOUNT)
    if row is None or not row["accounts"]:
        raise PostingError("the accounts of the benchmark do not exist")
    return Books(**dict(row))
