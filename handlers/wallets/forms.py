"""How the wallet surface says no: the status and the sentence of the existing contract for each code, in one table.

The body is problem details (RFC 9457) with the contract's own members beside them, so that its clients read it as
before: `error: {code: "http_<status>", message}`; for bodies, queries and paths that do not fit, a list in `detail`.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import msgspec
from aiohttp import hdrs, web

from core.errors import Refusal
from handlers.http.problems import MEDIA_TYPE, PROBLEMS, REPLAYED, Problem

# The contract's clients compare the media type of an error with that of an answer.
JSON_TYPE = "application/json"


class Form(NamedTuple):
    """The status of a code, and the contract's sentence."""

    status: int
    message: str


FORMS: dict[str, Form] = {
    # Who calls.
    "not_authenticated": Form(403, "Not authenticated"),
    "bad_credentials": Form(403, "Invalid authentication credentials"),
    "token_expired": Form(401, "Token expired"),
    "token_invalid": Form(401, "Invalid token"),
    "token_issuer_invalid": Form(401, "Invalid token issuer"),
    "user_not_found_for_token": Form(401, "User not found"),
    "admin_token_invalid": Form(401, "Admin token invalid"),
    "forbidden": Form(403, "Forbidden"),
    "not_found": Form(404, "Not Found"),
    "validation_failed": Form(422, "The request is not valid"),
    # Signing in.
    "missing_otp_session": Form(400, "Missing OTP session"),
    "invalid_otp": Form(400, "Invalid OTP"),
    "otp_locked": Form(429, "Too many wrong codes"),
    "otp_limited": Form(429, "Too many codes were sent"),
    "username_taken": Form(400, "username_taken"),
    "invalid_phone": Form(400, "invalid_phone"),
    "phone_taken": Form(400, "phone_taken"),
    "weak_password": Form(400, "weak_password"),
    "invalid_credentials": Form(401, "invalid_credentials"),
    "dev_credentials_invalid": Form(401, "Invalid credentials"),
    "refresh_token_invalid": Form(401, "Invalid refresh token"),
    "passkeys_disabled": Form(404, "Passkeys disabled"),
    "passkey_invalid": Form(400, "Invalid credentialId"),
    "passkey_not_found": Form(404, "Credential not found"),
    "passkey_not_verified": Form(400, "Passkey not verified"),
    "sign_in_waits": Form(503, "Sign-in is not available at the moment"),
    "login_limited": Form(429, "Too many wrong passwords"),
    "session_not_found": Form(404, "Session not found"),
    "sms_failed": Form(503, "The code could not be sent"),
    # Keys.
    "missing_idempotency_key": Form(400, "Missing idempotency key"),
    "idempotency_key_too_long": Form(400, "Idempotency key too long"),
    "idempotency_key_invalid": Form(400, "Invalid idempotency key"),
    "idempotency_conflict": Form(409, "Idempotency-Key conflict for different request"),
    # Money.
    "insufficient_funds": Form(400, "Insufficient balance"),
    "agent_insufficient_funds": Form(400, "Agent insufficient balance"),
    "merchant_insufficient_funds": Form(400, "Insufficient merchant balance"),
    "currency_mismatch": Form(400, "Currency mismatch"),
    "transfer_limit_exceeded": Form(400, "KYC transaction limit exceeded"),
    "daily_amount_exceeded": Form(400, "KYC daily limit exceeded"),
    "hourly_amount_exceeded": Form(429, "Velocity limit"),
    "hourly_count_exceeded": Form(429, "Velocity limit"),
    "risk_blocked": Form(403, "risk_blocked"),
    "invalid_amount": Form(400, "Invalid amount"),
    "balance_overflow": Form(400, "Balance out of range"),
    "ceiling_exceeded": Form(400, "Balance out of range"),
    "account_frozen": Form(403, "Wallet frozen"),
    "account_closed": Form(403, "Wallet closed"),
    "recipient_not_found": Form(404, "Recipient not found"),
    "transfer_to_self": Form(400, "Cannot transfer to self"),
    "topup_disabled": Form(403, "Topup disabled"),
    # Merchants.
    "not_allowed": Form(403, "Not allowed"),
    "kyc_level_required": Form(403, "KYC level required"),
    "kyc_approval_required": Form(400, "KYC approval required"),
    "not_a_merchant": Form(403, "Not a merchant"),
    "merchant_only": Form(403, "Merchant only"),
    "merchant_not_provisioned": Form(400, "Merchant not provisioned"),
    "invalid_qr_format": Form(400, "Invalid QR format"),
    "qr_not_active": Form(404, "QR not active"),
    "qr_not_found": Form(404, "QR not found"),
    "qr_expired": Form(400, "QR expired"),
    "qr_amount_required": Form(400, "Amount required for static QR"),
    "invalid_format": Form(400, "Invalid format"),
    "invalid_payload": Form(400, "Invalid payload"),
    "invalid_phone_format": Form(400, "Invalid phone format"),
    "target_not_found": Form(404, "Target not found"),
    "unsupported_cpm_format": Form(400, "Unsupported CPM format"),
    "invalid_time_range": Form(400, "Invalid time range"),
    "missing_headers": Form(401, "Missing headers"),
    "invalid_signature": Form(401, "Invalid signature"),
    "insufficient_scope": Form(403, "Insufficient scope"),
    # Requests and links.
    "request_to_self": Form(400, "Cannot request from self"),
    "request_not_found": Form(404, "Request not found"),
    "not_yours_to_accept": Form(403, "Not your request to accept"),
    "only_requester_can_cancel": Form(403, "Only requester can cancel"),
    "invalid_link_format": Form(400, "Invalid link format"),
    "link_not_active": Form(404, "Link not active"),
    "link_expired": Form(400, "Link expired"),
    "link_amount_required": Form(400, "Amount required for static link"),
    # Invoices and subscriptions.
    "invoice_to_self": Form(400, "Cannot invoice yourself"),
    "invoice_not_found": Form(404, "Invoice not found"),
    "not_your_invoice": Form(403, "Not your invoice"),
    "invoice_canceled": Form(400, "Cannot pay canceled invoice"),
    "invoice_expired": Form(400, "Cannot pay expired invoice"),
    "mandate_not_found": Form(404, "Mandate not found"),
    "merchant_not_found": Form(404, "Merchant not found"),
    "payee_not_verified": Form(403, "Payee not verified"),
    "target_not_a_merchant": Form(400, "Target is not a merchant"),
    "subscription_not_found": Form(404, "Not found"),
    # Refunds.
    "original_not_found": Form(404, "Original transfer not found"),
    "original_invalid": Form(400, "Invalid original transfer"),
    "not_owner_of_funds": Form(403, "Not owner of original funds"),
    "exceeds_reversible": Form(400, "Exceeds refundable amount"),
    "already_reversed": Form(400, "Exceeds refundable amount"),
    "refund_not_found": Form(404, "Not found"),
    # Cash.
    "not_an_agent": Form(403, "Not an agent"),
    "not_owner": Form(403, "Not owner"),
    # Vouchers.
    "voucher_not_found": Form(404, "Voucher not found"),
    "voucher_not_active": Form(400, "Voucher not active"),
    "voucher_not_revocable": Form(400, "Cannot revoke non-active voucher"),
    "invalid_prefix": Form(400, "Invalid prefix"),
    # Webhooks.
    "endpoint_missing": Form(404, "Endpoint missing"),
    # Internal services.
    "internal_request_not_found": Form(404, "Not found"),
    "delivery_not_found": Form(404, "Not found"),
    "merchant_key_not_found": Form(404, "Not found"),
    # The payment page.
    "code_not_found": Form(404, "Code not found"),
    "receipt_not_found": Form(404, "Receipt not found"),
    "form_too_old": Form(403, "This form was too old"),
    "signed_out": Form(403, "Not signed in"),
    # Administration.
    "user_not_found": Form(404, "User not found"),
    "endpoint_not_found": Form(404, "Not found"),
    "kyc_not_pending": Form(409, "KYC not pending"),
}


