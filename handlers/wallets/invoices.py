"""Invoices and mandates."""

from __future__ import annotations

from typing import Annotated, Literal
from uuid import UUID

import msgspec
import pydantic
from aiohttp import web
from pydantic_core import PydanticCustomError

from core.money import MAX_AMOUNT_MINOR
from core.payables import invoices
from core.payables.demands import LISTED, Demand, Wanted
from core.payables.invoices import Billed
from core.recurring import autopay, mandates
from core.recurring.mandates import Cap, Mandate
from handlers.http.route import Call, Route, answer, table
from handlers.wallets.contract import (
    Body,
    Cents,
    Detail,
    PageQuery,
    Phone,
    PhoneFilter,
    Reference,
    Text,
    TransferOut,
    cut,
    header_key,
    maybe_timestamp,
    platform_of,
    timestamp,
    transfer_out,
    whole_phone,
)
from handlers.wallets.problems import problem_type
from handlers.wallets.requests import id_of

MAX_DUE_DAYS = 365
MAX_NOTICE_HOURS = 8_760

# The contract's words for the states of a payable.
STATES = {"open": "pending"}
STATES_BACK = {status: state for state, status in STATES.items()}

MaxAmount = Annotated[int, pydantic.Field(ge=1, le=MAX_AMOUNT_MINOR)]
Days = Annotated[int, pydantic.Field(ge=0, le=MAX_DUE_DAYS)]


class InvoiceIn(Body):
    """An invoice for the user of a phone."""

    payer_phone: Phone
    amount_cents: Cents
    due_in_days: Days = 10
    reference: Reference | None = None
    description: Text | None = None


class InvoicesQuery(PageQuery):
    """A part of the lists: one side of them, a status, the phone of the other side, a reference."""

    side: Literal["incoming", "outgoing"] | None = None
    phone: PhoneFilter | None = None
    status: Literal["pending", "paid", "canceled", "rejected", "expired"] | None = None
    reference: Reference | None = None


class MandateIn(Body):
    """A mandate for one issuer, in minor units. Without a maximum it covers any amount.

    In a `period` (the UTC day, week or month) `period_max_cents` is paid at most; money is taken `notice_hours` after
    the payer was told, or later. A mandate that is set again keeps its cap and its notice where these are absent.
    """

    issuer_phone: Phone
    autopay: bool = False
    max_amount_cents: MaxAmount | None = None
    period_max_cents: MaxAmount | None = None
    period: Literal["day", "week", "month"] = "month"
    notice_hours: Annotated[int, pydantic.Field(ge=0, le=MAX_NOTICE_HOURS)] | None = None

    @pydantic.model_validator(mode="after")
    def period_of_a_cap(self) -> MandateIn:
        """Refuse a period without a cap, which would bound nothing."""
        if "period" in self.model_fields_set and self.period_max_cents is None:
            raise PydanticCustomError("period_without_cap", "Give period_max_cents with period")
        return self


class MandatesQuery(PageQuery):
    """A part of the list: a status, the phone of the issuer."""

    phone: PhoneFilter | None = None
    status: Literal["active", "revoked"] | None = None


class InvoiceOut(msgspec.Struct, frozen=True):
    """An invoice. From `autopay_at` on, if it is there, a mandate pays it."""

    id: str
    issuer_phone: str
    payer_phone: str
    amount_cents: int
    currency_code: str
    status: str
    reference: str | None
    description: str | None
    due_at: str | None
    created_at: str
    paid_transfer_id: str | None
    autopay_at: str | msgspec.UnsetType = msgspec.UNSET


class InvoicesOut(msgspec.Struct, frozen=True):
    """Invoices to the caller and invoices from the caller, newest first.

    Where a part was asked for, the two `next_` fields continue the lists as `before`, null at the end.
    """

    incoming: list[InvoiceOut]
    outgoing: list[InvoiceOut]
    next_incoming: str | msgspec.UnsetType | None = msgspec.UNSET
    next_outgoing: str | msgspec.UnsetType | None = msgspec.UNSET


class MandateOut(msgspec.Struct, frozen=True):
    """A mandate. One without a cap has no `period_` fields, one without a notice of its own no `notice_hours`."""

    id: str
    issuer_phone: str
    autopay: bool
    max_amount_cents: int | None
    status: str
    created_at: str
    updated_at: str
    period: str | msgspec.UnsetType = msgspec.UNSET
    period_max_cents: int | msgspec.UnsetType = msgspec.UNSET
    period_spent_cents: int | msgspec.UnsetType = msgspec.UNSET
    notice_hours: int | msgspec.UnsetType = msgspec.UNSET


