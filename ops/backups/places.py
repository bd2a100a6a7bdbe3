"""The places of backups: a folder of this machine, or a bucket that speaks S3."""

from __future__ import annotations

import os
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Protocol, Self, cast
from urllib.parse import urlsplit

from ops.backups.manifest import BLOCK_BYTES, DUMP, MANIFEST, PARTIAL, Manifest, decode, encode
from ops.process import PRIVATE, StartError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Moved = Callable[[int, int], None]

# A part that has not been written to for so long belongs to a run that has ended.
PARTS_END_AFTER_SECONDS = 24 * 3600
# S3 wants parts of at least 5 MiB and at most 10,000 of them: 16 MiB reach to 160 GB; larger dumps get larger parts.
PART_BYTES = 16 * 1024 * 1024
MOST_PARTS = 9_000


class Place(Protocol):
    """A place of backups. A backup exists there when its manifest does, which is written after the dump."""

    title: str
    """The place as a person writes it, without secrets."""

    def names(self) -> list[str]:
        """Return the names of the backups, sorted."""

    def manifest(self, name: str) -> Manifest:
        """Return a backup's manifest. Raises StartError where there is none or it cannot be read."""

    def size(self, name: str) -> int | None:
        """Return the bytes of a backup's dump; None where it is gone."""

    def keep(self, dump: Path, manifest: Manifest, moved: Moved) -> None:
        """Take over a finished dump, then its manifest."""

    def fetched(self, name: str, staging: Path, moved: Moved) -> Any:
        """Return a context manager whose value is the dump as a local file."""

    def remove(self, name: str) -> None:
        """Remove a backup: its manifest first, so that no half of it looks whole."""


class Folder(Place):
    """A folder of this machine, its owner's alone."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.title = str(path)

    def create(self) -> None:
        """Create the folder, and remove the parts that runs before have left."""
        missing = not self.path.exists()
        self.path.mkdir(parents=True, exist_ok=True)
        if missing:
            self.path.chmod(0o700)
        for part in self.path.glob(f"*{PARTIAL}"):
            with suppress(FileNotFoundError):
                if time.time() - part.stat().st_mtime > PARTS_END_AFTER_SECONDS:
                    part.unlink()

    def names(self) -> list[str]:
        """List the manifests."""
        return sorted(path.name.removesuffix(MANIFEST) for path in self.path.glob(f"*-*Z{MANIFEST}"))

    def manifest(self, name: str) -> Manifest:
        """Read the manifest."""
        try:
            return decode((self.path / f"{name}{MANIFEST}").read_bytes(), name)
        except FileNotFoundError:
            raise _absent(name, self.title) from None

    def size(self, name: str) -> int | None:
        """Look at the dump."""
        try:
            return (self.path / f"{name}{DUMP}").stat().st_size
        except FileNotFoundError:
            return None

    def keep(self, dump: Path, manifest: Manifest, moved: Moved) -> None:  # noqa: ARG002 - a rename takes no time
        """Give both files their names, the manifest last, with the folder on the disk after each."""
        name = manifest.name
        part = self.path / f"{name}{MANIFEST}{PARTIAL}"
        write_durably(part, encode(manifest))
        dump.replace(self.path / f"{name}{DUMP}")
        sync(self.path)
        part.replace(self.path / f"{name}{MANIFEST}")
        sync(self.path)

    @contextmanager
    def fetched(self, name: str, staging: Path, moved: Moved) -> Iterator[Path]:  # noqa: ARG002 - it is here already
        """Give the dump where it lies."""
        yield self.path / f"{name}{DUMP}"

    def remove(self, name: str) -> None:
        """Remove the manifest, then the dump."""
        for ending in (MANIFEST, DUMP):
            (self.path / f"{name}{ending}").unlink(missing_ok=True)
            sync(self.path)


class Bucket(Place):
    """A folder of a bucket that speaks S3. Keys, region and endpoint are the library's: AWS_ACCESS_KEY_ID and so on."""

    def __init__(self, url: str) -> None:
        try:
            import obstore
            from obstore.store import S3Store
        except ImportError:
            raise StartError(
                f"{url} needs the package obstore, which is not installed. Install it: `pip install 'tallystick[s3]'`."
            ) from None
        parts = urlsplit(url)
        if not parts.netloc:
            raise StartError(f"{url} names no bucket. A bucket is written s3://bucket or s3://bucket/folder.")
        self.title = f"s3://{parts.netloc}{parts.path.rstrip('/')}"
        self._obstore = obstore
        # The server checks the digest of what it was sent, beside our own that the manifest holds.
        with self._explained():
            self._store = S3Store(
                parts.netloc, prefix=parts.path.strip("/") or None, checksum_algorithm="SHA256"
            )

    def names(self) -> list[str]:
        """List the manifests."""
        with self._explained():
            pages = self._obstore.list(self._store)
            return sorted(
                item["path"].removesuffix(MANIFEST)
                for page in pages
                for item in page
                if item["path"].endswith(f"Z{MANIFEST}") and "/" not in item["path"]
            )

    def manifest(self, name: str) -> Manifest:
        """Read the manifest."""
        try:
            with self._explained():
                return decode(bytes(self._obstore.get(self._store, f"{name}{MANIFEST}").bytes()), name)
        except FileNotFoundError:
            raise _absent(name, self.title) from None

    def size(self, name: str) -> int | None:
        """Look at the dump."""
        try:
            with self._explained():
                return int(self._obstore.head(self._store, f"{name}{DUMP}")["size"])
        except FileNotFoundError:
            return None

    def keep(self, dump: Path, manifest: Manifest, moved: Moved) -> None:
        """Upload both, the manifest after the dump has arrived whole; an upload that was broken off is no object."""
        part_bytes = max(PART_BYTES, manifest.bytes // MOST_PARTS)
        with self._explained():
            with _Counted(dump, manifest.bytes, moved) as file:
                self._obstore.put(
                    self._store,
                    f"{manifest.name}{DUMP}",
                    cast("IO[bytes]", file),
                    chunk_size=part_bytes,
                    max_concurrency=4,
                )
            arrived = self.size(manifest.name)
            if arrived != manifest.bytes:
                raise StartError(
                    f"{self.title} has {arrived} bytes of the dump in place of {manifest.bytes}."
                )
            self._obstore.put(self._store, f"{manifest.name}{MANIFEST}", encode(manifest))
        dump.unlink()

    @contextmanager
    def fetched(self, name: str, staging: Path, moved: Moved) -> Iterator[Path]:
        """Download the dump into `staging` and remove it there after the block."""
        staging.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = staging / f"{name}{DUMP}{PARTIAL}"
        try:
            with self._explained():
                found = self._obstore.get(self._store, f"{name}{DUMP}")
                total, done = int(found.meta["size"]), 0
                with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, PRIVATE), "wb") as file:
                    for chunk in found.stream(min_chunk_size=BLOCK_BYTES):
                        file.write(chunk)
                        done += len(chunk)
                        moved(done, total)
            yield path
        finally:
            path.unlink(missing_ok=True)

    def remove(self, name: str) -> None:
        """Remove the manifest, then the dump."""
        with self._explained():
            for ending in (MANIFEST, DUMP):
                self._obstore.delete(self._store, f"{name}{ending}")

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Turn the library's errors into a sentence that names the place; FileNotFoundError stays."""
        try:
            yield
        except self._obstore.exceptions.BaseError as error:
            reason = str(error).splitlines()[0]
            raise StartError(f"{self.title} cannot be used: {reason.rstrip('.')}.") from error


