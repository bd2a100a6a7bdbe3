"""Marks of requests that are at work under an idempotency key, and the form of finished answers in Redis.

Both are shortcuts. A mark or answer may be lost, late or wrong, because PostgreSQL's key row decides.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import deque
from contextlib import suppress
from typing import NamedTuple

import msgspec

# A larger answer costs Redis more than it saves: its key is only unmarked.
MAX_ANSWER_BYTES = 64 * 1024
# So many bytes of answers may wait (10 ms; more means that Redis is in trouble), and one round trip carries so many.
MAX_WAITING_BYTES = 8 * 1024 * 1024
MAX_CARRIED_BYTES = 1024 * 1024
MAX_CARRIED = 256

# A value in Redis begins with the letter of a mark or an answer, and then has the request's fingerprint in hex.
_MARK = "M"
_ANSWER = b"A"
_FINGERPRINT_END = 1 + 2 * hashlib.sha256().digest_size
_STATUS_END = _FINGERPRINT_END + 3


class StoredAnswer(NamedTuple):
    """A frozen answer, byte for byte. Its body holds neither a request id nor a value that may change."""

    status: int
    content_type: str
    body: bytes


class Mark(msgspec.Struct, eq=False):
    """One request at work under one key. Twins in this process wait for it; twins elsewhere see the mark in Redis."""

    identity: tuple[int, str]
    name: str
    fingerprint: str
    value: str
    in_redis: bool = False
    done: bool = False
    answer: StoredAnswer | None = None
    waiting: asyncio.Future[None] | None = None

    async def settled(self, deadline: float) -> StoredAnswer | None:
        """Wait for the request's answer; None when it has ended without one, or has not ended by `deadline`."""
        if not self.done:
            if self.waiting is None:  # made by the first twin: most requests have none
                self.waiting = asyncio.get_running_loop().create_future()
            with suppress(TimeoutError):
                async with asyncio.timeout_at(deadline):
                    await asyncio.shield(self.waiting)
        return self.answer

    def settle(self, answer: StoredAnswer | None) -> None:
        """Tell the twins; only the first call counts."""
        if not self.done:
            self.done = True
            self.answer = answer
            if self.waiting is not None:
                self.waiting.set_result(None)


def mark_value(fingerprint: str, token: str) -> str:
    """Return the mark that stands in Redis under a key; the token is this request's own."""
    return f"{_MARK}{fingerprint}{token}"


def request_fingerprint(operation: str, body: bytes) -> bytes:
    """Return the hash of an operation, its path and the raw body; twins have the same one.

    Another spelling of the same JSON merely misses the shortcut, because PostgreSQL compares the meaning.
    """
    return hashlib.sha256(b"%s\0%s" % (operation.encode(), body)).digest()


def pack_answer(fingerprint: str, answer: StoredAnswer) -> bytes:
    """Return the value that Redis keeps."""
    head = f"{fingerprint}{answer.status:03d}{answer.content_type}\n"
    return b"%s%s%s" % (_ANSWER, head.encode(), answer.body)


def is_mark_of(value: bytes, fingerprint: str) -> bool:
    """Whether `value` is the mark of a request with this fingerprint."""
    return value.startswith(f"{_MARK}{fingerprint}".encode())


def answer_in(value: bytes, fingerprint: str) -> StoredAnswer | None:
    """Return the answer in `value` to a request with this fingerprint; None for any other value."""
    head, newline, body = value.partition(b"\n")
    status = head[_FINGERPRINT_END:_STATUS_END]
    if not head.startswith(_ANSWER + fingerprint.encode()) or not newline or not status.isdigit():
        return None
    return StoredAnswer(int(status), head[_STATUS_END:].decode("ascii", "replace"), body)


class Writes:
    """The answers and marks that are still to be written to Redis; an answer beyond the bound is dropped."""

    def __init__(self) -> None:
        self._answers: deque[tuple[str, bytes]] = deque()
        self._answers_bytes = 0
        self._releases: deque[tuple[str, str]] = deque(maxlen=16 * MAX_CARRIED)

    def __bool__(self) -> bool:
        return bool(self._answers or self._releases)

    def store(self, mark: Mark, answer: StoredAnswer) -> None:
        """Put the answer in the mark's place."""
        value = pack_answer(mark.fingerprint, answer)
        if self._answers_bytes + len(value) <= MAX_WAITING_BYTES:
            self._answers_bytes += len(value)
            self._answers.append((mark.name, value))

    def release(self, mark: Mark) -> None:
        """Take the mark away, unless another one stands there by then."""
        self._releases.append((mark.name, mark.value))

    def take(self) -> tuple[list[str | bytes], list[str]]:
        """Return the writes of the next round trip: names and answers, then names and marks to take away."""
        answers: list[str | bytes] = []
        carried = 0
        while self._answers and len(answers) < 2 * MAX_CARRIED and carried < MAX_CARRIED_BYTES:
            name, value = self._answers.popleft()
            carried += len(value)
            answers += (name, value)
        self._answers_bytes -= carried
        releases: list[str] = []
        while self._releases and len(releases) < 2 * MAX_CARRIED:
            releases += self._releases.popleft()
        return answers, releases
