"""The one settings object, and how it is read: overrides, then the environment, then `.env`, then defaults."""

import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field, ValidationError, model_validator
from pydantic_settings import BaseSettings, DotEnvSettingsSource, EnvSettingsSource, SettingsConfigDict

from core.settings.archive import Archive
from core.settings.brand import Brand
from core.settings.files import with_files
from core.settings.kinds import Dsn, Secret, expectation, extra_of, has_marks, names_of, shown, text_of
from core.settings.measuring import Measuring
from core.settings.production import RULES, doubts
from core.settings.providers import Orchestration, Upstreams
from core.settings.retired import UNREMARKABLE_DATABASE_URL, back_doors, effect_notices, retired_notices
from core.settings.service import AtRest, Inbox, Ledger, Limits, Network, Outbox, Ports, Process
from core.settings.storage import Storage
from core.settings.tracing import Tracing
from core.settings.wallets import Money, SignIn, Tokens

GROUPS = (
    Process, Measuring, Ports, Network, Storage, AtRest, Limits, Ledger, Inbox, Outbox, Archive, Upstreams,
    Orchestration, Tokens, SignIn, Money, Brand, Tracing,
)  # fmt: skip

# Words that mean prod; a message says of any other word that it counts as prod.
PROD_WORDS = {"prod", "production"}


class SettingsError(Exception):
    """The settings are refused; `problems` has one line each, secrets masked."""

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(["The settings are refused:", *(f"  {line}" for line in self.problems)]))


class Settings(
    # pydantic lists the fields of the last base first.
    BaseSettings, Tracing, Brand, Money, SignIn, Tokens, Orchestration, Upstreams, Archive, Outbox, Inbox, Ledger,
    Limits, AtRest, Storage, Network, Ports, Measuring, Process,
):  # fmt: skip
    """Every setting, frozen. `load_settings` alone reads and makes them. Unset texts are empty."""

    model_config = SettingsConfigDict(frozen=True, extra="forbid", env_file_encoding="utf-8-sig")

    notices: tuple[str, ...] = Field((), description="Sentences about what was set and has no effect")

    @model_validator(mode="before")
    @classmethod
    def _defaults_of_dev(cls, given: dict[str, Any]) -> dict[str, Any]:
        if str(given.get("env", "dev")).strip().lower() != "dev":
            return given
        extras = {name: extra_of(field).get("dev") for name, field in cls.model_fields.items()}
        return {name: value for name, value in extras.items() if value is not None} | given

    @property
    def owner_url(self) -> Dsn:
        """The address at which migrations find PostgreSQL itself."""
        return self.database_direct_url or self.database_url

    def __init__(self, **values: Any) -> None:
        """Take the given values alone: `load_settings` has chosen among the sources and the names of a key before."""
        BaseModel.__init__(self, **values)


def load_settings(*, env_file: str | os.PathLike[str] | None = ".env", **overrides: Any) -> Settings:
    """Read the settings once: `overrides` (by attribute; None is no override), then the environment, then `env_file`.

    Raises `SettingsError` with every problem at once.
    """
    unknown = overrides.keys() - Settings.model_fields.keys()
    if unknown:
        raise TypeError(f"there is no setting {', '.join(sorted(unknown))}")
    layers, unread = _read(env_file)
    values, given_as = _choose(layers)
    values |= {name: value for name, value in overrides.items() if value is not None}
    environment = {name: value for layer in reversed(layers) for name, value in layer.items()}
    settings, broken = _build(values, given_as)
    broken = unread | broken
    problems = [*back_doors(environment), *broken.values()]
    if settings.env == "prod":
        problems += _broken_rules(settings, _environment_word(values), broken, given_as)
    if bool(settings.grpc_tls_cert_file) != bool(settings.grpc_tls_key_file):
        problems.append("GRPC_TLS_CERT_FILE and GRPC_TLS_KEY_FILE belong together: set both or none.")
    if problems:
        raise SettingsError(problems)
    for attribute in ("database_url", "database_direct_url", "database_replica_url", "redis_url"):
        getattr(settings, attribute).given_as = given_as.get(attribute, "")
    notices = [
        *retired_notices(environment),
        *effect_notices(settings, values),
        *_marked(settings, given_as),
        *_remarks(settings, values),
    ]
    return settings.model_copy(update={"notices": tuple(notices)})


