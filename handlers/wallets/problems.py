"""Refusals of the wallet surface: the status and the sentence of the contract for each code, in one table.

The body is problem details (RFC 9457) with the contract's own members beside them, so that its clients read it as
before: `error: {code: "http_<status>", message}`; for bodies, queries and paths that do not fit, a list in `detail`.
"""

from __future__ import annotations

from typing import Any

import msgspec
from aiohttp import hdrs, web

from core.errors import Refusal
from handlers.http.problems import PROBLEMS, REPLAYED, ProblemType, seconds_to_wait

# The contract's clients compare the media type of an error with that of an answer.
JSON_TYPE = "application/json"


# The titles are the contract's sentences.
CONTRACT_PROBLEMS: dict[str, ProblemType] = {
    # Callers.
    "not_authenticated": ProblemType(403, "Not authenticated"),
    "bad_credentials": ProblemType(403, "Invalid authentication credentials"),
    "token_expired": ProblemType(401, "Token expired"),
    "token_invalid": ProblemType(401, "Invalid token"),
    "token_issuer_invalid": ProblemType(401, "Invalid token issuer"),
    "user_not_found_for_token": ProblemType(401, "User not found"),
    "admin_token_invalid": ProblemType(401, "Admin token invalid"),
    "forbidden": ProblemType(403, "Forbidden"),
    "not_found": ProblemType(404, "Not Found"),
    "validation_failed": ProblemType(422, "The request is not valid"),
    # Sign-ins.
    "missing_otp_session": ProblemType(400, "Missing OTP session"),
    "invalid_otp": ProblemType(400, "Invalid OTP"),
    "otp_locked": ProblemType(429, "Too many wrong codes"),
    "otp_limited": ProblemType(429, "Too many codes were sent"),
    "invalid_username": ProblemType(400, "invalid_username"),
    "invalid_name": ProblemType(422, "The request is not valid"),
    "username_taken": ProblemType(400, "username_taken"),
    "invalid_phone": ProblemType(400, "invalid_phone"),
    "phone_taken": ProblemType(400, "phone_taken"),
    "weak_password": ProblemType(400, "weak_password"),
    "invalid_credentials": ProblemType(401, "invalid_credentials"),
    "dev_credentials_invalid": ProblemType(401, "Invalid credentials"),
    "refresh_token_invalid": ProblemType(401, "Invalid refresh token"),
    "passkeys_disabled": ProblemType(404, "Passkeys disabled"),
    "passkey_invalid": ProblemType(400, "Invalid credentialId"),
    "passkey_not_found": ProblemType(404, "Credential not found"),
    "passkey_not_verified": ProblemType(400, "Passkey not verified"),
    "sign_in_waits": ProblemType(503, "Sign-in is not available at the moment"),
    "login_limited": ProblemType(429, "Too many wrong passwords"),
    "session_not_found": ProblemType(404, "Session not found"),
    "sms_failed": ProblemType(503, "The code could not be sent"),
    # Keys.
    "missing_idempotency_key": ProblemType(400, "Missing idempotency key"),
    "idempotency_key_too_long": ProblemType(400, "Idempotency key too long"),
    "idempotency_key_invalid": ProblemType(400, "Invalid idempotency key"),
    "idempotency_conflict": ProblemType(409, "Idempotency-Key conflict for different request"),
    # Money.
    "phone_not_proven": ProblemType(403, "Phone not proven"),
    "insufficient_funds": ProblemType(400, "Insufficient balance"),
    "agent_insufficient_funds": ProblemType(400, "Agent insufficient balance"),
    "merchant_insufficient_funds": ProblemType(400, "Insufficient merchant balance"),
    "currency_mismatch": ProblemType(400, "Currency mismatch"),
    "transfer_limit_exceeded": ProblemType(400, "KYC transaction limit exceeded"),
    "daily_amount_exceeded": ProblemType(400, "KYC daily limit exceeded"),
    "hourly_amount_exceeded": ProblemType(429, "Velocity limit"),
    "hourly_count_exceeded": ProblemType(429, "Velocity limit"),
    "risk_blocked": ProblemType(403, "risk_blocked"),
    "invalid_amount": ProblemType(400, "Invalid amount"),
    "balance_overflow": ProblemType(400, "Balance out of range"),
    "ceiling_exceeded": ProblemType(400, "Balance out of range"),
    "account_frozen": ProblemType(403, "Wallet frozen"),
    "account_closed": ProblemType(403, "Wallet closed"),
    "recipient_not_found": ProblemType(404, "Recipient not found"),
    "transfer_to_self": ProblemType(400, "Cannot transfer to self"),
    "topup_disabled": ProblemType(403, "Topup disabled"),
    "no_provider": ProblemType(503, "No payment provider"),
    "payment_not_found": ProblemType(404, "Payment not found"),
    # Merchants.
    "not_allowed": ProblemType(403, "Not allowed"),
    "kyc_level_required": ProblemType(403, "KYC level required"),
    "kyc_approval_required": ProblemType(400, "KYC approval required"),
    "not_a_merchant": ProblemType(403, "Not a merchant"),
    "merchant_only": ProblemType(403, "Merchant only"),
    "merchant_not_provisioned": ProblemType(400, "Merchant not provisioned"),
    "invalid_qr_format": ProblemType(400, "Invalid QR format"),
    "qr_not_active": ProblemType(404, "QR not active"),
    "qr_not_found": ProblemType(404, "QR not found"),
    "qr_expired": ProblemType(400, "QR expired"),
    "qr_amount_required": ProblemType(400, "Amount required for static QR"),
    "invalid_format": ProblemType(400, "Invalid format"),
    "invalid_payload": ProblemType(400, "Invalid payload"),
    "invalid_phone_format": ProblemType(400, "Invalid phone format"),
    "target_not_found": ProblemType(404, "Target not found"),
    "unsupported_cpm_format": ProblemType(400, "Unsupported CPM format"),
    "invalid_time_range": ProblemType(400, "Invalid time range"),
    "missing_headers": ProblemType(401, "Missing headers"),
    "invalid_signature": ProblemType(401, "Invalid signature"),
    "insufficient_scope": ProblemType(403, "Insufficient scope"),
    # Requests and links.
    "request_to_self": ProblemType(400, "Cannot request from self"),
    "request_not_found": ProblemType(404, "Request not found"),
    "not_yours_to_accept": ProblemType(403, "Not your request to accept"),
    "too_many_open_items": ProblemType(409, "Too many open items"),
    "sender_blocked": ProblemType(403, "Not allowed"),
    "only_requester_can_cancel": ProblemType(403, "Only requester can cancel"),
    "invalid_link_format": ProblemType(400, "Invalid link format"),
    "link_not_active": ProblemType(404, "Link not active"),
    "link_expired": ProblemType(400, "Link expired"),
    "link_amount_required": ProblemType(400, "Amount required for static link"),
    # Invoices and subscriptions.
    "invoice_to_self": ProblemType(400, "Cannot invoice yourself"),
    "mandate_to_self": ProblemType(400, "Cannot give yourself a mandate"),
    "invoice_not_found": ProblemType(404, "Invoice not found"),
    "not_your_invoice": ProblemType(403, "Not your invoice"),
    "invoice_canceled": ProblemType(400, "Cannot pay canceled invoice"),
    "invoice_expired": ProblemType(400, "Cannot pay expired invoice"),
    "mandate_cap_reached": ProblemType(400, "Mandate limit reached"),
    "mandate_not_found": ProblemType(404, "Mandate not found"),
    "merchant_not_found": ProblemType(404, "Merchant not found"),
    "payable_not_open": ProblemType(409, "Not open any more"),
    "payee_not_verified": ProblemType(403, "Payee not verified"),
    "target_not_a_merchant": ProblemType(400, "Target is not a merchant"),
    "subscription_not_found": ProblemType(404, "Not found"),
    # Refunds.
    "original_not_found": ProblemType(404, "Original transfer not found"),
    "original_invalid": ProblemType(400, "Invalid original transfer"),
    "not_owner_of_funds": ProblemType(403, "Not owner of original funds"),
    "exceeds_reversible": ProblemType(400, "Exceeds refundable amount"),
    "already_reversed": ProblemType(400, "Exceeds refundable amount"),
    "refund_not_found": ProblemType(404, "Not found"),
    # Cash.
    "not_an_agent": ProblemType(403, "Not an agent"),
    "not_owner": ProblemType(403, "Not owner"),
    "agent_not_found": ProblemType(404, "Agent not found"),
    "agent_limit_exceeded": ProblemType(403, "Agent limit exceeded"),
    "own_cash_request": ProblemType(403, "Not your own request"),
    "not_your_cash_request": ProblemType(403, "Another agent was named"),
    # Vouchers.
    "voucher_not_found": ProblemType(404, "Voucher not found"),
    "voucher_not_active": ProblemType(400, "Voucher not active"),
    "voucher_not_revocable": ProblemType(400, "Cannot revoke non-active voucher"),
    "invalid_prefix": ProblemType(400, "Invalid prefix"),
    # Webhooks.
    "endpoint_missing": ProblemType(404, "Endpoint missing"),
    # Internal services.
    "internal_request_not_found": ProblemType(404, "Not found"),
    "delivery_not_found": ProblemType(404, "Not found"),
    "merchant_key_not_found": ProblemType(404, "Not found"),
    # The payment page.
    "code_not_found": ProblemType(404, "Code not found"),
    "receipt_not_found": ProblemType(404, "Receipt not found"),
    "form_too_old": ProblemType(403, "This form was too old"),
    "signed_out": ProblemType(403, "Not signed in"),
    # Administration.
    "user_not_found": ProblemType(404, "User not found"),
    "endpoint_not_found": ProblemType(404, "Not found"),
    "kyc_not_pending": ProblemType(409, "KYC not pending"),
}