class MandatesOut(msgspec.Struct, frozen=True):
    """The caller's mandates, newest first; where a part was asked for, `next` continues the list as `before`."""

    items: list[MandateOut]
    next: str | msgspec.UnsetType | None = msgspec.UNSET


class NotProcessed(msgspec.Struct, frozen=True):
    """An invoice that could not be paid, and the sentence for it."""

    id: str
    error: str


class ProcessedOut(msgspec.Struct, frozen=True):
    """The invoices that were paid, and those that could not be."""

    processed: list[str]
    errors: list[NotProcessed]


class Done(msgspec.Struct, frozen=True):
    """The answer of a change that is done."""

    ok: bool = True


async def create_invoice(call: Call) -> web.Response:
    """Issue an invoice."""
    body: InvoiceIn = call.body
    billed = Billed(body.amount_cents, body.due_in_days, body.reference, body.description)
    demand = await invoices.create(platform_of(call), call.user, body.payer_phone, billed)
    return answer(200, invoice_out(demand))


async def list_invoices(call: Call) -> web.Response:
    """List the newest invoices of each side."""
    query: InvoicesQuery = call.query
    wanted = Wanted(
        query.side,
        STATES_BACK.get(query.status or "", query.status),
        whole_phone(query.phone),
        query.reference,
        query.before,
        query.most(LISTED),
    )
    found = await invoices.of_user(platform_of(call), call.user, wanted)
    incoming, next_incoming = cut(found.incoming, wanted.limit - 1)
    outgoing, next_outgoing = cut(found.outgoing, wanted.limit - 1)
    said = InvoicesOut([*map(invoice_out, incoming)], [*map(invoice_out, outgoing)])
    if query.given:
        ends = (id_of(next_incoming), id_of(next_outgoing))
        said = msgspec.structs.replace(said, next_incoming=ends[0], next_outgoing=ends[1])
    return answer(200, said)


async def get_invoice(call: Call) -> web.Response:
    """Show an invoice to one of its sides."""
    return answer(200, invoice_out(await invoices.get(platform_of(call), call.user, call.path("invoice_id"))))


async def pay_invoice(call: Call) -> web.Response:
    """Pay an invoice."""
    invoice_id, key = call.path("invoice_id"), header_key(call)
    return answer(
        200, transfer_out(await invoices.pay_invoice(platform_of(call), call.user, invoice_id, key))
    )


async def cancel_invoice(call: Call) -> web.Response:
    """Take an invoice back."""
    was = await invoices.cancel(platform_of(call), call.user, call.path("invoice_id"))
    return answer(200, Detail("canceled" if was is None else f"already {STATES.get(was, was)}"))


async def process_due_invoices(call: Call) -> web.Response:
    """Pay the caller's due invoices that their mandates cover."""
    swept = await autopay.sweep(platform_of(call), call.user)
    errors = [
        NotProcessed(str(invoice_id), problem_type(refusal.code).title)
        for invoice_id, refusal in swept.errors
    ]
    return answer(200, ProcessedOut([*map(str, swept.processed)], errors))


async def force_invoice_due(call: Call) -> web.Response:
    """Make an invoice due, in development."""
    await autopay.force_due(platform_of(call), call.user, call.path("invoice_id"))
    return answer(200, Done())


async def put_mandate(call: Call) -> web.Response:
    """Set a mandate."""
    body: MandateIn = call.body
    mandate = await mandates.upsert(
        platform_of(call),
        call.user,
        body.issuer_phone,
        autopay=body.autopay,
        max_amount=body.max_amount_cents,
        cap=Cap(body.period_max_cents, body.period) if "period_max_cents" in body.model_fields_set else None,
        notice_hours=body.notice_hours,
    )
    return answer(200, mandate_out(mandate))


async def list_mandates(call: Call) -> web.Response:
    """List the caller's mandates."""
    query: MandatesQuery = call.query
    most = query.most(mandates.LISTED)
    found = await mandates.of_payer(
        platform_of(call),
        call.user,
        state=query.status,
        phone=whole_phone(query.phone),
        before=query.before,
        limit=most,
    )
    items, last = cut(found, most - 1)
    said = MandatesOut([*map(mandate_out, items)])
    if query.given:
        said = msgspec.structs.replace(said, next=None if last is None else str(last.id))
    return answer(200, said)


