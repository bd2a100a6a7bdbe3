"""`tallystick import` as a process of its own."""

import json
from pathlib import Path

import pytest

from core.settings import Settings
from tests.commands import tallystick
from tests.core.importing.olddb import WALLETS, fill_sqlite
from tests.core.importing.wallet_rows import rows


@pytest.mark.usefixtures("service")
async def test_the_wallets_are_carried_over_and_verified(settings: Settings, tmp_path: Path) -> None:
    old = rows()
    old["webhook_endpoints"].pop()
    old["cash_requests"] = []
    url = {
        "DATABASE_URL": str(settings.database_url),
        "IMPORT_URL": fill_sqlite(tmp_path / "old.db", WALLETS, old),
    }
    url["SECRETS_KEYS"] = "a key of thirty-two characters .."

    tried = await tallystick("import", "wallets", "--dry-run", **url)
    assert (tried.returncode, "A dry run: nothing was kept." in tried.stdout) == (0, True), tried.stderr
    ran = await tallystick("import", "wallets", "--json", **url)
    assert ran.returncode == 0, ran.stderr
    told = json.loads(ran.stdout)
    assert [step["new"] for step in told["steps"] if step["step"] == "users"] == [3]
    assert (told["findings"], [one["refused"] for one in told["problems"]]) == ([], [False])
    assert (await tallystick("verify", **url)).returncode == 0

    for wrong, says in (
        ("mysql://127.0.0.1:1/x", "cannot be read"),
        ("sqlite:////no/such/file", "no file"),
        ("amqp://host", "begins with"),
    ):
        ran = await tallystick("import", "inbox", "--from", wrong, **url)
        assert (ran.returncode, says in ran.stderr) == (1, True), ran.stderr
    (tmp_path / "none.db").write_bytes(b"this is no database at all")
    ran = await tallystick("import", "inbox", "--from", f"sqlite:///{tmp_path}/none.db", **url)
    assert (ran.returncode, "cannot be read" in ran.stderr) == (1, True), ran.stderr
