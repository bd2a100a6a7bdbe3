"""`tallystick payments` as a process of its own."""

import json

import pytest

from core.outbox.callbacks import Callback, write_callback
from core.payments.payments import Payment
from core.payments.writing import Report
from core.providers.protocol import Sight, Standing, UnknownError
from core.settings import Settings
from core.vault import Vault
from ops.commands.payments.group import _money
from tests.commands import tallystick
from tests.core.payments.conftest import Desk, desk, owner

__all__ = ["desk", "owner"]  # fixtures


@pytest.mark.parametrize(
    ("amount", "scale", "text"),
    [(0, 2, "0.00"), (5, 2, "0.05"), (-1205, 2, "-12.05"), (7, 0, "7"), (1_000_000_001, 8, "10.00000001")],
)
def test_amounts_have_all_their_digits(amount: int, scale: int, text: str) -> None:
    assert _money(amount, scale) == text


async def test_show_tells_what_has_happened(desk: Desk, settings: Settings) -> None:
    payment: Payment = await desk.create(account="nobody", title="Tea\x1b[31m", phone="+963911111111")
    sight = Sight(Standing.PAID, amount=100, currency="EUR", fee=3)
    await desk.payments.applier.apply(payment.id, payment.latest.id, Report(sight, "event:evt_1"))

    url = str(settings.database_url)
    shown = await tallystick("payments", "show", str(payment.id), DATABASE_URL=url)
    assert shown.returncode == 0, shown.stderr
    assert f"{payment.id}  paid" in shown.stdout
    assert "paid by event:evt_1" in shown.stdout
    assert "to the suspense account: account_not_found" in shown.stdout
    assert "\x1b" not in shown.stdout

    shown = await tallystick("payments", "show", str(payment.id), "--json", DATABASE_URL=url)
    told = json.loads(shown.stdout)
    assert (told["state"], told["paid"], told["attempts"][0]["on_suspense"]) == ("paid", 100, 97)
    assert [step["kind"] for step in told["timeline"]] == ["created", "open", "paid"]
    assert "+963911111111" not in shown.stdout

    shown = await tallystick("payments", "show", "01a22930-bac5-7480-925e-18318d9cd8c9", DATABASE_URL=url)
    assert shown.returncode != 0
    assert "There is no such payment." in shown.stderr


async def test_a_person_finds_what_waits_and_says_what_became_of_it(desk: Desk, settings: Settings) -> None:
    given = {"DATABASE_URL": str(settings.database_url), "REDIS_URL": str(settings.redis_url)}
    desk.one.says("create", UnknownError("?"))
    payment = await desk.create(caller="shop\x1b[31m")
    async with desk.service.database.transaction() as connection:
        callback = Callback("tests", str(payment.id), "shop", "nowhere", b"{}")
        await write_callback(connection, Vault(), callback)
    listed = await tallystick("payments", "list", "--state", "unknown", **given)
    assert listed.stdout.startswith(f"{payment.id}  ")
    assert "\x1b" not in listed.stdout
    old = await tallystick("payments", "list", "--older-than", "1h", "--json", **given)
    assert json.loads(old.stdout) == []
    assert json.loads((await tallystick("payments", "refunds", "--json", **given)).stdout) == []

    name = ("--by", "Ann Lee", "--reason", "OPS-17")
    for words in (("--as", "done"), ("--as", "failed", "--amount", "5"), ("--as", "paid", "--refund", "r")):
        refused = await tallystick("payments", "resolve", str(payment.id), *words, *name, **given)
        assert refused.returncode == 2, words
    words = ("--as", "refunded", "--refund", "r")
    none = await tallystick("payments", "resolve", str(payment.id), *words, *name, **given)
    assert (none.returncode, "no refund r that the service made" in none.stderr) == (1, True)
    done = await tallystick("payments", "resolve", str(payment.id), "--as", "failed", *name, **given)
    assert done.stdout == "The payment is failed, paid 0, refunded 0.\n", done.stderr
    again = await tallystick("payments", "resolve", str(payment.id), "--as", "failed", *name, **given)
    assert (again.returncode, "1 is failed" in again.stderr) == (1, True)
    shown = await tallystick("payments", "show", str(payment.id), **given)
    assert "failed by person:Ann Lee" in shown.stdout
    assert "reason: OPS-17" in shown.stdout
    assert (
        "callback    failed after 0 attempts: The URL cannot be used: it is not well-formed." in shown.stdout
    )