async def revoke_mandate(call: Call) -> web.Response:
    """End a mandate."""
    revoked = await mandates.revoke(platform_of(call), call.user, call.path("mandate_id"))
    return answer(200, Detail("revoked" if revoked else "already revoked"))


def invoice_out(demand: Demand) -> InvoiceOut:
    """Return an invoice as the contract shows it."""
    payable = demand.payable
    return InvoiceOut(
        id=str(payable.id),
        issuer_phone=demand.payee_phone,
        payer_phone=demand.payer_phone,
        amount_cents=payable.amount or 0,
        currency_code=payable.currency,
        status=STATES.get(payable.state, payable.state),
        reference=payable.details.get("reference"),
        description=payable.details.get("description"),
        due_at=maybe_timestamp(payable.due_at),
        created_at=timestamp(payable.created_at),
        paid_transfer_id=None if payable.transfer_id is None else str(payable.transfer_id),
        autopay_at=maybe_timestamp(demand.autopay_at if payable.state == "open" else None) or msgspec.UNSET,
    )


def mandate_out(mandate: Mandate) -> MandateOut:
    """Return a mandate as the contract shows it."""
    return MandateOut(
        id=str(mandate.id),
        issuer_phone=mandate.issuer_phone,
        autopay=mandate.autopay,
        max_amount_cents=mandate.max_amount,
        status=mandate.state,
        created_at=timestamp(mandate.created_at),
        updated_at=timestamp(mandate.updated_at),
        period=mandate.period or msgspec.UNSET,
        period_max_cents=mandate.period_max or msgspec.UNSET,
        period_spent_cents=msgspec.UNSET if mandate.period is None else mandate.period_spent,
        notice_hours=mandate.notice_hours or msgspec.UNSET,
    )


_INVOICE = {"invoice_id": UUID}

# The routes of the word `mandates` come before the routes of an id, which would take the word for one.
ROUTES = table(
    Route(
        "POST", "/invoices", create_invoice, "create_invoice", "Issue an invoice",
        body=InvoiceIn, answers={200: InvoiceOut},
        problems=("kyc_level_required", "not_a_merchant", "invoice_to_self", "sender_blocked", "too_many_open_items"),
    ),
    Route(
        "GET", "/invoices", list_invoices, "list_invoices", "List the newest invoices to me, and mine",
        query=InvoicesQuery, answers={200: InvoicesOut},
    ),
    Route(
        "POST", "/invoices/process_due", process_due_invoices, "process_due_invoices",
        "Pay my due invoices that a mandate covers", answers={200: ProcessedOut},
    ),
    Route(
        "POST", "/invoices/mandates", put_mandate, "put_mandate",
        "Let an issuer's invoices be paid when they are due", body=MandateIn, answers={200: MandateOut},
        problems=("mandate_to_self",),
    ),
    Route(
        "GET", "/invoices/mandates", list_mandates, "list_mandates", "List my newest mandates",
        query=MandatesQuery, answers={200: MandatesOut},
    ),
    Route(
        "POST", "/invoices/mandates/{mandate_id}/revoke", revoke_mandate, "revoke_mandate", "End a mandate",
        parameters={"mandate_id": UUID}, answers={200: Detail}, problems=("mandate_not_found", "forbidden"),
    ),
    Route(
        "GET", "/invoices/{invoice_id}", get_invoice, "get_invoice", "Show an invoice",
        answers={200: InvoiceOut}, problems=("invoice_not_found", "forbidden"),
    ),
    Route(
        "POST", "/invoices/{invoice_id}/pay", pay_invoice, "pay_invoice", "Pay an invoice",
        key_header="Idempotency-Key", answers={200: TransferOut},
        problems=(
            "invoice_not_found", "not_your_invoice", "invoice_canceled", "invoice_expired", "payee_not_verified",
            "currency_mismatch",
            "insufficient_funds", "transfer_limit_exceeded", "daily_amount_exceeded", "risk_blocked",
            "idempotency_conflict", "idempotency_key_too_long",
        ),
    ),
    Route(
        "POST", "/invoices/{invoice_id}/cancel", cancel_invoice, "cancel_invoice", "Take an invoice back",
        answers={200: Detail}, problems=("invoice_not_found", "forbidden"),
    ),
    Route(
        "POST", "/invoices/{invoice_id}/dev_force_due", force_invoice_due, "force_invoice_due",
        "Make an invoice due (development)", answers={200: Done}, problems=("forbidden", "invoice_not_found"),
    ),
    tag="invoices", caller="user", parameters=_INVOICE,
)  # fmt: skip
