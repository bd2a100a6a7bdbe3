"""`tallystick migrate` with its options, on a database that has everything, and then not."""

import asyncpg

from tests.commands import tallystick


async def test_what_is_outstanding_is_planned_checked_and_applied(database_url: str) -> None:
    owner = await asyncpg.connect(database_url)
    name = "functions/ledger_seal.sql"
    await owner.execute("UPDATE schema_migrations SET checksum = '' WHERE name = $1", name)
    planned = await tallystick("migrate", "--plan", DATABASE_URL=database_url)
    assert planned.returncode == 0, planned.stderr
    assert f"{name}: online, each function is replaced at once, and called as before" in planned.stdout
    assert "functions: ledger_batch_content, ledger_seal" in planned.stdout
    assert planned.stdout.endswith("1 outstanding, 0 of them not online.\n")
    checked = await tallystick("migrate", "--check", DATABASE_URL=database_url)
    assert (checked.returncode, checked.stdout) == (1, f"outstanding: {name}\n")
    done = await tallystick("migrate", "--online", DATABASE_URL=database_url)
    assert (done.returncode, done.stdout) == (0, f"applying {name}\n1 applied.\n")
    await owner.execute(
        "UPDATE schema_migrations SET checksum = '' WHERE name = 'migrations/0001_ledger.sql'"
    )
    checked = await tallystick("migrate", "--check", DATABASE_URL=database_url)
    assert (checked.returncode, checked.stdout) == (1, "altered: migrations/0001_ledger.sql\n")
    await owner.close()


async def test_a_pooler_is_gone_past(database_url: str) -> None:
    behind = {"DATABASE_URL": "postgresql://nobody@127.0.0.1:1/x", "DATABASE_POOLER": "transaction"}
    refused = await tallystick("migrate", "--check", **behind)
    assert refused.returncode == 2
    assert "need DATABASE_DIRECT_URL" in refused.stderr
    checked = await tallystick("migrate", "--check", **behind, DATABASE_DIRECT_URL=database_url)
    assert (checked.returncode, checked.stdout) == (0, "")
