"""The kinds of values a setting can have, and how one key is declared.

Every value arrives as text. An empty text means "unset" and never gets here.
"""

import ipaddress
import re
from collections.abc import Callable
from typing import Annotated, Any, Literal, cast, get_args, get_origin
from urllib.parse import urlsplit

import annotated_types
from pydantic import AfterValidator, BeforeValidator, Field, GetCoreSchemaHandler
from pydantic.fields import FieldInfo
from pydantic_core import CoreSchema, core_schema

_PASSWORD_IN_URL = re.compile(r"(?<=://)([^/@:]*):.*@")
_PASSWORD_OF_KEYWORDS = re.compile(r"(?i)(password\s*=\s*)('(?:[^'\\]|\\.)*'?|\S*)")
_SECRET_IN_QUERY = re.compile(r"(?i)([?&](?:password|access_token|token|key)=)[^&]*")


def mask_url(url: str) -> str:
    """Return `url` without its password, for messages and logs."""
    if "://" not in url:  # a slip of the pen: the text before the @ may be a password
        url = re.sub(r"^([a-z+]*:)?.*@", r"\1***@", url)
        url = _PASSWORD_OF_KEYWORDS.sub(r"\1***", url)  # libpq's other form: host=db password=secret
    return _SECRET_IN_QUERY.sub(r"\1***", _PASSWORD_IN_URL.sub(r"\1:***@", url))


class Secret(str):
    """A text that its `repr` does not show, so that neither `repr(settings)` nor a traceback tells it."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "Secret('***')" if self else "Secret('')"

    @classmethod
    def __get_pydantic_core_schema__(cls, _source: Any, _handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(cls, core_schema.str_schema())


class Dsn(str):
    """A server's address whose `repr` hides the password."""

    __slots__ = ("__dict__",)

    given_as: str = ""
    """The name in the environment that it was read under; empty for one that was not read there."""

    def __repr__(self) -> str:
        return repr(mask_url(self))

    @classmethod
    def __get_pydantic_core_schema__(cls, _source: Any, _handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(cls, core_schema.str_schema())


# Marks around a value that a shell or an editor takes away, while Docker's env files and service managers keep them.
_MARKS = "\"'`\ufeff\u200b\u201c\u201d\u2018\u2019"


def has_marks(secret: str) -> bool:
    """Whether a secret begins or ends with a quote or a byte-order mark, which is hardly meant to be a part of it."""
    return secret[:1] in _MARKS or secret[-1:] in _MARKS if secret else False


def _switch(value: object) -> object:
    if not isinstance(value, str):
        return value
    word = value.strip().lower()
    if word in {"1", "true", "yes", "on"}:
        return True
    if word in {"0", "false", "no", "off"}:
        return False
    raise ValueError("1/true/yes/on or 0/false/no/off")


def _split(value: object) -> object:
    if not isinstance(value, str):
        return value
    return tuple(part for part in (piece.strip() for piece in value.split(",")) if part)


def _environment(value: object) -> object:
    """A word that is neither dev nor test counts as prod: a typo must not open the doors of development."""
    word = str(value).strip().lower()
    return word if word in {"dev", "test"} else "prod"


def _networks(values: tuple[str, ...]) -> tuple[str, ...]:
    try:
        return tuple(str(ipaddress.ip_network(value, strict=False)) for value in values)
    except ValueError as error:
        raise ValueError("addresses or networks like 10.0.0.0/8, comma separated") from error


def _http_url(value: str) -> str:
    if not value:
        return value
    try:
        parts = urlsplit(value)
        usable = parts.scheme in {"http", "https"} and parts.hostname and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise ValueError("a URL like https://api.example.com")
    return value


def _postgres_url(value: str) -> str:
    """SQLAlchemy's driver suffixes are dropped, since they name a client library and not a server."""
    if not value:
        return value
    scheme, mark, rest = value.partition("://")
    if mark and scheme.partition("+")[0].lower() in {"postgresql", "postgres"} and _has_usable_hosts(rest):
        return f"postgresql://{rest}"
    raise ValueError("PostgreSQL, as postgresql://user:password@host:5432/database (or unset: embedded)")


def _has_usable_hosts(rest: str) -> bool:
    """Whether what follows `//` names hosts, several of them or none, whose ports are numbers of ports."""
    hosts = re.split(r"[/?#]", rest, maxsplit=1)[0].rpartition("@")[2].split(",")
    found = [re.fullmatch(r"(?:\[[^][]*\]|[^][:]*)(?::([0-9]{0,5}))?", host) for host in hosts]
    return all(host is not None and 0 < int(host[1] or 1) <= 65535 for host in found)


def _redis_url(value: str) -> str:
    if not value:
        return value
    try:
        parts = urlsplit(value)
        place = {"redis": parts.hostname, "rediss": parts.hostname, "unix": parts.path}.get(parts.scheme)
        usable = bool(place) and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise ValueError("Redis or Valkey, as redis://:password@host:6379/0 (or unset: embedded)")
    return value


def _sha256_digests(values: tuple[str, ...]) -> tuple[str, ...]:
    if not all(re.fullmatch(r"[0-9a-fA-F]{64}", value) for value in values):
        raise ValueError("SHA-256 digests of 64 hex digits, comma separated")
    return tuple(value.lower() for value in values)


def _currency(value: str) -> str:
    if not re.fullmatch(r"[A-Z0-9]{3,12}", value):
        raise ValueError("3 to 12 upper-case letters or digits, like SYP")
    return value


def _private_keys(value: str) -> Secret:
    if value:
        from core.pem import private_keys  # noqa: PLC0415 - a cipher library, for those who have keys

        try:
            private_keys(value)
        except (ValueError, TypeError) as error:  # TypeError: a passphrase is set
            raise ValueError("RSA private keys of 2,048 bits or more, PEM, without a passphrase") from error
    return Secret(value)


Switch = Annotated[bool, BeforeValidator(_switch)]
Words = Annotated[tuple[str, ...], BeforeValidator(_split)]
PrivateKeys = Annotated[Secret, AfterValidator(_private_keys)]
Secrets = Annotated[tuple[Secret, ...], BeforeValidator(_split)]
Digests = Annotated[tuple[str, ...], BeforeValidator(_split), AfterValidator(_sha256_digests)]
Networks = Annotated[tuple[str, ...], BeforeValidator(_split), AfterValidator(_networks)]
Environment = Annotated[Literal["dev", "test", "prod"], BeforeValidator(_environment)]
# The services before this one read these words in any case.
Lower = BeforeValidator(lambda value: value.strip().lower() if isinstance(value, str) else value)
Upper = BeforeValidator(lambda value: value.strip().upper() if isinstance(value, str) else value)
LogLevel = Annotated[
    Literal["debug", "info", "warning", "error", "critical"],
    BeforeValidator(lambda value: str(value).lower()),
]
Url = Annotated[str, AfterValidator(_http_url)]
BaseUrl = Annotated[str, AfterValidator(lambda value: _http_url(value).rstrip("/"))]
PostgresUrl = Annotated[Dsn, AfterValidator(lambda value: Dsn(_postgres_url(value)))]
RedisUrl = Annotated[Dsn, AfterValidator(lambda value: Dsn(_redis_url(value)))]
Currency = Annotated[str, AfterValidator(_currency)]


def zero_means(default: int) -> AfterValidator:
    """Zero and below mean the default: existing deployments of the orchestration service rely on that."""
    keep: Callable[[int], int] = lambda value: value if value > 0 else default  # noqa: E731
    return AfterValidator(keep)


def zero_is_unset(value: object) -> object:
    """Zero means that nothing is set, as in the service before this one."""
    return None if isinstance(value, str | int) and str(value).strip() == "0" else value


def key(
    default: Any,
    about: str,
    *,
    names: tuple[str, ...] = (),
    also: tuple[str, ...] = (),
    unit: str = "",
    ge: float | None = None,
    le: float | None = None,
    dev: Any = None,
) -> Any:
    """Declare one setting.

    `names`: its names in the environment, of which the first that is set counts (default: the attribute in
    upper case, followed by `also`). `unit`, `ge` and `le`: the unit and the bounds, both inclusive.
    `dev`: the default when ENV is dev, where it differs from `default`.
    """
    extra = {"names": names, "also": also, "unit": unit, "dev": dev}
    return Field(default, description=about, ge=ge, le=le, json_schema_extra=extra, validate_default=True)


def extra_of(field: FieldInfo) -> dict[str, Any]:
    """Return the arguments of `key` that pydantic does not keep; empty for an attribute that is not a key."""
    return field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}


