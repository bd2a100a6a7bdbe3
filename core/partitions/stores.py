"""The archive's place: a folder, or a bucket of an object storage. An object appears whole or not at all."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol
from urllib.parse import unquote, urlsplit

from core.errors import Refusal

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from io import BufferedWriter

    from obstore.store import S3Store

READ_BYTES: Final = 1 << 20
# The parts of an upload; the least that S3 takes.
PART_BYTES: Final = 5 << 20


class Store(Protocol):
    """A place with named objects. Methods raise OSError, or errors of the object storage's client."""

    async def put(self, name: str, chunks: AsyncIterator[bytes]) -> None:
        """Write an object, in the place of one of that name."""

    def get(self, name: str) -> AsyncIterator[bytes]:
        """Read an object. Raises FileNotFoundError where there is none."""

    def location(self, name: str) -> str:
        """Return an object's address."""


def open_store(url: str) -> Store:
    """Return the place that ARCHIVE_URL names.

    Raises Refusal `archive_not_set`; and `archive_needs_s3` when the client of object storages is not installed.
    """
    if not url:
        raise Refusal("archive_not_set", "ARCHIVE_URL names no archive.")
    if url.startswith("file:"):
        return Folder(Path(unquote(urlsplit(url).path)))
    try:
        from obstore.store import S3Store  # noqa: PLC0415 - an extra, which most installations do without
    except ImportError as error:
        raise Refusal(
            "archive_needs_s3", "An archive at s3:// needs the extra: pip install 'tallystick[s3]'."
        ) from error
    return Bucket(S3Store.from_url(url), url)


class Folder:
    """A folder of this machine, or one that is mounted."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def location(self, name: str) -> str:
        """Return an object's address."""
        return (self._root / name).as_uri()

    async def put(self, name: str, chunks: AsyncIterator[bytes]) -> None:
        """Write beside the name first: the file is on the disk, whole, before it has its name."""
        path = self._root / name
        part = path.with_name(f".{path.name}.{os.getpid()}.part")
        await asyncio.to_thread(path.parent.mkdir, parents=True, exist_ok=True)
        try:
            with await asyncio.to_thread(part.open, "wb") as file:
                async for chunk in chunks:
                    await asyncio.to_thread(file.write, chunk)
                await asyncio.to_thread(_to_disk, file)
            await asyncio.to_thread(_name, part, path)
        finally:
            part.unlink(missing_ok=True)

    async def get(self, name: str) -> AsyncIterator[bytes]:
        """Read a file. Raises FileNotFoundError."""
        with await asyncio.to_thread((self._root / name).open, "rb") as file:
            while chunk := await asyncio.to_thread(file.read, READ_BYTES):
                yield chunk


class Bucket:
    """A bucket of an object storage, with the credentials, region and endpoint of the environment."""

    def __init__(self, store: S3Store, url: str) -> None:
        self._store = store
        self._url = url

    def location(self, name: str) -> str:
        """Return an object's address."""
        return f"{self._url}/{name}"

    async def put(self, name: str, chunks: AsyncIterator[bytes]) -> None:
        """Write an object, in parts if it is large; it is there when the last part is."""
        await self._store.put_async(name, chunks, chunk_size=PART_BYTES, max_concurrency=2)

    async def get(self, name: str) -> AsyncIterator[bytes]:
        """Read an object. Raises FileNotFoundError."""
        found = await self._store.get_async(name)
        async for chunk in found.stream(min_chunk_size=READ_BYTES):
            yield bytes(chunk)


def _to_disk(file: BufferedWriter) -> None:
    file.flush()
    os.fsync(file.fileno())


def _name(part: Path, path: Path) -> None:
    part.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
