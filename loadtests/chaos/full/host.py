"""The database's host: a disk of its own that can be filled, and a wall clock that can be moved.

A machine that may not mount has no such disk, and one without a C compiler no such clock. Both are then left out, and
the report says so.
"""

import contextlib
import os
import shutil
import struct
import subprocess
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TypeVar

from ops.embedded import EmbeddedServers, Postgres, Valkey
from ops.embedded.programs import find_postgres
from ops.state import state_lock

#: The disk holds the data and the log of an hour; its file is sparse and takes only what is used.
DISK_MB = 4_096
#: The steps in which the disk is filled, ever smaller, so that not a page is left.
FILLINGS = (64 * 2**20, 2**20, 4_096)
COMMAND_SECONDS = 60.0
SOURCE = Path(__file__).with_name("clock.c")

Part = TypeVar("Part")


class Clock:
    """The wall clock of the server's processes, as an offset in a file that they all see."""

    def __init__(self, folder: Path) -> None:
        """Compile the library into `folder`. Raises OSError or CalledProcessError where that cannot be done."""
        self._library, self._file = folder / "clock.so", folder / "clock"
        compiler = shutil.which("cc") or shutil.which("gcc") or "cc"
        _run(compiler, "-O2", "-shared", "-fPIC", "-o", str(self._library), str(SOURCE), "-ldl")
        for path in (self._library, self._file):
            path.touch()
            path.chmod(0o755)
        self.furthest = 0
        self.move(0)

    @property
    def environment(self) -> Mapping[str, str]:
        """The environment of a process that has this clock."""
        return {"LD_PRELOAD": str(self._library), "CHAOS_CLOCK": str(self._file)}

    def move(self, seconds: int) -> None:
        """Let the clock be so many seconds off, to either side."""
        self.furthest = max(self.furthest, seconds)
        # The file keeps its length: a process that has it mapped would be killed by a shorter one.
        with self._file.open("r+b" if self._file.stat().st_size else "wb", buffering=0) as file:
            file.write(struct.pack("=q", seconds * 10**9))


class Disk:
    """A small file system of its own, in a file that is mounted."""

    def __init__(self, image: Path, place: Path) -> None:
        """Make and mount it. Raises OSError or CalledProcessError where that is not allowed."""
        self._image, self._place = image, place
        self._ballast = place / "ballast"
        place.mkdir()
        with image.open("wb") as file:
            file.truncate(DISK_MB * 2**20)
        try:
            _run("mkfs.ext4", "-q", "-m", "0", str(image))
            _run("mount", "-o", "loop", str(image), str(place))
        except (OSError, subprocess.SubprocessError):
            image.unlink()
            raise

    def fill(self) -> None:
        """Take all that is free."""
        with self._ballast.open("wb") as file:
            end = 0
            for size in FILLINGS:
                with contextlib.suppress(OSError):
                    while True:
                        os.posix_fallocate(file.fileno(), end, size)
                        end += size

    def free(self) -> None:
        """Give back what was taken."""
        self._ballast.unlink(missing_ok=True)

    def unmount(self) -> None:
        """Take it out of the tree of files; its image stays."""
        self.free()
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            _run("umount", str(self._place))


class HostedPostgres(Postgres):
    """The embedded PostgreSQL with a clock of its own."""

    clock: Clock | None = None

    @property
    def environment(self) -> Mapping[str, str]:
        """The server's environment."""
        return {**super().environment, **(self.clock.environment if self.clock else {})}


class Host:
    """The parts of the host; `left_out` says which this machine cannot have, and why."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.clock: Clock | None = None
        self.disk: Disk | None = None
        self.left_out: dict[str, str] = {}

    @contextlib.contextmanager
    def servers(
        self, *, postgres_options: Mapping[str, str], say: Callable[[str], None]
    ) -> Iterator[EmbeddedServers]:
        """Run both servers on the host, for the length of the block."""
        program = find_postgres()
        with state_lock(self.folder), contextlib.ExitStack() as stack:
            place = self.folder / f"{program.name}-{program.major}"
            self.disk = self._tried("disk", lambda: Disk(self.folder / "disk.img", place))
            if self.disk is not None:
                stack.callback(self.disk.unmount)
            self.clock = self._tried("clock", lambda: Clock(self.folder))
            postgres = HostedPostgres(self.folder, options=postgres_options, say=say)
            postgres.clock = self.clock
            stack.enter_context(postgres)
            yield EmbeddedServers(postgres, stack.enter_context(Valkey(self.folder, say=say)))

    def _tried(self, part: str, make: "Callable[[], Part]") -> "Part | None":
        try:
            return make()
        except (OSError, subprocess.SubprocessError) as error:
            said = getattr(error, "stderr", None) or str(error)
            self.left_out[part] = said.strip().splitlines()[-1]
            return None


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, text=True, timeout=COMMAND_SECONDS)