class _Counted:
    """A file for an upload that tells how far it was read."""

    def __init__(self, path: Path, total: int, moved: Moved) -> None:
        self._file = path.open("rb")
        self._total = total
        self._moved = moved

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def read(self, size: int = -1) -> bytes:
        block = self._file.read(size)
        self._moved(self._file.tell(), self._total)
        return block

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()


def place_of(text: str) -> Place:
    """Return the place that a person names: s3://bucket/folder, or a folder."""
    scheme, behind, rest = text.partition("://")
    # Text before an @ may be a secret: it is neither shown nor taken, since the place is shown and noted ever after.
    if behind and (scheme != "s3" or "@" in rest.split("/", 1)[0]):
        raise StartError(
            f"{scheme}://{rest.rpartition('@')[2]} is no place of backups. A place is a folder, or s3://bucket/folder;"
            " keys belong into AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY."
        )
    return Bucket(text) if text.startswith("s3://") else Folder(Path(text).expanduser().resolve())


def split_source(text: str) -> tuple[Place, str]:
    """Return the place and the name of the backup that a person names as PLACE/NAME, with or without an ending."""
    head, _, name = text.rpartition("/")
    for ending in (DUMP, MANIFEST):
        name = name.removesuffix(ending)
    if not name:
        raise StartError(f"{text} names no backup. `tallystick backup list` shows their names.")
    return place_of(head or ("/" if text.startswith("/") else ".")), name


def write_durably(path: Path, content: bytes) -> None:
    """Write a file that is its owner's alone, and wait until it is on the disk."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, PRIVATE), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def sync(path: Path) -> None:
    """Wait until a file or the names in a folder are on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _absent(name: str, title: str) -> StartError:
    return StartError(f"There is no backup {name} in {title}. `tallystick backup list` shows what there is.")
