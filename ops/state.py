"""Where a running instance keeps what is its own, and how a command in another terminal finds that instance."""

from __future__ import annotations

import fcntl
import hashlib
import os
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from core.settings import Settings, SettingsError, load_settings
from ops.process import PROJECT, StartError

if TYPE_CHECKING:
    from collections.abc import Iterator

# Root's embedded servers run as another user, who must be able to enter the directory; root's home is closed to it.
ROOTS_STATE = Path("/var/lib/tallystick")


@dataclass(frozen=True, slots=True)
class Running:
    """What `tallystick up` tells other commands about itself. It holds secrets: its file is the owner's alone."""

    url: str
    database_url: str
    redis_url: str
    api_key: str
    stripe_signing_secret: str


def state_dir(settings: Settings) -> Path:
    """Return STATE_DIR as an absolute path; if it is unset, a directory that belongs to this checkout alone.

    That is `.state` in the checkout, or `/var/lib/tallystick/<checkout>-<hash of its path>` for root; for an
    installation without a checkout the user's own state directory.
    """
    if "state_dir" in settings.model_fields_set and settings.state_dir:
        return Path(settings.state_dir).expanduser().resolve()
    if os.geteuid() == 0:
        digest = hashlib.sha256(str(PROJECT).encode()).hexdigest()[:8]
        return ROOTS_STATE / f"{PROJECT.name}-{digest}"
    if (PROJECT / "pyproject.toml").exists():
        return PROJECT / ".state"
    return Path("~/.local/state/tallystick").expanduser()


@contextmanager
def state_lock(folder: Path) -> Iterator[None]:
    """Hold `folder`, created if absent, for one launcher; the kernel lets go of it however the launcher ends."""
    _create(folder)
    with (folder / "lock").open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.seek(0)
            raise StartError(
                f"Another Tallystick (process {lock.read().strip() or 'unknown'}) runs on {folder}. "
                "Stop it, or set STATE_DIR to another directory."
            ) from None
        lock.truncate(0)
        lock.write(f"{os.getpid()}\n")
        lock.flush()
        yield


@contextmanager
def announced(folder: Path, running: Running) -> Iterator[None]:
    """Let other commands find this instance for the length of the block. The caller holds the directory's lock."""
    path = folder / "running.json"
    write_secret(path, orjson.dumps(asdict(running)).decode())
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def find_running(folder: Path) -> Running | None:
    """Return the instance that runs on `folder` now, or None."""
    try:
        with (folder / "lock").open() as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return None  # nobody holds the directory: what is written there is a dead instance's
    except BlockingIOError:
        pass
    except OSError:
        return None
    try:
        return Running(**orjson.loads((folder / "running.json").read_bytes()))
    except (OSError, TypeError):  # TypeError: an instance of another version wrote other fields
        return None


def operator_settings(*, redis_needed: bool = True, **overrides: Any) -> Settings:
    """Return the settings for a command that needs the servers: those given, else a running `tallystick up`'s.

    `overrides` are settings by attribute. Raises SettingsError, also where a server is neither named by its setting nor
    run by such an instance.
    """
    settings = load_settings(**overrides)
    if settings.database_url and settings.redis_url:
        return settings
    running = find_running(state_dir(settings))
    found = {} if running is None else {"database_url": running.database_url, "redis_url": running.redis_url}
    missing = {name: url for name, url in found.items() if not getattr(settings, name)}
    if missing:
        settings = load_settings(**overrides, **missing)
    if not settings.database_url:
        raise SettingsError(
            ["DATABASE_URL unset, and no `tallystick up` runs here: set it, or start that first"]
        )
    if redis_needed and not settings.redis_url:
        raise SettingsError(
            ["REDIS_URL unset, and no `tallystick up` runs here: set it, or start that first"]
        )
    return settings


def write_secret(path: Path, text: str) -> None:
    """Write a file that only its owner may read, wholly or not at all."""
    partial = path.with_name(path.name + ".new")
    partial.unlink(missing_ok=True)
    partial.touch(mode=0o600)
    partial.write_text(text)
    partial.replace(path)


def _create(folder: Path) -> None:
    """Create the directory and its missing parents. Root's is open to be entered, because the servers' user must."""
    mode = 0o755 if os.geteuid() == 0 else 0o700
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        for path in reversed(missing):
            path.mkdir(exist_ok=True)
            path.chmod(mode)
    except OSError as error:
        raise StartError(f"The state directory {folder} cannot be created: {error.strerror}.") from None
