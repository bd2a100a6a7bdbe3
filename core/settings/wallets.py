"""Keys of the wallet surface: sign-in, money rules, limits, internal and admin access."""

from typing import Literal

from pydantic import BaseModel

from core.settings.kinds import Digests, Secret, Secrets, Switch, Url, key


class Tokens(BaseModel):
    """Wallets: tokens and access."""

    jwt_secret: Secret = key(
        "",
        "Key that signs users' tokens (HS256), 32 characters or more; unset outside dev: wallet routes are off",
        dev="change_me_in_prod",
    )
    jwt_alg: Literal["HS256", "RS256"] = key("HS256", "How users' tokens are signed: HS256 or RS256")
    jwt_key_id: str = key("kid-dev", "Id of the RS256 key")
    jwt_rs_private_pem: Secret = key("", "Private key for RS256, PEM")
    jwt_expires_minutes: int = key(43_200, "Life of a user's token", unit="minutes", ge=1, le=525_600)
    jwt_issuer: str = key("payments", "Claim iss of users' tokens")
    jwt_audience: str = key("users", "Claim aud of users' tokens")
    jwt_validate_iss: Switch = key(False, "Whether iss is compared")
    jwt_validate_aud: Switch = key(False, "Whether aud is compared")
    jwt_clock_skew_secs: int = key(0, "Leeway on a token's times", unit="seconds", ge=0, le=3_600)
    internal_api_secret: Secret = key(
        "",
        "Key of /internal, 32 characters or more; unset outside dev: /internal is off",
        dev="dev_secret",
    )
    internal_require_hmac: Switch = key(True, "Whether /internal refuses the plain X-Internal-Secret")
    internal_hmac_ttl_secs: int = key(
        300, "How long a signature of /internal is remembered against replay", unit="seconds", ge=1, le=86_400
    )
    merchant_secret_keys: Secrets = key(
        "",
        "Keys under which merchants' API secrets are stored, 32 characters or more, comma separated, newest first;"
        " unset: JWT_SECRET, whose change then ends those secrets",
    )
    admin_token: Secrets = key(
        "", "Tokens of /admin, comma separated; unset with ADMIN_TOKEN_SHA256: /admin is off"
    )
    admin_token_sha256: Digests = key("", "The same as SHA-256 digests in hex, comma separated")


class SignIn(BaseModel):
    """Wallets: sign-in."""

    otp_mode: Literal["dev", "redis"] = key(
        "dev", "Sign-in codes: dev (one fixed code, a development toggle) or redis (sent, counted, used once)"
    )
    otp_ttl_secs: int = key(300, "Life of a sign-in code", unit="seconds", ge=10, le=86_400)
    otp_max_attempts: int = key(5, "Tries at one sign-in code", unit="tries", ge=1, le=100)
    otp_dev_code: Secret = key("123456", "The fixed code of OTP_MODE=dev")
    otp_storage_secret: Secret = key("", "Key under which sign-in codes are stored, 32 characters or more")
    otp_sms_provider: str = key("log", "Who sends sign-in codes")
    otp_sms_fallback_provider: str = key("", "Who sends them when the first cannot")
    otp_sms_template: str = key("Your verification code is {code}", "Text of the message; {code} is replaced")
    otp_sms_http_url: Url = key("", "Address of the http provider of messages")
    otp_sms_http_auth_token: Secret = key("", "Its token")
    otp_sms_sender_name: str = key("", "Sender's name of the message")
    passkeys_enabled: Switch = key(True, "Whether passkeys may be used")
    passkeys_dev_unsafe: Switch = key(False, "Development toggle: passkeys without a proof", dev="true")
    passkeys_rp_id: str = key("localhost", "Passkeys: id of the relying party")
    passkeys_rp_name: str = key("Tallystick", "Passkeys: its name")
    passkeys_origin: str = key("http://localhost", "Passkeys: its origin")
    dev_enable_topup: Switch = key(False, "Development toggle: users may top up their own wallet", dev="true")
    dev_reset_user_state_on_login: Switch = key(
        False, "Development toggle: a sign-in resets KYC and merchant state", dev="true"
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
        0, "How often due invoices are charged; 0: never", unit="seconds", ge=0, le=86_400
    )
    fee_wallet_phone: str = key("+963999999999", "Phone of the account that receives fees")
    merchant_fee_bps: int = key(0, "Fee on payments to a merchant", unit="basis points", ge=0, le=10_000)
    cashin_fee_bps: int = key(0, "Fee on cash-in, paid by the agent", unit="basis points", ge=0, le=10_000)
    cashout_fee_bps: int = key(
        0, "Fee on cash-out, paid by the customer", unit="basis points", ge=0, le=10_000
    )
    voucher_fee_bps: int = key(100, "Fee on redeeming a voucher", unit="basis points", ge=0, le=10_000)
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
    fraud_p2p_max_sum_per_hour: int = key(
        10_000_000,
        "Most outgoing money of a wallet, person to person",
        unit="minor units an hour",
        ge=0,
        le=2**63 - 1,
    )
    fraud_qr_max_tx_per_hour: int = key(
        200, "Most outgoing transfers of a wallet, by QR code", unit="transfers an hour", ge=0, le=10_000_000
    )
    fraud_risk_enabled: Switch = key(False, "Whether payments are scored for risk")
    fraud_high_amount_cents: int = key(
        2_000_000, "Amount from which the score rises", unit="minor units", ge=0, le=2**63 - 1
    )
    fraud_flag_score: int = key(60, "Score from which a payment is flagged", unit="points", ge=0, le=1_000)
    fraud_block_score: int = key(100, "Score from which a payment is blocked", unit="points", ge=0, le=1_000)
