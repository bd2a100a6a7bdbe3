"""Kaspi's database carried over: tokens sealed, and no address of the bank in the log."""

from datetime import datetime

from core.database import Database
from core.importing import kaspi
from core.payments.kaspi.configs import owner_of
from core.settings import Settings
from core.vault import Vault
from tests.core.importing.conftest import Fill, carry_over, counts, values
from tests.core.importing.olddb import KASPI

AT = datetime(2025, 6, 1, 12, 30, 15)  # noqa: DTZ001 - the old services' times have no zone
BOTH = {"created_at": AT, "updated_at": AT}


async def test_kaspi(fill: Fill, target: Database, settings: Settings) -> None:
    config = {"is_active": True, "provider": "kaspi", **BOTH}
    row = {
        "shop_id": 7, "organization_bin": "123456789012", "operation_type": "create", "external_id": None,
        "amount": None, "status": "error", "error_message": None, "provider": "kaspi", "created_at": AT,
    }  # fmt: skip
    leak = "Client error '401' for url 'https://bank.test/api/create/?token=s3cret' and more"
    url = await fill(
        KASPI,
        {
            "paymentconfig": [
                {
                    "id": 3,
                    "shop_id": 7,
                    "organization_bin": "123456789012",
                    "device_token": "device",
                    **config,
                },
                {"id": 4, "shop_id": 8, "organization_bin": "123456789012", "device_token": None, **config},
            ],
            "paymentlog": [
                {"id": 9, **row, "external_id": "77", "amount": 199900, "status": "Wait"},
                {"id": 10, **row, "error_message": leak},
            ],
        },
    )
    result = await carry_over(target, settings, "kaspi", kaspi.STEPS, url)
    assert counts(result) == {"configs": (2, 0, 0), "log": (2, 0, 0)}, result.problems
    again = await carry_over(target, settings, "kaspi", kaspi.STEPS, url)
    assert counts(again) == {"configs": (0, 2, 0), "log": (0, 2, 0)}

    [(token,), (none,)] = await values(target, "SELECT device_token FROM kaspi_configs ORDER BY id")
    assert none is None
    assert Vault.of(settings).open(token, owner_of(7)) == "device"
    log = await values(target, "SELECT id, amount, error_message FROM kaspi_log ORDER BY id")
    assert log[0] == (9, 199900, None)
    assert "s3cret" not in log[1][2]
    assert log[1][2].startswith("Client error '401'")
    assert await values(target, "SELECT nextval('kaspi_log_id_seq') > 10") == [(True,)]

    other = await fill(
        KASPI,
        {
            "paymentconfig": [
                {
                    "id": 3,
                    "shop_id": 7,
                    "organization_bin": "999999999999",
                    "device_token": "device",
                    **config,
                },
                {"id": 4, "shop_id": 8, "organization_bin": "123456789012", "device_token": "new", **config},
                {"id": 3, "shop_id": 9, "organization_bin": "123456789012", "device_token": None, **config},
            ],
            "paymentlog": [{"id": 9, **row, "external_id": "78"}],
        },
    )
    for new in (1, 0):
        result = await carry_over(target, settings, "kaspi", kaspi.STEPS, other)
        assert counts(result) == {"configs": (0, 0, 3), "log": (new, 1 - new, 0)}, result.problems
    assert await values(target, "SELECT external_id FROM kaspi_log WHERE id IN (9, -9) ORDER BY id") == [
        ("78",),
        ("77",),
    ]
