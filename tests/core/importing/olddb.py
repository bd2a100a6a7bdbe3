"""Databases of the services before this one: the contracts' table definitions, in PostgreSQL, SQLite and MySQL."""

import json
import sqlite3
from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

import asyncpg
import pymysql

# A column is `name:type`, null where it ends in `?`. The types are those of the contracts, by their dialects.
TYPES = {
    "postgresql": {
        "uuid": "uuid", "text": "text", "int": "integer", "big": "bigint", "bool": "boolean", "time": "timestamp",
        "json": "jsonb", "money8": "numeric(10,8)", "money2": "numeric(10,2)", "serial": "bigserial", "bytes": "bytea",
    },
    "sqlite": {
        "uuid": "char(32)", "text": "text", "int": "integer", "big": "integer", "bool": "boolean", "time": "datetime",
        "json": "json", "money8": "numeric(10,8)", "money2": "numeric(10,2)", "serial": "integer", "bytes": "blob",
    },
    "mysql": {
        "uuid": "char(36)", "text": "text", "int": "int", "big": "bigint", "bool": "tinyint(1)",
        "time": "datetime(6)", "json": "json", "money8": "decimal(10,8)", "money2": "decimal(10,2)", "serial": "bigint",
        "bytes": "blob",
    },
}  # fmt: skip

WALLETS = {
    "users": "id:uuid phone:text username:text? password_hash:text? name:text? is_merchant:bool is_agent:bool"
    " merchant_status:text kyc_level:int kyc_status:text created_at:time",
    "wallets": "id:uuid user_id:uuid balance_cents:int currency_code:text created_at:time",
    "transfers": "id:uuid from_wallet_id:uuid? to_wallet_id:uuid amount_cents:int currency_code:text status:text"
    " idempotency_key:text? created_at:time",
    "ledger_entries": "id:uuid transfer_id:uuid wallet_id:uuid amount_cents_signed:int created_at:time",
    "merchants": "id:uuid user_id:uuid wallet_id:uuid created_at:time fee_bps:int?",
    "merchant_api_keys": "id:uuid user_id:uuid key_id:text secret:text created_at:time scope:text?",
    "qr_codes": "id:uuid merchant_id:uuid code:text amount_cents:int currency_code:text expires_at:time status:text"
    " mode:text created_at:time",
    "payment_links": "id:uuid user_id:uuid code:text amount_cents:int currency_code:text mode:text status:text"
    " expires_at:time? created_at:time",
    "payment_requests": "id:uuid requester_user_id:uuid target_user_id:uuid amount_cents:int currency_code:text"
    " status:text created_at:time updated_at:time idempotency_key:text? expires_at:time? metadata_json:json?",
    "cash_requests": "id:uuid type:text user_id:uuid agent_user_id:uuid? amount_cents:int currency_code:text"
    " status:text created_at:time updated_at:time idempotency_key:text?",
    "subscriptions": "id:uuid payer_user_id:uuid merchant_user_id:uuid amount_cents:int currency_code:text"
    " interval_days:int next_charge_at:time status:text created_at:time updated_at:time",
    "invoices": "id:uuid issuer_user_id:uuid payer_user_id:uuid amount_cents:int currency_code:text status:text"
    " reference:text? description:text? due_at:time created_at:time updated_at:time paid_transfer_id:uuid?",
    "ebill_mandates": "id:uuid payer_user_id:uuid issuer_user_id:uuid autopay:bool max_amount_cents:int? status:text"
    " created_at:time updated_at:time",
    "webhook_endpoints": "id:uuid user_id:uuid url:text secret:text active:bool created_at:time",
}
# The migrations of the wallets lack these; AUTO_CREATE_SCHEMA makes them.
WALLETS_BEYOND = {
    "topup_vouchers": "id:uuid code:text amount_cents:int currency_code:text status:text created_by_user_id:uuid"
    " redeemed_by_user_id:uuid? created_at:time redeemed_at:time?",
    "passkey_credentials": "id:uuid user_id:uuid credential_id:text public_key:text? sign_count:int created_at:time",
}
INBOX = {
    "payment_events": "id:serial provider:text event_id:text event_type:text payload_json:text received_at:time",
    "dlq_messages": "id:serial provider:text event_id:text payload_json:text error_kind:text attempts:int"
    " next_retry_at:time created_at:time",
}
ORDERS = {
    "users": "id:serial name:text email:text password:text email_verified_at:time? remember_token:text? status:int"
    " role:int created_at:time updated_at:time",
    "subscriptions": "id:serial name:text price:money2 tokens:big",
    "merchant_api_keys": "id:serial hash:text merchant_id:big status:int created_at:time updated_at:time",
    "providers": "id:serial name:text alias:text url:text? created_at:time updated_at:time",
    "payments": "id:serial price:money8 amount:money8 merchant_id:big provider_id:big order_id:big status:int"
    " created_at:time updated_at:time",
    "user_subscriptions": "id:serial user_id:big subscription_id:big used_tokens:big status:int created_at:time"
    " updated_at:time",
    "api_requests": "id:serial event_id:text payment_id:big subscription_id:big user_id:big amount:money8 source:text"
    " created_at:time updated_at:time",
}
ORDERS_LOGS = {
    "payment_logs": "id:serial payment_id:big event_type:int status:int message:text? payload:text? retry_count:int"
    " next_retry_at:time? created_at:time",
}
KASPI = {
    "paymentconfig": "id:serial shop_id:int organization_bin:text device_token:text? is_active:bool provider:text"
    " created_at:time updated_at:time",
    "paymentlog": "id:serial shop_id:int organization_bin:text operation_type:text external_id:text? amount:int?"
    " status:text? error_message:text? provider:text created_at:time",
}
ORCHESTRATION = {
    "payments": "id:serial request_id:text caller_service:text resource_type:text resource_id:text customer_ref:text?"
    " amount_cents:big currency:text status:int payment_method:int payment_type:int provider:int"
    " recurring_interval:text? recurring_interval_count:int? provider_payment_id:text?"
    " provider_subscription_id:text? checkout_url:text? provider_callback_hash:text provider_callback_url:text"
    " status_callback_url:text refunded_cents:big refundable_cents:big metadata_json:json"
    " callback_delivery_status:int callback_delivery_attempts:int callback_delivery_next_at:time?"
    " callback_delivery_last_error:text? created_at:time updated_at:time",
}

