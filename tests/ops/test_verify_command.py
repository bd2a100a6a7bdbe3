"""`tallystick verify`, run as a person runs it."""

import json

import asyncpg

from core.ledger.accounts import Limits, Opening, open_accounts
from core.ledger.items import Leg, Posting, operation_id
from core.ledger.sealing import seal_once
from core.service import Service
from core.settings import Settings
from tests.commands import tallystick


async def run(settings: Settings, *arguments: str) -> tuple[int, str, str]:
    done = await tallystick("verify", *arguments, DATABASE_URL=str(settings.database_url))
    return done.returncode, done.stdout, done.stderr


async def fill(service: Service) -> None:
    await open_accounts(
        service.database, [Opening(code, "USD", Limits(floor=None)) for code in ("a", "b")], 1
    )
    for number in range(3):
        legs = (Leg("a", -5), Leg("b", 5))
        await service.ledger.poster.submit(
            Posting(id=operation_id(1, f"{number}"), principal_id=1, legs=legs)
        )
    await seal_once(service.database)


async def test_all_is_well(settings: Settings, service: Service) -> None:
    await fill(service)
    code, out, err = await run(settings)
    assert code == 0, err
    assert out.startswith("All records agree. Sealed to position 5: ")
    assert "entries: 6 checked" in err.splitlines()
    code, out, _ = await run(settings, "--json")
    result = json.loads(out)
    assert (code, result["ok"], result["findings"], result["seal"]["position"]) == (0, True, [], 5)


async def test_what_is_wrong_is_named(settings: Settings, service: Service) -> None:
    await fill(service)
    owner = await asyncpg.connect(str(settings.database_url))
    await owner.execute("UPDATE accounts SET balance = balance + 1 WHERE code = 'b'")
    await owner.close()
    code, out, _ = await run(settings)
    assert code == 1
    assert "First: b: balance 16, but its entries sum to 15." in out
    assert "2 of 21 checks failed." in out
    code, out, _ = await run(settings, "--json")
    assert code == 1
    assert [finding["check"] for finding in json.loads(out)["findings"]] == [
        "account_balance",
        "conservation",
    ]


async def test_nothing_to_look_at(settings: Settings) -> None:
    code, _, err = await run(settings, "--late-after", "0")
    assert (code, "late-after" in err) == (2, True)
