"""The progress of long work on standard error: one moving line on a terminal, else a line now and then."""

from __future__ import annotations

import sys
import time

import click

# A log wants few lines, a person at a terminal a sign of life.
PIPED_EVERY_SECONDS = 10.0
SHOWN_EVERY_SECONDS = 0.2
MIB = 1024 * 1024


class Progress:
    """The progress of one run, in stages; safe to be told from any thread."""

    def __init__(self) -> None:
        self._live = sys.stderr.isatty()
        self._last = 0.0
        self._width = 0

    def stage(self, text: str) -> None:
        """Say what begins now."""
        self._end_line()
        click.echo(f"{text} ...", err=True)
        self._last = time.monotonic()

    def moved(self, text: str) -> None:
        """Say how far it is, unless that was said a moment ago."""
        now = time.monotonic()
        if now - self._last < (SHOWN_EVERY_SECONDS if self._live else PIPED_EVERY_SECONDS):
            return
        self._last = now
        if self._live:
            click.echo(f"\r  {text:<{self._width}}", nl=False, err=True)
            self._width = max(self._width, len(text))
        else:
            click.echo(f"  {text}", err=True)

    def bytes(self, done: int, total: int) -> None:
        """Say how many bytes are done."""
        self.moved(f"{done / MIB:,.0f} of {total / MIB:,.0f} MiB")

    def done(self) -> None:
        """End a moving line."""
        self._end_line()

    def _end_line(self) -> None:
        if self._live and self._width:
            click.echo(err=True)
            self._width = 0