def form_of(code: str) -> Form:
    """Return how a code looks here; codes of the whole service look as they do elsewhere."""
    form = FORMS.get(code)
    if form is None:
        common = PROBLEMS.get(code) or PROBLEMS["internal_error"]
        form = Form(common.status, common.title)
    return form


def wallet_problem(problem: Problem) -> bytes:
    """Write a problem in this surface's form."""
    form = form_of(problem.code)
    message = form.message if problem.code in FORMS else problem.detail
    body: dict[str, Any] = {
        "type": f"/problems/{problem.code}",
        "title": form.message,
        "status": form.status,
        "detail": problem.detail,
        "code": problem.code,
        "error": {"code": f"http_{form.status}", "message": message},
        **problem.extra,
    }
    return msgspec.json.encode(body)


def wallet_refused(refusal: Refusal) -> web.Response:
    """Answer an expected refusal."""
    form = form_of(refusal.code)
    extra = dict(refusal.extra)
    if refusal.code == "validation_failed":
        extra["detail"] = extra.pop("errors")
    headers = {hdrs.CONTENT_TYPE: JSON_TYPE}
    if refusal.retry_after is not None:
        seconds = max(1, math.ceil(refusal.retry_after))
        headers[hdrs.RETRY_AFTER] = str(seconds)
        if refusal.code == "rate_limited":
            error = {
                "code": "rate_limited",
                "message": "Too many requests",
                "details": {"retry_after": seconds},
            }
            extra["error"] = error
        elif form.status == web.HTTPTooManyRequests.status_code:
            extra["retry_after"] = seconds
    if refusal.replayed:
        headers[REPLAYED] = "true"
    problem = Problem(refusal.code, form.status, form.message, refusal.detail, extra)
    return web.Response(status=form.status, body=wallet_problem(problem), headers=headers)


__all__ = ["FORMS", "MEDIA_TYPE", "Form", "form_of", "wallet_problem", "wallet_refused"]
