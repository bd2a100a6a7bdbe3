"""The numbers that SQL and Python share, and the functions that make and read posting numbers."""

import re
from importlib import resources
from typing import Any

import pytest

from core.ledger import accounts, holds
from core.ledger.items import Operation
from core.ledger.outcomes import OUTCOMES, PAYABLE_STATES, REPLAYED_POSTED, REPLAYED_REFUSED
from core.service import Service
from tests.queries import QUERIES, TEMPORARY

LEDGER_POST = resources.files("sql").joinpath("functions", "ledger_post.sql").read_text()
NUMBER_FUNCTIONS = re.compile(r"\b(item_no|last_no|batch_of|item_of)\(")

REPLAYED = {REPLAYED_POSTED: "replayed_posted", REPLAYED_REFUSED: "replayed_refused"}
PYTHON: dict[str, dict[int, str]] = {
    "operations": {operation.value: operation.name.lower() for operation in Operation},
    "accounts": dict(enumerate(accounts.STATES)),
    "holds": dict(enumerate(holds.STATES)),
    "payables": dict(enumerate(PAYABLE_STATES)),
    "outcomes": {number: kind.code for number, kind in OUTCOMES.items()} | REPLAYED,
}


def table(name: str) -> dict[int, str]:
    """One row of the table at the head of ledger_post.sql, continuation lines included."""
    found = re.search(rf"^--   {name} +(.*(?:\n--    .*)*)", LEDGER_POST, re.MULTILINE)
    assert found is not None
    return {int(number): word for number, word in re.findall(r"(\d+) (\w+)", found[1])}


@pytest.mark.parametrize("name", PYTHON)
def test_the_table_of_the_function_is_that_of_python(name: str) -> None:
    assert table(name) == PYTHON[name]


def test_the_function_says_no_other_outcome() -> None:
    said = {int(number) for number in re.findall(r"\b(?:outcome|code) := (\d+)", LEDGER_POST)}
    assert len(said) > 20
    assert said <= PYTHON["outcomes"].keys()


async def test_numbers_are_made_and_read(service: Service) -> None:
    async with service.database.connections.pool.acquire() as connection:
        row = await connection.fetchrow(
            "SELECT item_no(7, 3) AS item, last_no(7) AS last, batch_of(item_no(7, 3) + 5) AS batch,"
            " item_of(item_no(7, 3) + 5) AS of_leg, last_no(batch_of(9223372036854775807)) AS highest"
        )
    assert row is not None
    assert dict(row) == {
        "item": (7 << 22) + (3 << 12),
        "last": (8 << 22) - 1,
        "batch": 7,
        "of_leg": (7 << 22) + (3 << 12),
        "highest": 2**63 - 1,
    }


@pytest.mark.parametrize(
    "name", [name for name, query in QUERIES.items() if NUMBER_FUNCTIONS.search(query.text)]
)
async def test_the_planner_puts_the_functions_in_line(owner: Any, name: str) -> None:
    """A call that stayed one would be run for each row, and no index on `no >> 22` would serve it."""
    text = QUERIES[name].text
    nulls = ", ".join(["NULL"] * max([0, *map(int, re.findall(r"\$(\d+)", text))]))
    async with owner.transaction():
        for query in TEMPORARY:
            await owner.execute(query.text)
        await owner.execute("SET LOCAL plan_cache_mode = force_generic_plan")
        await owner.execute(f"PREPARE shown AS {text}")
        rows: list[Any] = await owner.fetch(f"EXPLAIN (VERBOSE) EXECUTE shown{nulls and f'({nulls})'}")
    assert NUMBER_FUNCTIONS.findall("\n".join(row[0] for row in rows)) == []
