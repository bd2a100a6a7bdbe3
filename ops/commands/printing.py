"""The ways in which commands print: tables for people, JSON for programs, strangers' text without its tricks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from rich.console import Console

# A row of a list fits into this width, where no terminal has one.
PIPED_WIDTH = 200


def print_json(value: Any) -> None:
    """Print a value as JSON with line breaks."""
    import msgspec

    click.echo(msgspec.json.format(msgspec.json.encode(value)))


def print_line(value: Any) -> None:
    """Print a value as one line of JSON, for a program that reads along."""
    import msgspec

    click.echo(msgspec.json.encode(value))


def console() -> Console:
    """Return a console as wide as the terminal, or as wide as a row where there is none."""
    from rich.console import Console

    found = Console(highlight=False)
    return found if found.is_terminal else Console(highlight=False, width=PIPED_WIDTH)


def printable(text: str) -> str:
    """Return a stranger's text without characters that a terminal would obey."""
    return "".join(letter if letter.isprintable() else " " for letter in text)


def cell(text: str) -> str:
    """Return a stranger's text for a cell of a table, without what a terminal or the table's markup would obey."""
    from rich.markup import escape

    return escape(printable(text))
