"""How the benchmark calls the posting function without HTTP: the one file that knows `ledger_post` and its tables."""

import random
import uuid
from collections.abc import Awaitable, Callable, Sequence

from loadtests.bench.subject import Books, Connection

#: Items of one call when a ledger is filled. As many as the lane gathers at 64 connections: batches leave rows of their
#: own, so a ledger filled by the thousand would be smaller and faster to search than a grown one.
FILL_ITEMS = 64
#: Batches that one call of the sequencer numbers.
SEAL_BATCHES = 500

# One transfer of two legs by principal 1. {payer}, {payee} and {amount} are the caller's way to write a parameter.
_SINGLE = """
SELECT outcomes[1] AS outcome FROM ledger_post(
    ARRAY[gen_random_uuid()], '{{0}}', '{{7}}', '{{7}}', '{{1}}', '{{payment}}', '{{1}}', '{{2}}',
    ARRAY[{payer}::bigint, {payee}::bigint], '{{1,2}}', ARRAY[-{amount}::bigint, {amount}::bigint],
    NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, FALSE
)
"""
# $1 ids, $2 and $3 first and last leg of each item, $4 accounts, $5 and $6 account and amount of each leg, $7 how many.
_MANY = """
SELECT outcomes FROM ledger_post(
    $1::uuid[], array_fill(0::smallint, ARRAY[$7::integer]), array_fill(7::bigint, ARRAY[$7::integer]),
    array_fill(7::bigint, ARRAY[$7::integer]), array_fill(1, ARRAY[$7::integer]),
    array_fill('payment'::text, ARRAY[$7::integer]), $2::integer[], $3::integer[], $4::bigint[], $5::integer[],
    $6::bigint[], NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, FALSE
)
"""
_BOOKS = """
SELECT
    (SELECT min(id) FROM accounts WHERE code <> $1) AS first_account,
    (SELECT max(id) FROM accounts WHERE code <> $1) AS last_account,
    (SELECT count(*) FROM accounts WHERE code <> $1) AS accounts,
    (SELECT id FROM accounts WHERE code = $1) AS hot_account,
    (SELECT count(*) FROM transfers) AS transfers,
    (SELECT count(*) FROM entries) AS entries,
    (SELECT coalesce(floor(extract(epoch FROM min(recorded_at))), 0)::bigint FROM batches) AS earliest,
    (SELECT coalesce(ceil(extract(epoch FROM max(recorded_at))), 1)::bigint FROM batches) AS latest
"""
_ENTRIES = "SELECT count(*) FROM entries"
_SEALED = "SELECT coalesce((SELECT max(seq) FROM batches), 0) <= (SELECT batch FROM feed_head)"
_SEAL = "SELECT ledger_seal($1)"


class PostingError(Exception):
    """The ledger refused what the benchmark posts, so nothing that follows would mean anything."""


def pgbench_script(books: Books, *, hot: bool) -> str:
    """One transfer a transaction, uniform over the accounts or always from the hot one. A refusal ends the client."""
    first, last = books.first_account, books.first_account + books.accounts - 1
    payer = f"\\set payer {books.hot_account}" if hot else f"\\set payer random({first}, {last})"
    other = f"{first} + (:payer - {first} + random(1, {books.accounts - 1})) % {books.accounts}"
    payee = f"random({first}, {last})" if hot else other
    call = _SINGLE.format(payer=":payer", payee=":payee", amount=":amount")
    check = f"SELECT 1 / (outcome = 0)::integer FROM ({call.strip()}) AS posted;"  # noqa: S608 - both parts are ours
    return "\n".join(
        [payer, f"\\set payee {payee}", "\\set amount random(100, 999)", " ".join(check.split()), ""]
    )


async def direct(connection: Connection, books: Books, seed: int) -> Callable[[], Awaitable[object]]:
    """A call that posts one uniform transfer with a prepared statement; it raises PostingError on a refusal."""
    prepared = await connection.prepare(_SINGLE.format(payer="$1", payee="$2", amount="$3"))
    draw = random.Random(seed)

    async def call() -> None:
        payer, payee = draw.sample(range(books.first_account, books.first_account + books.accounts), 2)
        outcome = await prepared.fetchval(payer, payee, draw.randint(100, 999))
        if outcome != 0:
            raise PostingError(f"a transfer was refused with outcome {outcome}")

    return call


async def post_many(connection: Connection, accounts: Sequence[int], items: int, draw: random.Random) -> None:
    """Posts transfers between these accounts in one call and one commit."""
    pairs = [draw.sample(accounts, 2) for _ in range(items)]
    amounts = [draw.randint(100, 999) for _ in pairs]
    places = {
        account: place for place, account in enumerate(sorted({a for pair in pairs for a in pair}), start=1)
    }
    outcomes = await connection.fetchval(
        _MANY,
        [uuid.UUID(int=draw.getrandbits(128)) for _ in pairs],
        list(range(1, 2 * items, 2)),
        list(range(2, 2 * items + 1, 2)),
        list(places),
        [places[account] for pair in pairs for account in pair],
        [leg for amount in amounts for leg in (-amount, amount)],
        items,
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


async def count_entries(connection: Connection) -> int:
    """How many entries there are; reads all of them."""
    return int(await connection.fetchval(_ENTRIES))


async def books(connection: Connection, hot_code: str) -> Books:
    """Counts what is there; raises PostingError where the accounts' ids are not dense, which `pgbench_script` needs."""
    row = await connection.fetchrow(_BOOKS, hot_code)
    found = dict(row) if row is not None else {}
    last = found.pop("last_account", None)
    if last is None or found["hot_account"] is None:
        raise PostingError("the accounts of the benchmark do not exist")
    if last - found["first_account"] + 1 != found["accounts"]:
        raise PostingError("the accounts of the benchmark have no dense ids")
    return Books(**found)
