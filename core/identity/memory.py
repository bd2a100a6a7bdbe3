"""The short memory of signing in: codes, challenges and counts, in Redis for minutes. Without Redis they wait."""

from __future__ import annotations

import hashlib
from importlib import resources
from typing import TYPE_CHECKING, Any, Final

import structlog
from redis.exceptions import RedisError

from core.errors import Refusal, Unavailable

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from redis.asyncio import Redis

_log = structlog.get_logger(__name__)

RETRY_SECONDS: Final = 2.0
CHALLENGE_SECONDS: Final = 300

# asyncio's TimeoutError is an OSError.
_FAILURES = (RedisError, OSError)


class Memory:
    """Scripts and values in Redis under this epoch's names. Without Redis all methods raise Refusal `sign_in_waits`."""

    def __init__(self, redis: Redis, epoch: str) -> None:
        self._redis = redis
        self._prefix = f"ts:{epoch}:identity:"
        folder = resources.files("core.identity")
        self._scripts: dict[str, Any] = {
            name: redis.register_script(folder.joinpath(f"{name}.lua").read_text())
            for name in ("code_store", "code_check", "code_forget", "bound")
        }

    async def run(self, script: str, name: str, *arguments: str | int) -> Any:
        """Run a script on the names that begin with `name`; a hash tag keeps them together in a cluster."""
        return await self._answer(self._scripts[script]([f"{self._prefix}{{{name}}}"], list(arguments)))

    async def bound(self, name: str, most: int, seconds: int, *, add: bool) -> float:
        """Count one if `add`; return 0.0, or the seconds until there is room again. `most` 0 means no bound."""
        if most == 0:
            return 0.0
        wait: int = await self.run("bound", name, most, seconds, int(add))
        return wait / 1000

    async def keep_challenge(self, kind: str, challenge: str, whose: str) -> None:
        """Keep a challenge for five minutes, with the user whom it is for (empty: anybody)."""
        await self._answer(self._redis.set(self._challenge(kind, challenge), whose, ex=CHALLENGE_SECONDS))

    async def take_challenge(self, kind: str, challenge: str) -> str | None:
        """Return the user of a challenge, once; None for an unknown challenge, one that was taken, or an old one."""
        found: bytes | None = await self._answer(self._redis.getdel(self._challenge(kind, challenge)))
        return None if found is None else found.decode()

    def _challenge(self, kind: str, challenge: str) -> str:
        # The hash bounds the name, because a text from outside may have any length and any characters.
        return f"{self._prefix}{kind}:{hashlib.sha256(challenge.encode()).hexdigest()}"

    async def _answer(self, work: Awaitable[Any]) -> Any:
        try:
            return await work
        except _FAILURES as error:
            _log.warning("sign_in.without_redis", error=repr(error))
            raise Unavailable(
                "Sign-in codes and challenges cannot be had at the moment. Try again in a moment.",
                code="sign_in_waits",
                retry_after=RETRY_SECONDS,
            ) from error


def limited(code: str, detail: str, wait_seconds: float) -> Refusal:
    """Return the refusal of a call that comes too often."""
    return Refusal(code, detail, retry_after=wait_seconds)
