"""The progress of an installation: on a terminal a line that moves, elsewhere a line now and then."""

import sys
import threading
import time
from types import TracebackType
from typing import Self, TextIO

# A line that moves each second shows that something goes on; a log needs no more than a sign of life.
MOVES_SECONDS = 1.0
SPEAKS_SECONDS = 10.0
BAR = 24


class Progress:
    """Reads the installer's lines and tells how far it is. The numbers are packages and seconds."""

    def __init__(self, total: int, out: TextIO | None = None) -> None:
        self._total = total
        self._out = out or sys.stderr
        self._moves = self._out.isatty()
        self._started = time.monotonic()
        self._seen = 0
        self._doing = "asking for packages"
        self._over = threading.Event()
        self._ticking = threading.Thread(target=self._tick, daemon=True)

    def __enter__(self) -> Self:
        """Begin to tell, also while the installer says nothing."""
        self._ticking.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Tell no more, and leave the terminal's line empty."""
        self._over.set()
        self._ticking.join()
        if self._moves:
            self._write("\r\033[K")

    def read(self, line: str) -> None:
        """Take in a line of pip."""
        words = line.split()
        if line.lstrip().startswith("Collecting ") and len(words) > 1:
            self._seen = min(self._seen + 1, self._total)
            self._doing = words[1].partition("==")[0]
        elif line.startswith(("Installing collected packages", "Prepared ")):
            self._doing = "unpacking and compiling"
        else:
            return
        if self._moves:
            self.show()

    def show(self) -> None:
        """Write how far it is."""
        told = (
            f"{self._seen} of up to {self._total}: {self._doing} ({time.monotonic() - self._started:.0f} s)"
        )
        if self._moves:
            done = BAR * self._seen // max(self._total, 1)
            self._write(f"\r\033[K  [{'#' * done}{'.' * (BAR - done)}] {told}")
        else:
            self._write(f"tallystick:   {told}\n")

    def _tick(self) -> None:
        while not self._over.wait(MOVES_SECONDS if self._moves else SPEAKS_SECONDS):
            self.show()

    def _write(self, text: str) -> None:
        self._out.write(text)
        self._out.flush()
