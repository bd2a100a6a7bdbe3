"""The service that a command calls: the one that the options or TALLYSTICK_URL name, or else the one that runs here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar
from urllib.parse import urlsplit

import click

if TYPE_CHECKING:
    from collections.abc import Callable

    from core.settings import Settings

Command = TypeVar("Command", bound="Callable[..., Any]")

# The one pair of variables, each with its older names, which go on working.
URL_VARIABLES = ("TALLYSTICK_URL", "PAYMENTS_BASE_URL")
TOKEN_VARIABLES = ("TALLYSTICK_TOKEN", "TALLYSTICK_API_KEY")
MERCHANT_VARIABLES = ("TALLYSTICK_TOKEN", "PAYMENTS_MERCHANT_TOKEN")

_LOOPBACK = {"localhost", "127.0.0.1", "::1"}


class Target(NamedTuple):
    """The URL of a service, with the API key and the secret that its callers need."""

    url: str
    token: str
    stripe_secret: str


def options(command: Command) -> Command:
    """Add the options that say where the service is and what to say to it."""
    for option in (
        click.option(
            "--stripe-secret",
            help="The secret of Stripe's signatures.  [default: STRIPE_SIGNING_SECRET, or that one's]",
        ),
        click.option(
            "--token",
            "--api-key",
            "token",
            envvar=TOKEN_VARIABLES,
            help="A key with all scopes.  [default: TALLYSTICK_TOKEN, or that one's]",
        ),
        click.option(
            "--url",
            envvar=URL_VARIABLES[0],
            help="Where the service is.  [default: TALLYSTICK_URL, or the one that `tallystick up` runs here]",
        ),
    ):
        command = option(command)
    return command


def find_target(
    url: str | None, token: str | None, stripe_secret: str | None, *, needs_token: bool = True
) -> Target:
    """Fill the gaps from the settings and from the `tallystick up` that runs here. Raises UsageError.

    The key and the secret of the one that runs here are for that one alone: another address gets neither.
    """
    from core.settings import load_settings
    from ops.state import nobody_runs, state_dir

    settings = load_settings()
    secret = stripe_secret or str(next(iter(settings.stripe_signing_secrets), ""))
    running = None
    if not (url and secret and (token or not needs_token)):
        running = _running(settings)
    address = (url or (running.url if running else "")).rstrip("/")
    if not address:
        folder = state_dir(settings)
        raise click.UsageError(f"{nobody_runs(folder)} Or set TALLYSTICK_URL and TALLYSTICK_TOKEN.")
    check_address(address)
    if running is not None and same_service(address, running.url):
        token = token or running.api_key
        secret = secret or running.stripe_signing_secret
    if needs_token and not token:
        raise click.UsageError(f"no API key is known for {address}: set TALLYSTICK_TOKEN, or give --token")
    if not secret:
        raise click.UsageError(
            "the secret that the service checks Stripe's signatures with is not known: set STRIPE_SIGNING_SECRET to "
            "the service's, or give --stripe-secret"
        )
    return Target(address, token or "", secret)


def address_here() -> str:
    """Return the address of the `tallystick up` that runs here, or an empty text."""
    from core.settings import load_settings

    running = _running(load_settings())
    return running.url if running else ""


def check_address(url: str) -> None:
    """Refuse what is no address of a service. Raises UsageError."""
    try:
        parts = urlsplit(url)
        good = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
        named = "@" in parts.netloc
    except ValueError:  # brackets that hold no IPv6 address, or a port that is no number
        good, named = False, "@" in url
    if named:
        raise click.UsageError(
            "The address of a service (TALLYSTICK_URL) takes no user and no password: its key is --token."
        )
    if not good:
        raise click.UsageError(f"{url!r} is no address of a service (TALLYSTICK_URL).")


def same_service(one: str, other: str) -> bool:
    """Whether two addresses are one; all names of this machine are."""

    def normal(url: str) -> tuple[str, str, int | None]:
        parts = urlsplit(url)
        host = parts.hostname or ""
        return parts.scheme, "here" if host in _LOOPBACK else host, parts.port

    return normal(one) == normal(other)


def _running(settings: Settings) -> Any:
    from ops.process import StartError
    from ops.state import find_running, state_dir

    try:
        return find_running(state_dir(settings))
    except StartError as error:
        raise click.UsageError(str(error)) from None
