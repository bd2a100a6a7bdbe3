"""Texts that a person types and that are kept: reasons, descriptions, names. Each has a bound."""

from __future__ import annotations

import click

REASON_CHARACTERS = 500
NAME_CHARACTERS = 255


class Text(click.ParamType[str]):
    """A text of up to `most` characters that is not blank, unless it is `optional`."""

    name = "text"

    def __init__(self, most: int = REASON_CHARACTERS, *, optional: bool = False) -> None:
        self._most = most
        self._optional = optional

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Check the text. Bytes of the command line that are no UTF-8 could not be stored."""
        try:
            value.encode()
        except UnicodeEncodeError:
            self.fail("it is no UTF-8.", param, ctx)
        if len(value) > self._most or not (value.strip() or (self._optional and not value)):
            least = "0" if self._optional else "1"
            self.fail(f"it has {least} to {self._most} characters, and not blanks alone.", param, ctx)
        return value
