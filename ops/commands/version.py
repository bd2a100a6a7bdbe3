"""`tallystick version`."""

from __future__ import annotations

import platform

import click

from core import __version__


@click.command()
def version() -> None:
    """Show the version of this program and of the Python that runs it.

    \b
    Example:
      tallystick version
    """  # noqa: D301 - `\b` is how click is told not to wrap
    click.echo(f"tallystick {__version__} (Python {platform.python_version()})")
