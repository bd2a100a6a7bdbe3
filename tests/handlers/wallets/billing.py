"""What the tests of invoices, and of what pays them by itself, ask for over HTTP."""

from typing import Any

from tests.handlers.wallets.conftest import Person


async def bill(issuer: Person, payer: Person, amount: int = 100, days: int = 0) -> str:
    body = {"payer_phone": payer.phone, "amount_cents": amount, "due_in_days": days}
    said = await issuer.post("/invoices", body)
    assert said.status == 200, said
    invoice_id: str = said.json["id"]
    return invoice_id


async def allow(payer: Person, issuer: Person, **changes: Any) -> str:
    said = await payer.post("/invoices/mandates", {"issuer_phone": issuer.phone, "autopay": True, **changes})
    assert said.status == 200, said
    mandate_id: str = said.json["id"]
    return mandate_id


async def status_of(somebody: Person, invoice_id: str) -> str:
    status: str = (await somebody.get(f"/invoices/{invoice_id}")).json["status"]
    return status
