"""The manifest of a backup: a small JSON file beside the dump, written last. A dump without one counts for nothing."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import msgspec

from core.ledger.history import Picture
from ops.process import StartError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

FORMAT = 1
DUMP, MANIFEST, PARTIAL = ".dump", ".json", ".part"
# A read of this size keeps a disk busy; a larger one only takes memory.
BLOCK_BYTES = 1024 * 1024


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """The content of a backup as its taker saw it, and the size and SHA-256 of the dump. `seconds` is how long it took.

    `lineage` holds the epochs as rows; `migrations` maps each applied file to its checksum; `roles` have rights in the
    dump beside its owner.
    """

    format: int = FORMAT
    name: str
    database: str
    taken_at: datetime
    seconds: float
    version: str
    server_major: int
    migrations: dict[str, str]
    roles: list[str]
    lineage: list[dict[str, Any]]
    picture: Picture
    bytes: int
    sha256: str

    @property
    def epoch(self) -> str:
        """The name of the epoch that was present when the backup was taken."""
        return str(self.lineage[-1]["epoch"]) if self.lineage else ""

    @property
    def epochs(self) -> frozenset[str]:
        """The names of all its epochs. Those of an earlier backup of the same database are among them."""
        return frozenset(str(epoch["epoch"]) for epoch in self.lineage)


def name_of(database: str, taken_at: datetime) -> str:
    """Return the name of a backup, which sorts by time. Letters that no file's name should have become underscores."""
    safe = "".join(letter if letter.isascii() and letter.isalnum() else "_" for letter in database)
    return f"{safe}-{taken_at.astimezone(UTC):%Y%m%dT%H%M%SZ}"


def encode(manifest: Manifest) -> bytes:
    """Return the manifest as JSON with line breaks."""
    return msgspec.json.format(msgspec.json.encode(manifest)) + b"\n"


def decode(text: bytes, name: str) -> Manifest:
    """Return the manifest that `text` is. Raises StartError for anything else."""
    try:
        manifest = msgspec.json.decode(text, type=Manifest)
    except msgspec.DecodeError as error:
        raise StartError(f"The manifest of backup {name} cannot be read: {error}.") from None
    if manifest.format != FORMAT:
        raise StartError(
            f"Backup {name} has format {manifest.format}; this version of Tallystick reads format {FORMAT}."
        )
    if manifest.name != name:
        raise StartError(f"The manifest of backup {name} is that of {manifest.name}.")
    return manifest


def digest_of(path: Path, on_bytes: Callable[[int], None] | None = None) -> str:
    """Return the SHA-256 of a file; `on_bytes` is told how many bytes have been read."""
    digest = hashlib.sha256()
    done = 0
    with path.open("rb") as file:
        while block := file.read(BLOCK_BYTES):
            digest.update(block)
            done += len(block)
            if on_bytes is not None:
                on_bytes(done)
    return digest.hexdigest()


def check_dump(manifest: Manifest, path: Path, on_bytes: Callable[[int], None] | None = None) -> None:
    """Raise StartError unless the dump at `path` is byte for byte the one that the manifest tells of."""
    size = path.stat().st_size
    if size != manifest.bytes:
        raise StartError(
            f"Backup {manifest.name} is damaged: its dump has {size:,} bytes in place of {manifest.bytes:,}."
        )
    if digest_of(path, on_bytes) != manifest.sha256:
        raise StartError(f"Backup {manifest.name} is damaged: the SHA-256 of its dump is another one.")
