"""`tallystick kaspi`: an operator says which organization is paid for a shop, from the command line."""

import json
from typing import Any

import asyncpg

from core.settings import Settings
from core.vault import Vault
from tests.commands import perform

KEY = "a-key-of-these-tests-with-32-characters"
BIN = "971240001315"


async def test_the_config_of_a_shop(settings: Settings) -> None:
    environment = {
        "DATABASE_URL": str(settings.database_url), "ENV": "test", "STATE_DIR": settings.state_dir, "SECRETS_KEYS": KEY,
    }  # fmt: skip

    async def kaspi(*arguments: str, typed: str = "") -> Any:
        ended = await perform(("kaspi", *arguments, "--json"), environment, typed=typed)
        assert ended.returncode == 0, ended.stderr
        assert "token-of-a-device" not in ended.stdout
        return json.loads(ended.stdout)

    (made,) = await kaspi(
        "configs", "set", "7", "--bin", BIN, "--device-token-from-stdin", typed="token-of-a-device\n"
    )
    assert (made["shop_id"], made["organization_bin"], made["is_active"]) == (7, BIN, True)
    assert made["has_device_token"]
    (changed,) = await kaspi("configs", "set", "7", "--inactive")
    assert changed == {**made, "is_active": False, "updated_at": changed["updated_at"]}
    assert (await kaspi("configs", "deactivate", "7"))[0]["is_active"] is False
    assert [one["shop_id"] for one in await kaspi("configs", "list")] == [7]
    owner = await asyncpg.connect(str(settings.database_url))
    stored = await owner.fetchval("SELECT device_token FROM kaspi_configs")
    await owner.close()
    assert Vault([KEY]).open(stored, "kaspi:7") == "token-of-a-device"
    resealed = await perform(("keys", "reseal"), environment | {"SECRETS_KEYS": f"{'b' * 32},{KEY}"})
    assert "Kaspi's devices: 1 sealed anew" in resealed.stdout
    for arguments, code, says in (
        (("configs", "set", "8"), 2, "needs --bin"),
        (("configs", "set", "8", "--bin", "1"), 2, "12 digits"),
        (("configs", "deactivate", "8"), 1, "Config not found for shop_id=8"),
        (("trade-points", BIN), 1, "KASPI_API_BASE is unset"),
    ):
        ended = await perform(("kaspi", *arguments), environment)
        assert (ended.returncode, says in ended.stderr) == (code, True), ended.stderr
