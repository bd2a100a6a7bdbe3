"""The archive of old rows: a partition that was taken off its table goes there whole, is read back, and is dropped.

A partition becomes two objects: its rows as JSON lines in the order of their key, compressed, and a manifest with their
number and digest. Each step can be repeated: an upload that was cut off leaves no object, a second one writes the same
bytes, and only what was read back is noted as archived. A partition is dropped after that note alone.
"""

from __future__ import annotations

import asyncio
import hashlib
import zlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import msgspec
import structlog

from core.database import queries
from core.errors import Refusal
from core.partitions import keeping
from core.partitions.stores import open_store
from core.work.progress import Progress

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from datetime import datetime

    from core.database import Database
    from core.partitions.keeping import Detached
    from core.partitions.stores import Store
    from core.settings import Settings

log = structlog.get_logger(__name__)
_sql = queries(__name__)

FORMAT: Final = "tallystick-partition/1"
# A page takes some tens of milliseconds to read and a megabyte or two of memory.
PAGE_ROWS: Final = 5_000
# The rows are counted by the database before it notes them as archived: 100 million take about a minute.
COUNT_SECONDS: Final = 3_600.0
_GZIP: Final = 31  # zlib's own word for a gzip header; it has no time in it, so equal rows are equal bytes


class Column(msgspec.Struct, frozen=True):
    """A column of the rows, with its type in PostgreSQL."""

    name: str
    type: str


class Manifest(msgspec.Struct, frozen=True):
    """The words about an archived partition; `size` and `sha256` are of the compressed bytes."""

    format: str
    name: str
    table: str
    epoch: str
    from_at: datetime | None
    to_at: datetime
    rows: int
    size: int
    sha256: str
    columns: list[Column]


@dataclass(slots=True)
class Tally:
    """The number of lines and bytes that went by, and the digest of the bytes."""

    rows: int = 0
    size: int = 0
    digest: hashlib._Hash = field(default_factory=hashlib.sha256)

    @property
    def sha256(self) -> str:
        """The digest, in hexadecimal digits."""
        return self.digest.hexdigest()


async def step(database: Database, settings: Settings, epoch: str) -> Progress:
    """Take off, archive and drop one old partition; without ARCHIVE_URL drop it.

    Raises Unavailable, Refusal `archive_damaged`, and the errors of the archive's place. A partition that was taken
    off waits then, and the next run goes on with it.
    """
    waiting = await keeping.detached(database)
    if not waiting and await keeping.detach_old(database, settings) is not None:
        waiting = await keeping.detached(database)
    if not waiting:
        return Progress()
    part = waiting[0]
    if settings.archive_url and part.archived_at is None:
        await archive(database, open_store(settings.archive_url), epoch, part)
    dropped = await keeping.drop(database, part.name, unarchived=not settings.archive_url)
    log.info("partition.dropped", partition=part.name, archived=bool(settings.archive_url), dropped=dropped)
    return Progress(int(dropped))


async def archive(database: Database, store: Store, epoch: str, part: Detached) -> bool:
    """Write a partition that was taken off to the archive, read it back, and note it; say whether it was still there.

    Raises Refusal `archive_damaged` when the bytes come back as others, or not all rows are in them.
    """
    name = f"{epoch}/{part.parent}/{part.name}.jsonl.gz"
    written = Tally()
    await store.put(name, _compressed(_lines(database, part.name), written))
    await check(store, name, written.rows, written.sha256)
    columns = await database.fetch(_sql.partition_columns, f"public.{part.name}")
    manifest = Manifest(
        FORMAT, part.name, part.parent, epoch, part.from_at, part.to_at, written.rows, written.size, written.sha256,
        [Column(**row) for row in columns],
    )  # fmt: skip
    await store.put(manifest_of(name), _once(msgspec.json.format(msgspec.json.encode(manifest)) + b"\n"))
    async with database.transaction() as connection:
        await connection.execute(_sql.allow_an_hour)
        noted: bool = await connection.raw.fetchval(
            _sql.partition_archived.text,
            *(part.name, written.rows, written.sha256, store.location(name)),
            timeout=COUNT_SECONDS,
        )
    log.info("partition.archived", partition=part.name, rows=written.rows, size=written.size)
    return noted


async def check(store: Store, name: str, rows: int, sha256: str) -> None:
    """Read an object. Raises Refusal `archive_damaged` unless it has this digest and so many rows."""
    found = Tally()
    async for _ in plain_lines(store.get(name), found):
        pass
    if (found.rows, found.sha256) != (rows, sha256):
        raise Refusal(
            "archive_damaged",
            f"{store.location(name)} has {found.rows} rows with digest {found.sha256}; {rows} rows with {sha256} were"
            " archived. Nothing is changed in the database.",
        )


async def plain_lines(chunks: AsyncIterator[bytes], found: Tally) -> AsyncIterator[list[bytes]]:
    """Yield the lines of compressed bytes, some at a time, and count them in `found`.

    Raises Refusal `archive_damaged` for bytes that are no such thing, or that end too early.
    """
    unpack = zlib.decompressobj(_GZIP)
    rest = b""
    async for chunk in chunks:
        found.size += len(chunk)
        try:
            plain = await asyncio.to_thread(_unpacked, unpack, found, chunk)
        except zlib.error as error:
            raise Refusal("archive_damaged", f"The archived rows cannot be unpacked: {error}.") from error
        *lines, rest = (rest + plain).split(b"\n")
        found.rows += len(lines)
        if lines:
            yield lines
    if rest or not unpack.eof:
        raise Refusal("archive_damaged", "The archived rows end too early.")


def manifest_of(name: str) -> str:
    """Return the name of the manifest of an object."""
    return name.removesuffix(".jsonl.gz") + ".manifest.json"


async def _lines(database: Database, name: str) -> AsyncIterator[list[str]]:
    """Yield the rows, some at a time, each page in a transaction of its own: nobody writes them any more."""
    behind: list[str] | None = None
    while True:
        rows = await database.fetch(_sql.partition_lines, name, behind, PAGE_ROWS)
        if rows:
            yield [row["line"] for row in rows]
        if len(rows) < PAGE_ROWS:
            return
        behind = rows[-1]["place"]


async def _compressed(pages: AsyncIterator[list[str]], written: Tally) -> AsyncIterator[bytes]:
    pack = zlib.compressobj(6, zlib.DEFLATED, _GZIP)
    async for lines in pages:
        written.rows += len(lines)
        if packed := await asyncio.to_thread(_packed, pack, written, lines):
            yield packed
    packed = pack.flush()
    written.size += len(packed)
    written.digest.update(packed)
    yield packed


def _packed(pack: zlib._Compress, written: Tally, lines: list[str]) -> bytes:
    packed = pack.compress("".join(f"{line}\n" for line in lines).encode())
    written.size += len(packed)
    written.digest.update(packed)
    return packed


def _unpacked(unpack: zlib._Decompress, found: Tally, chunk: bytes) -> bytes:
    found.digest.update(chunk)
    return unpack.decompress(chunk)


async def _once(data: bytes) -> AsyncIterator[bytes]:
    yield data
