"""The books, checked from outside: no question below has an answer while nothing is lost, doubled or half there."""

from typing import Any

import asyncpg

QUESTIONS = {
    "a balance is not the sum of its entries, or a version not their number": """
        SELECT a.code FROM accounts AS a LEFT JOIN entries AS e ON e.account_id = a.id
        GROUP BY a.id
        HAVING a.balance <> coalesce(sum(e.amount), 0) OR a.version <> count(e.*)
            OR a.version <> coalesce(max(e.version), 0)
    """,
    "an entry does not follow from the one before it": """
        SELECT e.account_id, e.version FROM (
            SELECT *, lag(balance, 1, 0) OVER w AS before, lag(no, 1, 0) OVER w AS no_before FROM entries
            WINDOW w AS (PARTITION BY account_id ORDER BY version)
        ) AS e WHERE e.balance <> e.before + e.amount OR e.no <= e.no_before
    """,
    "an item does not sum to zero": """
        SELECT e.no >> 12 AS item, a.currency FROM entries AS e JOIN accounts AS a ON a.id = e.account_id
        GROUP BY e.no >> 12, a.currency HAVING sum(e.amount) <> 0
    """,
    "a currency does not sum to zero": "SELECT currency FROM accounts GROUP BY currency HAVING sum(balance) <> 0",
    "an amount held is not the sum that the open holds have left": """
        SELECT a.code FROM accounts AS a LEFT JOIN holds AS h ON h.source_id = a.id AND h.state = 0
        GROUP BY a.id HAVING a.held <> coalesce(sum(h.amount - h.captured), 0)
    """,
    "a hold was captured for more or less than its captures moved": """
        SELECT h.id FROM holds AS h LEFT JOIN (
            SELECT t.target, -sum(e.amount) AS taken FROM transfers AS t JOIN entries AS e ON e.no = t.no
            GROUP BY t.target
        ) AS c ON c.target = h.no
        WHERE h.captured <> coalesce(c.taken, 0) OR (h.state = 1) <> (h.captured = h.amount)
    """,
    "a transfer was reversed for more than it was, or what was noted of it is wrong": """
        SELECT t.id FROM transfers AS t
        JOIN entries AS o ON o.no = t.no
        LEFT JOIN reversed_amounts AS r ON r.no = t.no
        LEFT JOIN (
            SELECT x.target, sum(abs(e.amount)) AS back FROM transfers AS x JOIN entries AS e ON e.no = x.no
            GROUP BY x.target
        ) AS b ON b.target = t.no
        WHERE coalesce(r.amount, 0) <> coalesce(b.back, 0) OR coalesce(r.amount, 0) > abs(o.amount)
    """,
    "a transfer or a hold's event has no key, or an id occurs twice": """
        SELECT x.id FROM (
            SELECT no, id FROM transfers UNION SELECT no, id FROM hold_events WHERE operation <> 5
        ) AS x LEFT JOIN keys AS k ON k.id = x.id
        GROUP BY x.id HAVING count(*) <> 1 OR bool_or(k.no IS DISTINCT FROM x.no)
    """,
    "a key stands for nothing": """
        SELECT k.id FROM keys AS k
        WHERE NOT EXISTS (SELECT FROM transfers AS t WHERE t.no = k.no AND t.id = k.id)
            AND NOT EXISTS (SELECT FROM hold_events AS h WHERE h.no = k.no AND h.id = k.id)
            AND NOT EXISTS (SELECT FROM refusals AS r WHERE r.id = k.id AND k.no IS NULL)
    """,
    "a transfer has no entries, or entries no transfer": """
        SELECT coalesce(t.no, e.item) AS no FROM transfers AS t
        FULL JOIN (SELECT DISTINCT (no >> 12) << 12 AS item FROM entries) AS e ON e.item = t.no
        WHERE t.no IS NULL OR e.item IS NULL
    """,
    "a batch has more or fewer events than it says": """
        SELECT b.seq FROM batches AS b LEFT JOIN (
            SELECT no FROM transfers UNION SELECT no FROM hold_events UNION SELECT no FROM account_events
        ) AS x ON x.no >> 22 = b.seq
        GROUP BY b.seq HAVING b.events <> count(x.no)
    """,
}


# The numbers of the questions that have an answer. One statement for all takes half the time of one for each, and every
# test of the wallets asks.
WHICH = " UNION ALL ".join(
    f"SELECT {number} WHERE EXISTS ({text})" for number, text in enumerate(QUESTIONS.values())
)


async def faults(database: "str | asyncpg.Connection[asyncpg.Record]") -> dict[str, list[Any]]:
    """Return the first rows of each question that has an answer; none when the books are sound.

    `database` is a DSN, or a connection that has read these tables before and so answers in half the time.
    """
    if isinstance(database, str):
        connection = await asyncpg.connect(database)
        try:
            return await faults(connection)
        finally:
            await connection.close()
    found = {}
    for (number,) in await database.fetch(WHICH):
        question, text = list(QUESTIONS.items())[number]
        found[question] = [tuple(row) for row in await database.fetch(f"{text} LIMIT 5")]
    return found
