"""Keys of the wallet surface: sign-in, money rules, limits, internal and admin access."""

from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator

from core.settings.kinds import Digests, Lower, PrivateKeys, Secret, Secrets, Switch, Upper, Url, Words, key

# The contract's phone. Prod wants another one: the holder of this phone could sign in to the fees.
FEE_WALLET_PHONE = "+963999999999"


def _sms_provider(value: object) -> object:
    """A word of the service before this one that names a mobile operator gets a sentence."""
    word = str(value).strip().lower()
    if word not in {"none", "log", "http"}:
        raise ValueError(
            "log or http; an operator (mtn) is reached by http: write http here, and the operator's address into"
            " OTP_SMS_HTTP_URL"
        )
    return word


class Tokens(BaseModel):
    """Wallets: tokens and access."""

    jwt_secret: Secret = key(
        "",
        "Key that signs users' tokens (HS256), 32 characters or more; unset outside dev: wallet routes are off",
        dev="change_me_in_prod",
    )
    jwt_secret_previous: Secrets = key(
        "",
        "Secrets of earlier tokens (HS256) that still count, comma separated; leave them out once those have expired",
    )
    jwt_alg: Annotated[Literal["HS256", "RS256"], Upper] = key(
        "HS256", "How users' tokens are signed: HS256 or RS256"
    )
    jwt_key_id: str = key(
        "kid-dev",
        "Ids of the RS256 keys in their order, comma separated; a key without one goes by its RFC 7638 thumbprint",
    )
    jwt_rs_private_pem: PrivateKeys = key(
        "",
        "Private keys for RS256, PEM one after the other: the first signs, tokens of all count; unset outside prod: one"
        " is made and kept in STATE_DIR",
    )
    jwt_expires_minutes: int = key(43_200, "Life of a user's token", unit="minutes", ge=1, le=525_600)
    session_access_minutes: int = key(
        15, "Life of a token that came with a refresh token", unit="minutes", ge=1, le=1_440
    )
    session_refresh_days: int = key(30, "Life of a refresh token that is not used", unit="days", ge=1, le=365)
    jwt_issuer: str = key("payments", "Claim iss of users' tokens")
    jwt_audience: str = key("users", "Claim aud of users' tokens")
    jwt_validate_iss: Switch = key(False, "Whether iss is compared")
    jwt_validate_aud: Switch = key(False, "Whether aud is compared")
    jwt_clock_skew_secs: int = key(0, "Leeway on a token's times", unit="seconds", ge=0, le=3_600)
    internal_api_secret: Secrets = key(
        "",
        "Keys of /internal, 32 characters or more, comma separated during a rotation: all count; unset outside dev:"
        " /internal is off",
        dev="dev_secret",
    )
    internal_require_hmac: Switch = key(True, "Whether /internal refuses the plain X-Internal-Secret")
    internal_hmac_ttl_secs: int = key(
        300, "How long a signature of /internal is remembered against replay", unit="seconds", ge=1, le=86_400
    )
    merchant_secret_keys: Secrets = key(
        "",
        "Keys under which merchants' API secrets are stored, 32 characters or more, comma separated, newest first;"
        " unset: SECRETS_KEYS, or JWT_SECRET, whose change then ends those secrets",
    )
    admin_token: Secrets = key(
        "", "Tokens of /admin, comma separated; unset with ADMIN_TOKEN_SHA256: /admin is off"
    )
    admin_token_sha256: Digests = key("", "Tokens of /admin as SHA-256 digests in hex, comma separated")


class SignIn(BaseModel):
    """Wallets: sign-in."""

    otp_mode: Annotated[Literal["dev", "redis"], Lower] = key(
        "dev", "Sign-in codes: dev (one fixed code, a development toggle) or redis (sent, counted, used once)"
    )
    otp_ttl_secs: int = key(300, "Life of a sign-in code", unit="seconds", ge=1, le=86_400)
    otp_max_attempts: int = key(5, "Tries at one sign-in code", unit="tries", ge=1, le=100)
    otp_dev_code: Secret = key("123456", "The fixed code of OTP_MODE=dev")
    otp_storage_secret: Secrets = key(
        "",
        "Keys under which sign-in codes are stored, 32 characters or more, comma separated during a rotation: the first"
        " stores, all count; unset: one derived from the tokens' key",
    )
    otp_client_sends: int = key(
        300,
        "Sign-in codes for one client's address within 15 minutes, beside the 3 for one phone; 0: no limit, as behind a"
        " gateway that does not say whom it speaks for",
        unit="codes",
        ge=0,
        le=1_000_000,
    )
    otp_client_failures: int = key(
        300,
        "Wrong codes from one client's address within an hour, beside the locks of the phone; 0: no limit",
        unit="tries",
        ge=0,
        le=1_000_000,
    )
    login_max_failures: int = key(
        30,
        "Wrong passwords for one username within 15 minutes; 0: no limit",
        unit="tries",
        ge=0,
        le=1_000_000,
    )
    otp_sms_provider: Annotated[Literal["log", "http"], BeforeValidator(_sms_provider)] = key(
        "log", "Sender of sign-in codes: log (nobody: a log line, which holds the code in dev only) or http"
    )
    otp_sms_fallback_provider: Annotated[Literal["none", "log", "http"], BeforeValidator(_sms_provider)] = (
        key("none", "Sender of sign-in codes when the first cannot")
    )
    otp_sms_template: str = key("Your verification code is {code}", "Text of the message; {code} is replaced")
    otp_sms_http_url: Url = key(
        "", "Address of the http provider of messages; docs/sign-in.md has its request"
    )
    otp_sms_http_auth_token: Secret = key("", "Bearer token at the http provider of messages")
    otp_sms_timeout_secs: float = key(5, "Time limit of sending a message", unit="seconds", ge=0.1, le=30)
    otp_sms_sender_name: str = key("", "Sender's name of the message")
    passkeys_enabled: Switch = key(True, "Whether passkeys may be used")
    passkeys_dev_unsafe: Switch = key(
        False, "No effect: a passkey always proves itself; prod refuses this old key", dev="true"
    )
    passkeys_rp_id: str = key("localhost", "Passkeys: id of the relying party")
    passkeys_rp_name: str = key("Tallystick", "Passkeys: name of the relying party")
    passkeys_origin: Words = key("http://localhost", "Passkeys: allowed origins, comma separated")
    dev_enable_topup: Switch = key(False, "Development toggle: users may top up their own wallet", dev="true")
    dev_reset_user_state_on_login: Switch = key(
        False,
        "Development toggle: a sign-in resets KYC and merchant state. Without it, those on WALLET_PORT alone do in"
        " ENV=dev",
    )
    dev_disable_otp: Switch = key(False, "Development toggle: sign-in codes are off")


