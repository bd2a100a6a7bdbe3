"""What the tests of `ops` share."""

import shutil
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.copies import in_memory


@pytest.fixture
def state() -> Iterator[Path]:
    """An empty state directory in memory that root's servers can enter, which pytest's own folders are closed to."""
    folder = Path(tempfile.mkdtemp(prefix="tallystick-state-", dir=in_memory()))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def nothing_runs_on(eventually: Callable[..., Awaitable[Any]]) -> Callable[[Path], Awaitable[Any]]:
    """What waits until no process has a path on its command line or in its environment."""

    def left(path: Path) -> list[str]:
        found = []
        for entry in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):  # it has just ended, or is another user's
                if str(path).encode() in (entry / "cmdline").read_bytes() + (entry / "environ").read_bytes():
                    found.append(entry.name)
        return found

    return lambda path: eventually(lambda: not left(path), timeout=30)
