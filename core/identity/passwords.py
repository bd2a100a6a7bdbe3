"""Passwords: hashed by Argon2id in threads of their own, a bounded number at once."""

from __future__ import annotations

import asyncio
import unicodedata
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final, TypeVar

import bcrypt
from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from core.errors import Refusal

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

# OWASP's first choice for Argon2id: 19 MiB, two passes, one lane; 20 ms. Longer passwords than 72 bytes count whole.
MEMORY_KIB: Final = 19_456
PASSES: Final = 2
LANES: Final = 1
# So many hashes are computed at once, so that a flood of sign-ins takes 76 MiB and never all processors; more wait.
THREADS: Final = 4
MAX_WAITING: Final = 200

# Hashes that were carried over begin so; the next sign-in with the password makes one of ours.
BCRYPT: Final = "$2"
MAX_BCRYPT_BYTES: Final = 72

# An unknown username's password is compared with this hash of no password, and so takes as long as a wrong password.
NOBODYS_HASH: Final = (
    "$argon2id$v=19$m=19456,t=2,p=1$VGFsbHlzdGlja05vYm9keQ$MFBsYWNlaG9sZGVyT2ZOb1Bhc3N3b3JkQXRBbGwhISE"
)


class Passwords:
    """The hashing of passwords in one process."""

    def __init__(self) -> None:
        self._hasher = PasswordHasher(PASSES, MEMORY_KIB, LANES)
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="password")
        self._waiting = 0

    async def hash(self, password: str) -> str:
        """Return the hash of a password, with its salt and parameters. Raises Refusal `overloaded`.

        A password counts in its composed form (NFC, RFC 8265 section 4.2), since keyboards write an é in two ways.
        """
        return await self._run(lambda: self._hasher.hash(_composed(password)))

    async def verify(self, stored: str | None, password: str) -> bool:
        """Whether `password` has the hash `stored`; None: no user, which takes as long.

        Raises Refusal `overloaded`.
        """
        hashed, composed = stored or NOBODYS_HASH, _composed(password)
        right = await self._run(lambda: self._is(hashed, composed))
        if not right and composed != password:
            # Hashes of before were made of the password as it was typed.
            right = await self._run(lambda: self._is(hashed, password))
        return right and stored is not None

    def is_outdated(self, stored: str, password: str = "") -> bool:
        """Whether a hash was made with other parameters than ours, or may be that of an uncomposed password."""
        return (
            stored.startswith(BCRYPT)
            or self._hasher.check_needs_rehash(stored)
            or _composed(password) != password
        )

    def close(self) -> None:
        """End the threads; passwords that still wait are given up."""
        self._threads.shutdown(wait=True, cancel_futures=True)

    def _is(self, stored: str, password: str) -> bool:
        if stored.startswith(BCRYPT):
            return _is_bcrypt(stored, password)
        try:
            return self._hasher.verify(stored, password)
        except (VerificationError, InvalidHashError):
            return False

    async def _run(self, work: Callable[[], T]) -> T:
        if self._waiting >= MAX_WAITING:
            raise Refusal("overloaded", "Too many people sign in at the moment.", retry_after=1.0)
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, work)
        finally:
            self._waiting -= 1


def _is_bcrypt(stored: str, password: str) -> bool:
    """Whether a password has a hash of the wallet service before, which cut it after 72 bytes."""
    try:
        return bcrypt.checkpw(password.encode()[:MAX_BCRYPT_BYTES], stored.encode())
    except ValueError:  # a hash that was cut, or a NUL in the password
        return False


def _composed(password: str) -> str:
    return unicodedata.normalize("NFC", password)


def is_weak(password: str, *others: str) -> bool:
    """Whether a password is one character over and over, or one of the `others`, such as the username."""
    return len(set(password)) == 1 or password.casefold() in {other.casefold() for other in others}