def _read(
    env_file: str | os.PathLike[str] | None,
) -> tuple[tuple[Mapping[str, str], ...], dict[str, str]]:
    """Return the values that are set, by source, and a line for each attribute whose secret's file cannot be used.

    The first source wins. Names are in upper case; empty values are dropped.
    """
    sources = [EnvSettingsSource(Settings)]
    if env_file is not None and Path(env_file).is_file():
        try:
            sources.append(DotEnvSettingsSource(Settings, env_file=Path(env_file)))
        except (OSError, UnicodeDecodeError) as error:
            raise SettingsError([f"{env_file} cannot be read: {error}"]) from error
    layers = []
    problems: dict[str, str] = {}
    for source in sources:
        given = {
            name.upper(): value.strip() for name, value in source.env_vars.items() if value and value.strip()
        }
        layer, unread = with_files(given, Settings.model_fields)
        layers.append(layer)
        problems = unread | problems
    return tuple(layers), problems


def _choose(layers: Iterable[Mapping[str, str]]) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the value of each attribute, and the name it was given under."""
    values: dict[str, Any] = {}
    given_as: dict[str, str] = {}
    for layer in layers:
        for attribute, field in Settings.model_fields.items():
            name = next((name for name in names_of(attribute, field) if name in layer), None)
            if name is not None and attribute not in values:
                values[attribute], given_as[attribute] = layer[name], name
    if values.get("database_url") == UNREMARKABLE_DATABASE_URL:
        del values["database_url"]
    return values, given_as


def _build(values: Mapping[str, Any], given_as: Mapping[str, str]) -> tuple[Settings, dict[str, str]]:
    """Return the settings without the attributes that could not be read, and a line for each of those."""
    try:
        return Settings(**values), {}
    except ValidationError as error:
        lines: dict[str, str] = {}
        for detail in error.errors(include_url=False):
            attribute = str(detail["loc"][0])
            field = Settings.model_fields[attribute]
            own = detail["type"] == "value_error"
            expected = str(detail["ctx"]["error"]) if own else expectation(field)
            lines[attribute] = f"{_said(attribute, values[attribute], given_as)}: expected {expected}"
        return Settings(**{name: value for name, value in values.items() if name not in lines}), lines


def _broken_rules(
    settings: Settings, word: str, broken: Iterable[str], given_as: Mapping[str, str]
) -> list[str]:
    """Return a line for each rule of prod that is broken, but not for attributes that are `broken` already."""
    who = "ENV=prod expects" if word in PROD_WORDS else f"ENV={word} counts as prod, which expects"
    return [
        f"{_said(rule.attribute, getattr(settings, rule.attribute), given_as)}: {who} {rule.wanted}"
        for rule in RULES
        if rule.attribute not in broken and rule.broken(settings)
    ]


def _said(attribute: str, value: object, given_as: Mapping[str, str]) -> str:
    """Return `KEY=value` under the name it was given under, secrets hidden, or `KEY unset`."""
    field = Settings.model_fields[attribute]
    name = given_as.get(attribute) or names_of(attribute, field)[0]
    text = text_of(value)
    return f"{name}={shown(field, text)}" if text else f"{name} unset"


def _environment_word(values: Mapping[str, Any]) -> str:
    """Return ENV as it was given, which is not always the environment that it counts as."""
    return str(values.get("env", "dev")).strip().lower()


def _marked(settings: Settings, given_as: Mapping[str, str]) -> Iterator[str]:
    """Yield a sentence for each secret in quotes or behind a byte-order mark: its signatures would all be wrong."""
    for attribute, field in Settings.model_fields.items():
        value = getattr(settings, attribute)
        secrets = value if field.annotation == tuple[Secret, ...] else (value,)
        if field.annotation in {Secret, tuple[Secret, ...]} and any(map(has_marks, secrets)):
            name = given_as.get(attribute) or names_of(attribute, field)[0]
            yield f"{name} begins or ends with a quote or a byte-order mark, which counts as a part of it."


def _remarks(settings: Settings, values: Mapping[str, Any]) -> list[str]:
    remarks = []
    word = _environment_word(values)
    if settings.env == "prod" and word not in PROD_WORDS:
        remarks.append(f"ENV={word} is neither dev nor test, so the rules of prod apply.")
    if settings.env == "prod" and not settings.database_url:
        remarks.append(
            "DATABASE_URL is unset: the embedded PostgreSQL of this machine alone keeps the books."
        )
    if settings.env == "prod":
        remarks += doubts(settings)
    if settings.dlq_backend == "redis":
        remarks.append("DLQ_BACKEND=redis announces dead letters there, too; they are kept in PostgreSQL.")
    if (
        settings.env == "prod"
        and settings.otp_sms_provider == "log"
        and (settings.jwt_secret or settings.jwt_rs_private_pem)
    ):
        remarks.append("OTP_SMS_PROVIDER=log: sign-in codes are sent to nobody.")
    return remarks