# The codes of the whole service look the same on all surfaces, except where the contract has its own.
PROBLEM_TYPES = {**PROBLEMS, **CONTRACT_PROBLEMS}


def problem_type(code: str) -> ProblemType:
    """Return the status and the title of a code on this surface."""
    return PROBLEM_TYPES.get(code) or PROBLEM_TYPES["internal_error"]


def refused(refusal: Refusal) -> web.Response:
    """Answer an expected refusal."""
    kind = problem_type(refusal.code)
    error: dict[str, Any] = {
        "code": f"http_{kind.status}",
        "message": kind.title if refusal.code in CONTRACT_PROBLEMS else refusal.detail,
    }
    extra = dict(refusal.extra)
    if refusal.code == "validation_failed":
        extra["detail"] = extra.pop("errors")
    headers = {hdrs.CONTENT_TYPE: JSON_TYPE}
    if refusal.retry_after is not None:
        headers[hdrs.RETRY_AFTER] = seconds_to_wait(refusal.retry_after)
        seconds = int(headers[hdrs.RETRY_AFTER])
        if refusal.code == "rate_limited":
            details = {"retry_after": seconds}
            error = {"code": "rate_limited", "message": "Too many requests", "details": details}
        elif kind.status == web.HTTPTooManyRequests.status_code:
            extra["retry_after"] = seconds
    if refusal.replayed:
        headers[REPLAYED] = "true"
    body = {
        "type": f"/problems/{refusal.code}",
        "title": kind.title,
        "status": kind.status,
        "detail": refusal.detail,
        "code": refusal.code,
        "error": error,
        **extra,
    }
    return web.Response(status=kind.status, body=msgspec.json.encode(body), headers=headers)


# The JSON Schema of a refusal: problem details, and the members that its clients read beside them.
PROBLEM_SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["type", "title", "status", "detail", "code", "error"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {
            "anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "object"}}],
            "description": "A sentence; with `validation_failed` a list of faults, each with its place.",
        },
        "code": {"type": "string", "description": "A stable word."},
        "error": {
            "type": "object",
            "required": ["code", "message"],
            "properties": {"code": {"type": "string"}, "message": {"type": "string"}},
        },
    },
}
