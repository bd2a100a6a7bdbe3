"""Keys of the services before this one that have no use here: each gets one sentence, and back doors a refusal."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from core.settings.load import Settings


class Retired(NamedTuple):
    """Keys that nothing reads, and a sentence on the part that does their work instead."""

    names: tuple[str, ...]
    sentence: str
    # Values in the contracts' own files; a value that begins so asks for nothing and gets no sentence.
    unremarkable: tuple[str, ...] = ()


RETIRED = (
    Retired(
        ("MYSQL_DSN", "MYSQL_MAX_OPEN_CONNS", "MYSQL_MAX_IDLE_CONNS", "MYSQL_CONN_MAX_LIFETIME_MINUTES"),
        "data is kept in PostgreSQL: set DATABASE_URL and DATABASE_POOL_SIZE, and carry the old database over with"
        " `tallystick import`",
    ),
    Retired(("LOGS_DB_URL",), "timelines are kept with the payments in DATABASE_URL"),
    Retired(
        ("RABBITMQ_URL", "EXCHANGE_NAME", "QUEUE_NAME"),
        "no broker is needed: merchants' notifications are sent from the outbox in PostgreSQL",
    ),
    Retired(
        ("CELERY_BROKER_URL", "CELERY_RESULT_BACKEND"),
        "jobs run on arq over REDIS_URL, no broker is needed",
        ("redis://", "rediss://"),
    ),
    Retired(
        ("PAYMENTS_URL", "WEBHOOK_URL"),
        "edge, payments and webhook receiver are one service here",
    ),
    Retired(
        ("UVICORN_EXTRA_ARGS",), "the service serves itself: see SERVE_WORKERS and SHUTDOWN_TIMEOUT_SECS"
    ),
    Retired(("EVENT_SINK",), "audit records are kept in PostgreSQL, and GET /admin/audit shows them"),
    Retired(("REDIS_TEST_URL",), "sign-in codes are kept in the Redis of REDIS_URL"),
    Retired(
        ("RATE_LIMIT_REDIS_PREFIX",),
        "keys in Redis carry the database's epoch, so that deployments may share a Redis",
    ),
)


class WithoutEffect(NamedTuple):
    """A key that only a rule of prod reads; the value that asks for something, and a sentence why it has no effect."""

    attribute: str
    asked: bool | str
    sentence: str


WITHOUT_EFFECT = (
    WithoutEffect("passkeys_dev_unsafe", True, "a passkey always proves itself"),
    WithoutEffect(
        "rate_limit_backend", "memory", "Redis counts rates, and each process only while Redis is away"
    ),
)

BACK_DOORS = ("STATIC_OTP_CODES", "MASTER_OTP_", "BACKDOOR_")

# The inbox's own default, which stands in each of its .env files; it is read as unset, and told.
DATABASE_NAMES = ("DATABASE_URL", "DB_URL", "PAYMENTS_DB_URL")
UNREMARKABLE_DATABASE_URL = "sqlite+aiosqlite:///./payments.db"


def retired_notices(environment: Mapping[str, str]) -> list[str]:
    """Return one sentence for each key that is set and that nothing reads."""
    told = [
        f"{name}={UNREMARKABLE_DATABASE_URL} is not used: data is kept in PostgreSQL. Set DATABASE_URL to one, or"
        " leave it out for the embedded server of `tallystick up`. `tallystick import` carries the old file over."
        for name in DATABASE_NAMES
        if environment.get(name) == UNREMARKABLE_DATABASE_URL
    ]
    return told + [
        f"{name} is not used: {row.sentence}."
        for row in RETIRED
        for name in row.names
        if environment.get(name) and not environment[name].startswith(row.unremarkable or ("\0",))
    ]


def effect_notices(settings: "Settings", given: Mapping[str, object]) -> Iterator[str]:
    """Yield one sentence for each of the `given` keys that asks for something without effect."""
    for row in WITHOUT_EFFECT:
        if row.attribute in given and getattr(settings, row.attribute) == row.asked:
            value = "" if row.asked is True else f"={row.asked}"
            yield f"{row.attribute.upper()}{value} has no effect: {row.sentence}."


def back_doors(environment: Mapping[str, str]) -> list[str]:
    """Return one problem for each fixed sign-in code that someone tries to carry over."""
    return [
        f"{name}: fixed sign-in codes were a back door and are not carried over; remove it"
        for name, value in sorted(environment.items())
        if value and name.startswith(BACK_DOORS)
    ]
