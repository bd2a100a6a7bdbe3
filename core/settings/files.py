"""Secrets by file: `NAME_FILE` in place of `NAME`, as Docker and Kubernetes hand secrets over.

The environment of a process shows in `docker inspect`, in crash reports and to each child; a file does not.
"""

import errno
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from pydantic.fields import FieldInfo

from core.settings.kinds import Dsn, Secret, names_of

SUFFIX: Final = "_FILE"
# A key of RSA with 16,384 bits has 13 KB in PEM; what is longer is no secret but a wrong path.
MAX_BYTES: Final = 64 * 1024
# The bundle of all public authorities has 0.3 MB.
MAX_CERTIFICATES_BYTES: Final = 4 * 1024 * 1024
_PEM: Final = "-----BEGIN "
_KINDS: Final = (
    (stat.S_ISDIR, "a directory"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)
_LISTS: Final = frozenset({tuple[Secret, ...]})
_SECRETS: Final = frozenset({Secret, Dsn, *_LISTS})


def is_secret(field: FieldInfo) -> bool:
    """Whether a key holds a secret, or an address with a password in it: such a key has a `NAME_FILE`, too."""
    return field.annotation in _SECRETS


def with_files(
    layer: Mapping[str, str], fields: Mapping[str, FieldInfo]
) -> tuple[dict[str, str], dict[str, str]]:
    """Return the values of one source with those that stand in files, and a problem for each attribute that has one."""
    values = dict(layer)
    problems: dict[str, str] = {}
    for attribute, field in fields.items():
        for name in names_of(attribute, field) if is_secret(field) else ():
            path = layer.get(name + SUFFIX)
            if path is None:
                continue
            if name in layer:
                problems[attribute] = f"{name} and {name}{SUFFIX} are both set: leave one out"
                continue
            try:
                values[name] = _text_in(Path(path).expanduser(), several=field.annotation in _LISTS)
            except (OSError, ValueError, RuntimeError) as error:  # RuntimeError: `~name` of nobody
                reason = error.strerror if isinstance(error, OSError) else error
                problems[attribute] = f"{name}{SUFFIX}={path} cannot be used: {reason}"
    return values, problems


def bytes_in(path: str | os.PathLike[str], most: int = MAX_BYTES) -> bytes:
    """Return what is in a regular file, or in the one that a link leads to.

    Raises OSError, also for a file of more than `most` bytes, and for a directory, a pipe or a device: the reading of
    those may wait for ever, or never end.
    """
    # A device may do something when it is opened, and a pipe waits for its other end; so the look comes first. The
    # second look is at what was opened, since the path may lead elsewhere by now.
    _check_regular(Path(path).stat())
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    with os.fdopen(descriptor, "rb") as file:
        _check_regular(os.fstat(descriptor))
        data = file.read(most + 1)
    if len(data) > most:
        raise OSError(errno.EFBIG, f"it has more than {most // 1024} KiB")
    return data


def _check_regular(found: os.stat_result) -> None:
    if not stat.S_ISREG(found.st_mode):
        kind = next((word for check, word in _KINDS if check(found.st_mode)), "something else")
        raise OSError(errno.EINVAL, f"it is {kind} and no regular file")


def _text_in(path: Path, *, several: bool) -> str:
    """Return the secret in a file, without the space around it; several stand one a line, or comma separated."""
    data = bytes_in(path)
    try:
        text = data.decode("utf-8-sig").strip()
    except UnicodeDecodeError:
        raise ValueError("it is no text in UTF-8") from None
    # An empty variable is unset. A file that was named and is empty was lost, and some keys protect by being set.
    if not text:
        raise ValueError("it is empty")
    if several:
        text = ",".join(text.splitlines())
    # Such a secret would go into a header or an address, where it fails at its first use, and with a traceback.
    if not text.startswith(_PEM) and any(_is_control(character) for character in text):
        raise ValueError("it has a line break or another control character within the secret")
    return text


def _is_control(character: str) -> bool:
    return (character < " " and character != "\t") or character == "\x7f"
