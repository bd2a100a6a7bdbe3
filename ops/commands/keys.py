"""`tallystick keys`."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import click

from ops.commands.database import with_database
from ops.commands.printing import console, print_json
from ops.commands.texts import Text

if TYPE_CHECKING:
    from core.access.api_keys import KeyInfo
    from core.database import Database

_UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
# A key lives ten years at most, unless it has no expiry.
LONGEST_DAYS = 3660


class Duration(click.ParamType[timedelta]):
    """A duration as a number and a unit: 30m, 12h, 90d, 8w."""

    name = "duration"

    def convert(
        self, value: str | timedelta, param: click.Parameter | None, ctx: click.Context | None
    ) -> timedelta:
        """Read the text."""
        if isinstance(value, timedelta):
            return value
        found = re.fullmatch(r"([1-9][0-9]{0,6})([mhdw])", value)
        duration = timedelta(**{_UNITS[found[2]]: int(found[1])}) if found else timedelta(0)
        if not timedelta(0) < duration <= timedelta(days=LONGEST_DAYS):
            self.fail(f"{value!r} is no duration like 30m, 12h, 90d or 8w, of ten years at most.", param, ctx)
        return duration


@click.group()
def keys() -> None:
    """Create, list and revoke API keys.

    The commands work on the database at DATABASE_URL, as its owner, or else on that of the `tallystick up` that runs
    here.
    """


@keys.command()
@click.option("--principal", help="The principal of the key, made if there is none of this name.")
@click.option(
    "--scope",
    "scopes",
    multiple=True,
    help="A scope of the principal's key; repeat it for more. The refusal of a wrong one lists all.",
)
@click.option("--caller", help="In place of a principal: a service of your own that asks for payments.")
@click.option("--no-access", is_flag=True, help="The caller's key is known, and may call nothing.")
@click.option("--sees-all", is_flag=True, help="The caller sees the payments of all callers.")
@click.option(
    "--description", type=Text(optional=True), default="", help="The purpose of the key, for the list."
)
@click.option("--expires-in", type=Duration(), help="When the key ends: 30m, 12h, 90d, 8w. [default: never]")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object instead of the key alone.")
def create(
    *,
    principal: str | None,
    scopes: tuple[str, ...],
    caller: str | None,
    no_access: bool,
    sees_all: bool,
    description: str,
    expires_in: timedelta | None,
    as_json: bool,
) -> None:
    """Create a key and print it, this once: it is stored hashed, and nobody can show it again.

    A key is that of a principal with scopes, for the ledger and webhooks, or that of a caller, for payments through
    providers. The key alone goes to standard output, so that a script can capture it.

    \b
    Examples:
      tallystick keys create --principal shop --scope transfers:write --scope accounts:read
      tallystick keys create --caller checkout --json
      KEY=$(tallystick keys create --principal ci --scope feed:read --expires-in 12h)
    """  # noqa: D301 - `\b` is how click is told not to wrap
    _check_holder(principal, scopes, caller, no_access=no_access, sees_all=sees_all)
    expires_at = datetime.now(UTC) + expires_in if expires_in else None
    if caller is None:
        from core.access.api_keys import create_key

        access = sorted(set(scopes))
        key, key_id = with_database(
            lambda database: create_key(database, str(principal), scopes, description, expires_at)
        )
    else:
        from core.access.internal_callers import ALL, create_caller
        from ops.state import operator_settings

        service = operator_settings(redis_needed=False).app_service_name
        access = [] if no_access else [service, *([service + ALL] if sees_all else [])]
        key, key_id = with_database(
            lambda database: create_caller(database, caller, access, description, expires_at)
        )
    holder = (
        {"caller": caller, "allowed_access": access} if caller else {"principal": principal, "scopes": access}
    )
    until = f"until {expires_at:%Y-%m-%d %H:%M} UTC" if expires_at else "until it is revoked"
    name = caller or principal
    click.echo(f"Key {key_id} of {name}, valid {until}. Keep it now: it is not shown again.", err=True)
    if as_json:
        print_json({"api_key": key, "key_id": key_id, **holder, "expires_at": expires_at})
    else:
        click.echo(key)


def _check_holder(
    principal: str | None, scopes: tuple[str, ...], caller: str | None, *, no_access: bool, sees_all: bool
) -> None:
    if (principal is None) == (caller is None):
        raise click.UsageError(
            "A key is that of a principal or that of a caller: give --principal or --caller."
        )
    if principal is not None and not scopes:
        raise click.UsageError("A principal's key needs a --scope.")
    if principal is not None and (no_access or sees_all):
        raise click.UsageError("--no-access and --sees-all are for a --caller.")
    if caller is not None and scopes:
        raise click.UsageError("A caller's key has no scopes.")
    if no_access and sees_all:
        raise click.UsageError("--no-access and --sees-all exclude each other.")


@keys.command(name="list")
@click.option("--principal", help="Only this principal's or caller's keys.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON array instead of a table.")
def list_(principal: str | None, *, as_json: bool) -> None:
    """List keys, newest first, with their scopes and whether they are active, expired or revoked.

    Keys of callers come after those of principals; their scopes are the services that they may call. LAST USED is
    right to the hour. Secrets are stored nowhere, so none is shown.

    \b
    Examples:
      tallystick keys list
      tallystick keys list --principal shop --json
    """  # noqa: D301 - `\b` is how click is told not to wrap
    from core.access.api_keys import list_keys
    from core.access.internal_callers import list_callers

    async def work(database: Database) -> list[KeyInfo]:
        return [*await list_keys(database, principal), *await list_callers(database, principal)]

    found = with_database(work)
    if as_json:
        print_json(found)
    else:
        _print_table(found)


@keys.command()
@click.argument("key_id")
def revoke(key_id: str) -> None:
    """Revoke the key KEY_ID (the 12 characters after tsk_ or tsi_, or the whole key) for good.

    Every process refuses it within API_KEY_CACHE_SECS.

    \b
    Example:
      tallystick keys revoke abcdefgh2345
    """  # noqa: D301 - `\b` is how click is told not to wrap
    from core.access.api_keys import revoke_key
    from core.access.internal_callers import revoke_caller

    async def work(database: Database) -> datetime:
        return await revoke_caller(database, key_id) or await revoke_key(database, key_id)

    revoked_at = with_database(work)
    click.echo(f"Revoked as of {revoked_at:%Y-%m-%d %H:%M:%S} UTC.")


@keys.command()
def reseal() -> int:
    """Encrypt all stored secrets anew under the first of SECRETS_KEYS.

    Secrets of endpoints and sources, merchants' API secrets, and device tokens of Kaspi. Run it after a new key was
    put first, then take the old one away; or when SECRETS_KEYS was set for the first time, as secrets from before stand
    readable until then. The service may run meanwhile, and the command may be run again. The exit code is 1 when a
    secret was sealed under a key that is not set.

    \b
    Example:
      SECRETS_KEYS=new,old tallystick keys reseal
    """  # noqa: D301 - `\b` is how click is told not to wrap
    from core.inbox import sources
    from core.outbox import endpoints
    from core.payments.kaspi.configs import Configs
    from core.vault import Resealed, Vault
    from core.wallets import merchant_keys
    from ops.state import operator_settings

    settings = operator_settings(redis_needed=False)
    vault = Vault.of(settings)
    if not vault.has_keys:
        raise click.ClickException("SECRETS_KEYS is unset: there is no key to seal under.")

    async def work(database: Database) -> dict[str, Resealed]:
        return {
            "endpoints": await endpoints.reseal(database, vault),
            "sources": await sources.reseal(database, vault),
            "merchants' keys": await merchant_keys.reseal(database, settings),
            "Kaspi's devices": await Configs(database, vault).reseal(),
        }

    found = with_database(work)
    for name, counts in found.items():
        click.echo(f"{name}: {counts.done} sealed anew, {counts.lost} under a key that is not set")
    return 1 if any(counts.lost for counts in found.values()) else 0


def _print_table(found: list[KeyInfo]) -> None:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD)
    for column in (
        "key id",
        "principal",
        "state",
        "scopes",
        "created",
        "expires",
        "last used",
        "description",
    ):
        table.add_column(column.upper(), no_wrap=column in {"key id", "state"})
    for key in found:
        table.add_row(
            key.key_id,
            key.principal,
            key.state,
            " ".join(key.scopes),
            _day(key.created_at),
            _day(key.expires_at),
            _day(key.last_used_at),
            key.description,
            style=None if key.state == "active" else "dim",
        )
    console().print(table)


def _day(moment: datetime | None) -> str:
    return f"{moment:%Y-%m-%d %H:%M}" if moment else "never"
