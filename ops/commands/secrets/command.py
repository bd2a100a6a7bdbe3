"""`tallystick secrets list|new|check`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from ops.commands.printing import print_json
from ops.commands.secrets.known import KNOWN, steps_of

if TYPE_CHECKING:
    from core.settings import Settings


@click.group()
def secrets() -> None:
    """List the secrets that settings hold, make fresh ones, check those that are set.

    No command prints a value that is set. ops/secrets/ROTATION.md has the steps of each rotation.
    """


@secrets.command(name="list")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON array instead of a table.")
def list_(*, as_json: bool) -> None:
    """List each secret, with how many values of it are active.

    Two are active during a rotation; none means that the secret is unset.

    \b
    Example:
      tallystick secrets list
    """  # noqa: D301 - `\b` is how click is told not to wrap
    from core.settings import load_settings

    settings = load_settings()
    found = [{"secret": name, "active": len(_active(settings, name))} for name in KNOWN]
    if as_json:
        print_json(found)
        return
    width = max(map(len, KNOWN))
    for row in found:
        click.echo(f"{row['secret']:<{width}}  {row['active'] or 'unset'}")


@secrets.command()
@click.argument("name", metavar="NAME", type=click.Choice(list(KNOWN), case_sensitive=False))
def new(name: str) -> None:
    """Make a fresh value of the secret NAME and print it, with the steps by which it takes over.

    The value alone goes to standard output, so that a script can capture it; it is kept nowhere. A secret that somebody
    else makes, such as a provider, has its steps only. `tallystick secrets list` has the names.

    \b
    Example:
      (umask 077; tallystick secrets new INTERNAL_API_SECRET > new-secret)
    """  # noqa: D301 - `\b` is how click is told not to wrap
    make = KNOWN[name].make
    if make is None:
        click.echo(f"The other side makes {name}; it is put in by these steps:", err=True)
    else:
        click.echo(make().rstrip("\n"))
        click.echo(f"This is a fresh value for {name}. The steps:", err=True)
    for number, step in enumerate(steps_of(name), 1):
        click.echo(f"  {number}. {step}", err=True)


@secrets.command()
def check() -> int:
    """Check the secrets that are set by the rules of prod, whatever ENV is, and tell which rotations are under way.

    The exit code is 1 when a secret is weak. Files that cannot be read are told, as at each start.

    \b
    Example:
      tallystick secrets check
    """  # noqa: D301 - `\b` is how click is told not to wrap
    from core.settings import load_settings
    from core.settings.production import RULES

    settings = load_settings()
    weak = {rule.attribute for rule in RULES if rule.broken(settings)}
    failed = False
    for name, known in KNOWN.items():
        active = len(_active(settings, name))
        if not active:
            continue
        word = "a rotation is under way" if active > 1 else "ok"
        if not weak.isdisjoint(known.attributes):
            failed, word = True, "weak or guessable, so prod refuses it"
        click.echo(f"{name}: {active} active, {word}")
    return int(failed)


def _active(settings: Settings, name: str) -> list[str]:
    """Return the values of a secret that are set."""
    found: list[str] = []
    for attribute in KNOWN[name].attributes:
        value = getattr(settings, attribute)
        if attribute == "jwt_rs_private_pem":
            found += _pems(value)
        else:
            found += value if isinstance(value, tuple) else [value]
    return [value for value in found if value]


def _pems(text: str) -> list[str]:
    return [part for part in text.split("-----BEGIN ")[1:] if "PRIVATE KEY" in part]