Rows = Mapping[str, Sequence[Mapping[str, Any]]]


def definitions(tables: Mapping[str, str], dialect: str) -> list[str]:
    """Return the statements that make the tables."""
    quote = "`" if dialect == "mysql" else '"'
    made = []
    for table, columns in tables.items():
        parts = []
        for column in columns.split():
            name, kind = column.rstrip("?").split(":")
            null = "" if column.endswith("?") else " NOT NULL"
            parts.append(f"{quote}{name}{quote} {TYPES[dialect][kind]}{null}")
        made.append(f"CREATE TABLE {table} ({', '.join(parts)})")
    return made


def fill_sqlite(path: Path, tables: Mapping[str, str], rows: Rows) -> str:
    """Make a file of SQLite, and return its address."""
    with sqlite3.connect(path) as connection:
        for statement in definitions(tables, "sqlite"):
            connection.execute(statement)
        for table in tables:
            for row in rows.get(table, ()):
                marks = ", ".join("?" * len(row))
                names = ", ".join(f'"{name}"' for name in row)
                values = [_sqlite(value) for value in row.values()]
                connection.execute(_insertion(table, names, marks), values)
    connection.close()
    return f"sqlite:///{path}"


def _insertion(table: str, names: str, marks: str) -> str:
    return f"INSERT INTO {table} ({names}) VALUES ({marks})"  # noqa: S608 - names of this file


def _sqlite(value: Any) -> Any:
    """Write a value as the old services' library writes it into SQLite."""
    if isinstance(value, UUID):
        return value.hex
    if isinstance(value, datetime):
        return value.strftime("%Y-%m-%d %H:%M:%S.%f")
    if isinstance(value, Decimal):
        return float(value)
    return json.dumps(value) if isinstance(value, dict) else value


async def fill_postgres(url: str, tables: Mapping[str, str], rows: Rows) -> str:
    """Fill an empty database of PostgreSQL, and return its address."""
    connection = await asyncpg.connect(url)
    try:
        for statement in definitions(tables, "postgresql"):
            await connection.execute(statement)
        for table in tables:
            for row in rows.get(table, ()):
                names = ", ".join(f'"{name}"' for name in row)
                marks = ", ".join(f"${place}" for place in range(1, len(row) + 1))
                values = [json.dumps(value) if isinstance(value, dict) else value for value in row.values()]
                await connection.execute(_insertion(table, names, marks), *values)
    finally:
        await connection.close()
    return url


def fill_mysql(url: str, name: str, tables: Mapping[str, str], rows: Rows) -> str:
    """Make a database of MySQL at a server, whose address has none, fill it, and return its address."""
    server = urlsplit(url)
    connection = pymysql.connect(
        host=str(server.hostname),
        port=server.port or 3306,
        user=server.username,
        password=server.password or "",
        charset="utf8mb4",
        autocommit=True,
    )
    with connection, connection.cursor() as cursor:
        cursor.execute(f"DROP DATABASE IF EXISTS {name}")
        cursor.execute(f"CREATE DATABASE {name} CHARACTER SET utf8mb4")
        cursor.execute(f"USE {name}")
        for statement in definitions(tables, "mysql"):
            cursor.execute(statement)
        for table in tables:
            for row in rows.get(table, ()):
                marks = ", ".join(["%s"] * len(row))
                names = ", ".join(f"`{column}`" for column in row)
                values = [_mysql(value) for value in row.values()]
                cursor.execute(_insertion(table, names, marks), values)
    return f"{url.rstrip('/')}/{name}"


def _mysql(value: Any) -> Any:
    if isinstance(value, UUID):
        return str(value)
    return json.dumps(value) if isinstance(value, dict) else value