class Money(BaseModel):
    """Wallets: money rules."""

    starting_credit_cents: int = key(
        0, "Credit of a new wallet", unit="minor units", ge=0, le=2**63 - 1, dev="10000000"
    )
    qr_expiry_minutes: int = key(15, "Life of a QR code", unit="minutes", ge=1, le=525_600)
    request_expiry_minutes: int = key(
        30, "Life of a payment request; 0: no end", unit="minutes", ge=0, le=525_600
    )
    invoices_autopay_poll_secs: float = key(
        0,
        "How often each worker looks for due invoices with a mandate, beside its clock, which does each 5 minutes;"
        " 0: the clock alone",
        unit="seconds",
        ge=0,
        le=86_400,
    )
    autopay_notice_hours: int = key(
        0,
        "Least time between the notice to a payer and the payment of an invoice by a mandate; a payer may ask for more",
        unit="hours",
        ge=0,
        le=8_760,
    )
    fee_wallet_phone: str = key(
        FEE_WALLET_PHONE, "Phone of the account that receives fees; not this one in prod"
    )
    merchant_fee_bps: int = key(0, "Fee on payments to a merchant", unit="basis points", ge=0, le=10_000)
    cashin_fee_bps: int = key(0, "Fee on cash-in, paid by the agent", unit="basis points", ge=0, le=10_000)
    cashout_fee_bps: int = key(
        0, "Fee on cash-out, paid by the customer", unit="basis points", ge=0, le=10_000
    )
    voucher_fee_bps: int = key(100, "Fee on redeeming a voucher", unit="basis points", ge=0, le=10_000)
    refund_fee_policy: Annotated[Literal["keep", "return"], Lower] = key(
        "keep", "The merchant's fee when a payment is refunded: keep, or return it in proportion"
    )
    open_demands_max: int = key(
        20,
        "Most open payment requests, and most open invoices, of one user to another, and most open cash requests of one"
        " user; 0: no bound",
        unit="items",
        ge=0,
        le=1_000_000,
    )
    # An hour is enough to walk to an agent, and money that nobody fetches is soon back in the wallet.
    cash_request_expiry_minutes: int = key(
        60,
        "Life of a cash request, and of the hold of a cash-out; 0: no end",
        unit="minutes",
        ge=0,
        le=525_600,
    )
    kyc_l0_tx_max_cents: int = key(
        100_000_000, "KYC level 0: most in one transfer", unit="minor units", ge=0, le=2**63 - 1
    )
    kyc_l0_daily_max_cents: int = key(
        500_000_000, "KYC level 0: most in one UTC day", unit="minor units", ge=0, le=2**63 - 1
    )
    kyc_l1_tx_max_cents: int = key(
        500_000_000, "KYC level 1 and above: most in one transfer", unit="minor units", ge=0, le=2**63 - 1
    )
    kyc_l1_daily_max_cents: int = key(
        2_000_000_000, "KYC level 1 and above: most in one UTC day", unit="minor units", ge=0, le=2**63 - 1
    )
    kyc_min_level_for_merchant_pay: int = key(1, "KYC level needed to pay a merchant", ge=0, le=2)
    kyc_min_level_for_merchant_qr: int = key(1, "KYC level needed to be paid by QR code or link", ge=0, le=2)
    fraud_p2p_max_tx_per_hour: int = key(
        100,
        "Most outgoing transfers of a wallet, person to person",
        unit="transfers an hour",
        ge=0,
        le=10_000_000,
    )
    # As much as KYC level 1 allows in one transfer: the old service's 10,000,000 made both such limits unreachable.
    fraud_p2p_max_sum_per_hour: int = key(
        500_000_000,
        "Most outgoing money of a wallet, person to person",
        unit="minor units an hour",
        ge=0,
        le=2**63 - 1,
    )
    fraud_qr_max_tx_per_hour: int = key(
        200, "Most outgoing transfers of a wallet, by QR code", unit="transfers an hour", ge=0, le=10_000_000
    )
    audit_retention_days: int = key(
        0, "How long audit records are kept, 30 or more; 0: for ever", unit="days", ge=0, le=36_500
    )
    fraud_risk_enabled: Switch = key(False, "Whether payments are scored for risk")
    fraud_high_amount_cents: int = key(
        2_000_000, "Amount from which the score rises", unit="minor units", ge=0, le=2**63 - 1
    )
    fraud_flag_score: int = key(60, "Score from which a payment is flagged", unit="points", ge=0, le=1_000)
    fraud_block_score: int = key(100, "Score from which a payment is blocked", unit="points", ge=0, le=1_000)
