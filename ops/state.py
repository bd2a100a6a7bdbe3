"""The state directory of a running instance, by which a command in another terminal finds the instance."""

from __future__ import annotations

import fcntl
import hashlib
import os
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from core.settings import Settings, load_settings
from ops.process import PROJECT, StartError

if TYPE_CHECKING:
    from collections.abc import Iterator

# Root's embedded servers run as another user, who must be able to enter the directory; root's home is closed to it.
ROOTS_STATE = Path("/var/lib/tallystick")


class MissingServerError(Exception):
    """A command needs a server that no setting names and no `tallystick up` runs; the text says what to do."""


@dataclass(frozen=True, slots=True)
class Running:
    """The addresses and secrets of a running `tallystick up`, for other commands; only the owner can read the file.

    `handed` are the settings, by attribute, that it makes for its processes beside the servers: a command needs them to
    know the same providers.
    """

    url: str
    database_url: str
    redis_url: str
    api_key: str
    stripe_signing_secret: str
    simulator_url: str = ""
    handed: dict[str, str] = field(default_factory=dict)


def state_dir(settings: Settings) -> Path:
    """Return STATE_DIR as an absolute path; if it is unset, a directory that belongs to this checkout alone.

    The directory is `.state` in the checkout, or `/var/lib/tallystick/<checkout>-<hash of its path>` for root. An
    installation without a checkout has the user's own state directory. Raises StartError.
    """
    if "state_dir" in settings.model_fields_set and settings.state_dir:
        try:
            return Path(settings.state_dir).expanduser().resolve()
        except (OSError, RuntimeError) as error:  # RuntimeError: `~name` of nobody
            raise unusable(settings.state_dir, error) from None
    if os.geteuid() == 0:
        digest = hashlib.sha256(str(PROJECT).encode()).hexdigest()[:8]
        return ROOTS_STATE / f"{PROJECT.name}-{digest}"
    if (PROJECT / "pyproject.toml").exists():
        return PROJECT / ".state"
    return Path("~/.local/state/tallystick").expanduser()


def overlooked_state(settings: Settings, folder: Path, checkout: Path = PROJECT) -> Path | None:
    """Return the checkout's `.state` if databases lie there and `folder` was chosen without STATE_DIR."""
    left = checkout / ".state"
    if "state_dir" in settings.model_fields_set or left == folder or not any(left.glob("postgres-*")):
        return None
    return left


@contextmanager
def state_lock(folder: Path) -> Iterator[None]:
    """Lock `folder`, created if absent, for one launcher; the kernel unlocks it however the launcher ends."""
    make_state(folder)
    try:
        file = (folder / "lock").open("a+")
    except OSError as error:
        raise unusable(folder, error) from None
    with file as lock:
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
    """Return the instance that runs on `folder` now, or None. Raises StartError if `folder` cannot be looked into."""
    try:
        with (folder / "lock").open() as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return None  # no process holds the directory, so the file is that of a dead instance
    except BlockingIOError:
        pass
    except FileNotFoundError:
        return None
    except OSError as error:
        raise unusable(folder, error) from None
    try:
        return Running(**orjson.loads((folder / "running.json").read_bytes()))
    except (OSError, TypeError):  # TypeError: an instance of another version wrote other fields
        return None


def operator_settings(*, redis_needed: bool = True, **overrides: Any) -> Settings:
    """Return the settings for a command that needs the servers: the given ones, else those of a running instance.

    `overrides` are settings by attribute. A command that needs no Redis is an operator's, and goes past the pooler, to
    DATABASE_DIRECT_URL. Raises SettingsError; MissingServerError where neither a setting names a
    server nor an instance runs it; StartError for a state directory that cannot be used.
    """
    settings = _past_pooler(load_settings(**overrides), redis_needed=redis_needed)
    served = bool(settings.database_url and settings.redis_url)
    try:
        folder = state_dir(settings)
        running = find_running(folder)
    except StartError:
        if not served:
            raise
        return settings
    missing = {} if running is None else _missing(settings, running)
    if missing:
        settings = _past_pooler(load_settings(**overrides, **missing), redis_needed=redis_needed)
    wanted = {"DATABASE_URL": settings.database_url} | (
        {"REDIS_URL": settings.redis_url} if redis_needed else {}
    )
    unset = [name for name, url in wanted.items() if not url]
    if unset:
        named = ", ".join(f"{name} unset" for name in unset)
        raise MissingServerError(f"{named}, and {nobody_runs(folder)} Or set {' and '.join(unset)}.")
    return settings


def _past_pooler(settings: Settings, *, redis_needed: bool) -> Settings:
    if redis_needed or not settings.database_direct_url:
        return settings
    return settings.model_copy(update={"database_url": settings.database_direct_url, "database_pooler": ""})


def _missing(settings: Settings, running: Running) -> dict[str, str]:
    """Return what a running instance has and the settings do not name; nothing of an instance on another database."""
    found = {"database_url": running.database_url, "redis_url": running.redis_url}
    if settings.database_url in {"", running.database_url} and settings.env != "prod":
        found |= running.handed
    return {name: text for name, text in found.items() if text and not getattr(settings, name)}


def nobody_runs(folder: Path) -> str:
    """Return the sentences about a `tallystick up` that does not run."""
    return (
        f"no `tallystick up` runs on {folder}. Start that first; if one runs on another directory, set STATE_DIR to "
        "that."
    )


def write_secret(path: Path, text: str) -> None:
    """Write a file that only its owner can read, wholly or not at all."""
    partial = path.with_name(path.name + ".new")
    partial.unlink(missing_ok=True)
    partial.touch(mode=0o600)
    partial.write_text(text)
    partial.replace(path)


def make_state(folder: Path) -> None:
    """Create the directory and its missing parents. Others can enter root's, because the servers' user must."""
    mode = 0o755 if os.geteuid() == 0 else 0o700
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        for path in reversed(missing):
            path.mkdir(exist_ok=True)
            path.chmod(mode)
    except OSError as error:
        raise unusable(folder, error) from None


def unusable(folder: Path | str, error: Exception) -> StartError:
    """Return the sentence about a state directory that cannot be used."""
    reason = error.strerror if isinstance(error, OSError) else error
    return StartError(f"The state directory {folder} (STATE_DIR) cannot be used: {str(reason).rstrip('.')}.")
