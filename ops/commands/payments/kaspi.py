"""`tallystick kaspi`: configs of shops, and their devices at the bank."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, Any

import click

from ops.commands.database import with_database
from ops.commands.printing import cell, console, print_json
from ops.commands.texts import NAME_CHARACTERS, Text

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from core.database import Database
    from core.payments.kaspi.configs import Config, Configs
    from core.providers.kaspi_bank import KaspiBank

ACTOR = "admin"
_BIN_DIGITS = 12
_MOST_TOKEN = 50

_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.group()
def kaspi() -> None:
    """Say which organization is paid for each shop, and register devices at the bank.

    The commands about configs work on the database at DATABASE_URL, or else on that of the `tallystick up` that runs
    here; the others ask the bank at KASPI_API_BASE.

    \b
    Example:
      tallystick kaspi configs set 7 --bin 971240001315
    """  # noqa: D301 - `\b` is how click is told not to wrap


@kaspi.group()
def configs() -> None:
    """List, set and deactivate the configs of shops. Device tokens are never printed."""


@configs.command(name="list")
@_json
def list_(*, as_json: bool) -> None:
    """List the configs of all shops.

    \b
    Example:
      tallystick kaspi configs list --json
    """  # noqa: D301 - `\b` is how click is told not to wrap
    _print(_with_configs(lambda found: found.all()), as_json=as_json)


@configs.command(name="set")
@click.argument("shop_id", type=int)
@click.option("--bin", "organization_bin", help="The organization's BIN, 12 digits; a new shop needs it.")
@click.option("--device-token-from-stdin", is_flag=True, help="Read the device's token from standard input.")
@click.option("--without-device", is_flag=True, help="Take the device's token away; links need one.")
@click.option("--active/--inactive", default=None, help="Whether the shop may be paid.  [default: as it is]")
@_json
def set_(
    shop_id: int,
    organization_bin: str | None,
    *,
    device_token_from_stdin: bool,
    without_device: bool,
    active: bool | None,
    as_json: bool,
) -> None:
    """Add the config of SHOP_ID, or change the parts of it that are given.

    \b
    Examples:
      tallystick kaspi configs set 7 --bin 123456789012 --device-token-from-stdin < token
      tallystick kaspi configs set 7 --inactive
    """  # noqa: D301 - `\b` is how click is told not to wrap
    if organization_bin is not None and not (
        organization_bin.isascii() and organization_bin.isdigit() and len(organization_bin) == _BIN_DIGITS
    ):
        raise click.UsageError("A BIN has 12 digits.")
    if device_token_from_stdin and without_device:
        raise click.UsageError("A device's token is either given or taken away.")
    changes: dict[str, Any] = {}
    if organization_bin is not None:
        changes["organization_bin"] = organization_bin
    if device_token_from_stdin or without_device:
        changes["device_token"] = _token_from_stdin() if device_token_from_stdin else None
    if active is not None:
        changes["is_active"] = active

    async def work(found: Configs) -> list[Config]:
        if await found.find(shop_id) is not None:
            return [await found.change(shop_id, changes, ACTOR)]
        if organization_bin is None:
            raise click.UsageError(f"Shop {shop_id} is new, and needs --bin.")
        token, active_ = changes.get("device_token"), active is not False
        return [
            await found.add(
                shop_id, organization_bin, token, is_active=active_, provider="kaspi", actor=ACTOR
            )
        ]

    _print(_with_configs(work), as_json=as_json)


@configs.command()
@click.argument("shop_id", type=int)
@_json
def deactivate(shop_id: int, *, as_json: bool) -> None:
    """Let SHOP_ID be paid no more. Its open payments are still asked for.

    \b
    Example:
      tallystick kaspi configs deactivate 7
    """  # noqa: D301 - `\b` is how click is told not to wrap

    async def work(found: Configs) -> list[Config]:
        return [await found.change(shop_id, {"is_active": False}, ACTOR)]

    _print(_with_configs(work), as_json=as_json)


@kaspi.command(name="trade-points")
@click.argument("organization_bin", metavar="BIN")
@_json
def trade_points(organization_bin: str, *, as_json: bool) -> None:
    """Ask the bank for the trade points of the organization BIN.

    \b
    Example:
      tallystick kaspi trade-points 123456789012
    """  # noqa: D301 - `\b` is how click is told not to wrap
    found = _with_bank(lambda bank: bank.trade_points(organization_bin))
    if as_json:
        print_json([point._asdict() for point in found])
    else:
        for point in found:
            click.echo(f"{point.id}  {cell(point.name)}")


@kaspi.command(name="register-device")
@click.argument("shop_id", type=int)
@click.option("--trade-point", type=int, required=True, help="The trade point's number at the bank.")
@click.option(
    "--device",
    type=Text(NAME_CHARACTERS),
    required=True,
    help="A name for the device, which the bank has not seen before.",
)
@_json
def register_device(shop_id: int, *, trade_point: int, device: str, as_json: bool) -> None:
    """Register a device for SHOP_ID at the bank, and keep its token in the shop's config.

    \b
    Example:
      tallystick kaspi register-device 7 --trade-point 385716 --device shop-7
    """  # noqa: D301 - `\b` is how click is told not to wrap
    config = _with_configs(lambda found: found.of(shop_id))
    token = _with_bank(lambda bank: bank.register_device(config.organization_bin, trade_point, device))

    async def work(found: Configs) -> list[Config]:
        return [await found.change(shop_id, {"device_token": token}, ACTOR)]

    _print(_with_configs(work), as_json=as_json)


def _with_configs(work: Callable[[Configs], Awaitable[Any]]) -> Any:
    from core.payments.kaspi.configs import Configs
    from core.vault import Vault
    from ops.state import operator_settings

    vault = Vault.of(operator_settings(redis_needed=False))

    async def run(database: Database) -> Any:
        return await work(Configs(database, vault))

    return with_database(run)


def _with_bank(work: Callable[[KaspiBank], Awaitable[Any]]) -> Any:
    from core.providers.kaspi_bank import KaspiBank
    from core.settings import load_settings

    bank = KaspiBank.of(load_settings())
    if bank is None:
        raise click.ClickException("KASPI_API_BASE is unset: there is no bank to ask.")

    async def run() -> Any:
        try:
            return await work(bank)
        finally:
            await bank.close()

    return asyncio.run(run())


def _token_from_stdin() -> str:
    token = sys.stdin.readline().strip()
    if not 0 < len(token) <= _MOST_TOKEN or not token.isprintable():
        raise click.UsageError(f"A device's token has 1 to {_MOST_TOKEN} characters.")
    return token


def _plain(config: Config) -> dict[str, Any]:
    """Return a config as it is printed: with the word whether there is a token, and not which."""
    values = config._asdict()
    token = values.pop("device_token") is not None
    return {**values, "has_device_token": token}


def _print(found: list[Config], *, as_json: bool) -> None:
    if as_json:
        print_json([_plain(config) for config in found])
        return
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD)
    for column in ("shop", "bin", "device", "state", "label", "changed"):
        table.add_column(column.upper())
    for config in found:
        table.add_row(
            str(config.shop_id),
            cell(config.organization_bin),
            "yes" if config.device_token else "no",
            "active" if config.is_active else "inactive",
            cell(config.provider),
            f"{config.updated_at:%Y-%m-%d %H:%M}",
            style=None if config.is_active else "dim",
        )
    console().print(table)