def names_of(attribute: str, field: FieldInfo) -> tuple[str, ...]:
    """Return the names of a key in the environment, by precedence; none for an attribute that is not a key."""
    extra = extra_of(field)
    if not extra:
        return ()
    return (*(extra["names"] or (attribute.upper(),)), *extra["also"])


def shown(field: FieldInfo, value: object) -> str:
    """Return a given value as a message may show it: secrets hidden, passwords in URLs masked."""
    if field.annotation in {Secret, tuple[Secret, ...]}:
        return "***"
    return mask_url(str(value))


def text_of(value: object) -> str:
    """Return a value as the environment would spell it; an empty text if it is unset."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return ",".join(value)
    return "" if value is None else str(value)


def expectation(field: FieldInfo) -> str:
    """Return in words the values that a key takes: `a whole number from 1 to 300 (seconds)`."""
    extra = extra_of(field)
    if get_origin(field.annotation) is Literal:
        choices = [choice for choice in get_args(field.annotation) if choice]
        return " or ".join(filter(None, (", ".join(choices[:-1]), choices[-1])))
    if field.annotation is bool:
        return "1/true/yes/on or 0/false/no/off"
    if field.annotation not in {int, float, int | None, float | None}:
        return "a text"
    least, most = bounds_of(field)
    words = ["a number" if field.annotation in {float, float | None} else "a whole number"]
    words += [f"from {least}"] if least is not None else []
    words += [f"{'to' if least is not None else 'up to'} {most}"] if most is not None else []
    return " ".join(words) + (f" ({extra['unit']})" if extra["unit"] else "")


def bounds_of(field: FieldInfo) -> tuple[float | None, float | None]:
    """Return the least and the most value of a number, None where there is no such bound."""
    least = next((rule.ge for rule in field.metadata if isinstance(rule, annotated_types.Ge)), None)
    most = next((rule.le for rule in field.metadata if isinstance(rule, annotated_types.Le)), None)
    return cast("float | None", least), cast("float | None", most)
