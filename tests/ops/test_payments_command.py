"""`tallystick payments show` as a process of its own."""

import json

import pytest

from core.payments.payments import Payment
from core.payments.writing import Report
from core.providers.protocol import Sight, Standing
from core.settings import Settings
from ops.commands.providers.payments import _money
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
