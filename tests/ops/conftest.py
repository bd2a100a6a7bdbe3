"""What the tests of `ops` share."""

import shutil
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ops.process import command_line_of


@pytest.fixture
def state() -> Iterator[Path]:
    """An empty state directory that root's servers can enter, which pytest's own folders are closed to."""
    folder = Path(tempfile.mkdtemp(prefix="tallystick-state-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def nothing_runs_on(eventually: Callable[..., Awaitable[Any]]) -> Callable[[Path], Awaitable[Any]]:
    """What waits until no process has a path on its command line."""

    def left(path: Path) -> list[str]:
        lines = [
            command_line_of(int(entry.name)) for entry in Path("/proc").iterdir() if entry.name.isdigit()
        ]
        return [line for line in lines if str(path) in line]

    return lambda path: eventually(lambda: not left(path), timeout=30)
