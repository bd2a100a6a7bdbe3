"""Keys of what keeps the data: PostgreSQL, its pooler and its replica, and Redis."""

from typing import Annotated, Literal

from pydantic import BaseModel

from core.settings.kinds import Lower, PostgresUrl, RedisUrl, Switch, key


class Storage(BaseModel):
    """PostgreSQL and Redis."""

    database_url: PostgresUrl = key(
        "",
        "PostgreSQL, as postgresql://user:password@host:5432/database; unset: an embedded server",
        also=("DB_URL", "PAYMENTS_DB_URL"),
    )
    database_direct_url: PostgresUrl = key(
        "",
        "PostgreSQL past the pooler, with the owner's login: migrations and operators' commands go there; unset:"
        " DATABASE_URL",
    )
    backup_to: str = key(
        "",
        "Place of backups, a folder or s3://bucket/folder (with AWS_ACCESS_KEY_ID and the like); unset: `backups` in"
        " the state directory",
    )
    database_pool_size: int = key(
        8, "Connections of one process, its posting lane's included", unit="connections", ge=2, le=200
    )
    database_statement_timeout_ms: int = key(
        10_000, "A statement that runs longer is cancelled", unit="milliseconds", ge=100, le=600_000
    )
    database_lock_timeout_ms: int = key(
        2_000, "A wait for a lock that lasts longer is given up", unit="milliseconds", ge=10, le=60_000
    )
    database_pooler: Annotated[Literal["", "transaction"], Lower] = key(
        "",
        "transaction: DATABASE_URL is a pooler (PgBouncer) that lends a server's connection for one transaction at a"
        " time; the login's own settings then have to be those that `tallystick pooler` prints",
    )
    database_prepared_statements: Switch = key(
        True,
        "Keep prepared statements; with DATABASE_POOLER=transaction only if this is set to true, for a pooler that"
        " knows them (PgBouncer 1.21 with max_prepared_statements)",
    )
    database_replica_url: PostgresUrl = key(
        "",
        "A streaming standby that lists and reports are read from; unset: all is read from DATABASE_URL",
    )
    replica_max_lag_ms: int = key(
        5_000,
        "How old the data of the standby may be; while they may be older, the primary is read",
        unit="milliseconds",
        ge=100,
        le=3_600_000,
    )
    replica_reads: Annotated[Literal["reports", "lists"], Lower] = key(
        "reports",
        "What is read from the standby: reports (exports, reports, lists of administrators), or lists, too (those and"
        " statements of every caller, who may miss what they have just done)",
    )
    auto_create_schema: Switch = key(False, "Development toggle: migrate when the API starts", dev="true")
    redis_url: RedisUrl = key(
        "", "Redis or Valkey, as redis://:password@host:6379/0; unset: an embedded server"
    )
