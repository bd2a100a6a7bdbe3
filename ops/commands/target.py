"""The service that `demo` and `load` call: the one that the options name, or else the one that runs here."""

from __future__ import annotations

from typing import NamedTuple

import click


class Target(NamedTuple):
    """The URL of a service, with the API key and the secret that its callers need."""

    url: str
    api_key: str
    stripe_secret: str


def find_target(url: str | None, api_key: str | None, stripe_secret: str | None) -> Target:
    """Fill the gaps from the settings and from the `tallystick up` that runs here. Raises UsageError."""
    from core.settings import load_settings
    from ops.process import StartError
    from ops.state import find_running, nobody_runs, state_dir

    settings = load_settings()
    configured = str(next(iter(settings.stripe_signing_secrets), ""))
    secret = stripe_secret or configured
    if url and api_key and secret:
        return Target(url, api_key, secret)
    try:
        folder = state_dir(settings)
        running = find_running(folder)
    except StartError as error:
        raise click.UsageError(str(error)) from None
    url = url or (running.url if running else None)
    api_key = api_key or (running.api_key if running else None)
    secret = secret or (running.stripe_signing_secret if running else "")
    if not url:
        raise click.UsageError(f"{nobody_runs(folder)} Or give --url and --api-key.")
    if not api_key:
        raise click.UsageError(f"no API key is known for {url}: give --api-key")
    if not secret:
        raise click.UsageError(
            "the secret that the service checks Stripe's signatures with is not known: set STRIPE_SIGNING_SECRET to "
            "the service's, or give --stripe-secret"
        )
    return Target(url, api_key, secret)
