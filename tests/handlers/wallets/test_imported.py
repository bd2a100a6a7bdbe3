"""People of the wallet service before, after an import: their passwords, tokens, keys and codes go on."""

from pathlib import Path

import bcrypt

from core.database import open_database
from core.importing.running import Run
from core.importing.sources import open_source
from core.importing.wallets import PHONES_PROVEN, STEPS
from core.settings import Settings
from tests.core.importing.olddb import WALLETS, fill_sqlite
from tests.core.importing.wallet_rows import ALICE, BALANCES, rows
from tests.handlers.wallets.conftest import Person

KEY = "app-1700000000000"


async def test_people_of_before_go_on(nobody: Person, settings: Settings, tmp_path: Path) -> None:
    old = rows()
    old["users"][0]["password_hash"] = bcrypt.hashpw(b"correct horse", bcrypt.gensalt(4)).decode()
    old["payment_links"][0]["amount_cents"] = 300
    database = await open_database(settings, role=None, size=1)
    try:
        async with open_source(fill_sqlite(tmp_path / "old.db", WALLETS, old)) as source:
            keyed = settings.model_copy(update={"secrets_keys": ("a key of thirty-two characters ..",)})
            options = frozenset({PHONES_PROVEN})
            await Run(database, keyed, "wallets", STEPS, options=options).run(source)
    finally:
        await database.close()

    login = {"username": "alice", "password": "correct horse"}
    assert (await nobody.post("/auth/login", login)).status == 200  # it makes a hash of ours
    said = await nobody.post("/auth/login", login)
    assert said.status == 200, said
    alice = Person(nobody.client, None, said.json["access_token"])
    wallet = (await alice.get("/wallet")).json
    assert (wallet["user"]["id"], wallet["wallet"]["balance_cents"]) == (str(ALICE), BALANCES[ALICE])

    # A transfer of before that the app repeats is not paid a second time; a new one is paid.
    transfer = {"to_phone": "+963922222222", "amount_cents": 500, "idempotency_key": KEY}
    said = await alice.post("/wallet/transfer", transfer)
    assert said.status == 409, said
    assert await alice.balance() == BALANCES[ALICE]
    said = await alice.post("/wallet/transfer", transfer | {"idempotency_key": "a new one"})
    assert said.status == 200, said

    said = await alice.post(
        "/payments/links/pay", {"code": "LINK:v1;code=link-code", "idempotency_key": "link"}
    )
    assert said.status == 200, said
    [request] = (await alice.get("/requests")).json["incoming"]
    assert request["metadata"] == {"z": 1, "a": 2}
    said = await alice.post(f"/requests/{request['id']}/accept")
    assert (said.status, said.json["detail"]) == (200, "accepted"), said
    assert await alice.balance() == BALANCES[ALICE] - 500 - 300 - 500
