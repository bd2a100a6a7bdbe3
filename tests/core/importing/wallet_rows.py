"""A wallet database of before: three users, a bakery among them, with one of everything that is open."""

from datetime import datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

AT = datetime(2025, 6, 1, 12, 30, 15, 250000)  # noqa: DTZ001 - the old services' times have no zone
ALICE, BAKER, CAROL = UUID(int=0xA11CE), UUID(int=0xBA4E4), UUID(int=0xCA401)
BALANCES = {ALICE: 12_345, BAKER: 2_147_483_647, CAROL: 0}


def wallet(user: UUID) -> UUID:
    return UUID(int=user.int + 1)


def user(user_id: UUID, phone: str, **more: Any) -> dict[str, Any]:
    return {
        "id": user_id, "phone": phone, "username": None, "password_hash": None, "name": None, "is_merchant": False,
        "is_agent": False, "merchant_status": "none", "kyc_level": 0, "kyc_status": "none", "created_at": AT, **more,
    }  # fmt: skip


def rows() -> dict[str, list[dict[str, Any]]]:
    both = {"created_at": AT, "updated_at": AT}
    money = {"amount_cents": 500, "currency_code": "SYP"}
    transfer = uuid4()
    return {
        "users": [
            user(
                ALICE,
                "+963911111111",
                username="Alice",
                password_hash="$2b$",
                kyc_level=1,
                kyc_status="approved",
            ),
            user(
                BAKER,
                "+963922222222",
                name="Bäckerei",
                is_merchant=True,
                merchant_status="approved",
                kyc_level=1,
                kyc_status="approved",
            ),
            user(CAROL, "+963933333333", username="alice"),
        ],
        "wallets": [
            {
                "id": wallet(id_),
                "user_id": id_,
                "balance_cents": cents,
                "currency_code": "SYP",
                "created_at": AT,
            }
            for id_, cents in BALANCES.items()
        ],
        "merchants": [
            {
                "id": UUID(int=7),
                "user_id": BAKER,
                "wallet_id": wallet(BAKER),
                "created_at": AT,
                "fee_bps": 150,
            }
        ],
        "transfers": [
            {
                "id": transfer,
                "from_wallet_id": wallet(ALICE),
                "to_wallet_id": wallet(BAKER),
                **money,
                "status": "completed",
                "idempotency_key": "app-1700000000000",
                "created_at": AT,
            }
        ],
        "ledger_entries": [
            {
                "id": uuid4(),
                "transfer_id": transfer,
                "wallet_id": wallet(id_),
                "amount_cents_signed": cents,
                "created_at": AT,
            }
            for id_, cents in BALANCES.items()
        ],
        "merchant_api_keys": [
            {
                "id": uuid4(),
                "user_id": BAKER,
                "key_id": "0123456789abcdef",
                "secret": "s3cret",
                "created_at": AT,
                "scope": None,
            }
        ],
        "webhook_endpoints": [
            {
                "id": UUID(int=21),
                "user_id": BAKER,
                "url": "https://shop.test/hook",
                "secret": "hook-secret",
                "active": True,
                "created_at": AT,
            },
            {
                "id": UUID(int=22),
                "user_id": BAKER,
                "url": "https://shop.test/old",
                "secret": "x",
                "active": False,
                "created_at": AT,
            },
            {
                "id": UUID(int=23),
                "user_id": uuid4(),
                "url": "https://shop.test/",
                "secret": "x",
                "active": True,
                "created_at": AT,
            },
        ],
        "payment_requests": [
            {
                "id": UUID(int=31),
                "requester_user_id": BAKER,
                "target_user_id": ALICE,
                **money,
                "status": "pending",
                **both,
                "idempotency_key": None,
                "expires_at": AT + timedelta(days=9_000),
                "metadata_json": {"z": 1, "a": 2},
            },
            {
                "id": UUID(int=32),
                "requester_user_id": BAKER,
                "target_user_id": ALICE,
                **money,
                "status": "accepted",
                **both,
                "idempotency_key": None,
                "expires_at": None,
                "metadata_json": None,
            },
        ],
        "invoices": [
            {
                "id": UUID(int=41),
                "issuer_user_id": BAKER,
                "payer_user_id": ALICE,
                **money,
                "status": "pending",
                "reference": "R-1",
                "description": None,
                "due_at": AT,
                **both,
                "paid_transfer_id": None,
            }
        ],
        "payment_links": [
            {
                "id": UUID(int=51),
                "user_id": BAKER,
                "code": "link-code",
                **money,
                "mode": "dynamic",
                "status": "active",
                "expires_at": None,
                "created_at": AT,
            },
            {
                "id": UUID(int=52),
                "user_id": BAKER,
                "code": "tip-jar",
                **money,
                "amount_cents": 0,
                "mode": "static",
                "status": "active",
                "expires_at": None,
                "created_at": AT,
            },
        ],
        "qr_codes": [
            {
                "id": UUID(int=61),
                "merchant_id": UUID(int=7),
                "code": "qr-code",
                **money,
                "expires_at": AT,
                "status": "active",
                "mode": "static",
                "created_at": AT,
            }
        ],
        "ebill_mandates": [
            {
                "id": UUID(int=71),
                "payer_user_id": ALICE,
                "issuer_user_id": BAKER,
                "autopay": True,
                "max_amount_cents": None,
                "status": "active",
                **both,
            }
        ],
        "subscriptions": [
            {
                "id": UUID(int=81),
                "payer_user_id": ALICE,
                "merchant_user_id": BAKER,
                **money,
                "interval_days": 30,
                "next_charge_at": AT,
                "status": "active",
                **both,
            }
        ],
        "topup_vouchers": [
            {
                "id": uuid4(),
                "code": "V",
                **money,
                "status": "active",
                "created_by_user_id": BAKER,
                "redeemed_by_user_id": None,
                "created_at": AT,
                "redeemed_at": None,
            }
        ],
        "passkey_credentials": [
            {
                "id": uuid4(),
                "user_id": ALICE,
                "credential_id": "Y3JlZGVudGlhbA",
                "public_key": "pQECAyYg",
                "sign_count": 3,
                "created_at": AT,
            },
            {
                "id": uuid4(),
                "user_id": ALICE,
                "credential_id": "bm9uZQ",
                "public_key": None,
                "sign_count": 0,
                "created_at": AT,
            },
        ],
        "cash_requests": [
            {
                "id": uuid4(),
                "type": "cash_out",
                "user_id": ALICE,
                "agent_user_id": None,
                **money,
                "status": "pending",
                **both,
                "idempotency_key": None,
            }
        ],
    }
