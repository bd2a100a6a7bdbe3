"""PayPal's own verification of a webhook over its API, for operators who would rather not check certificates.

(https://developer.paypal.com/docs/api/webhooks/v1/#verify-webhook-signature_post)
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Final, TypeVar

import msgspec

from core.errors import Refusal
from core.inbox.paypal.client import UnreachableError
from core.inbox.paypal.tokens import Tokens
from core.inbox.verifying import NotGenuine

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from core.inbox.paypal.client import Client

_Kind = TypeVar("_Kind")

BASES: Final = {"live": "https://api.paypal.com", "sandbox": "https://api.sandbox.paypal.com"}
# The questions under way and those that wait are bounded, because a forged request costs a call, too.
MAX_CALLS: Final = 8
MAX_WAITING: Final = 100


class _Verdict(msgspec.Struct):
    verification_status: str


class VerificationApi:
    """PayPal's verification API as one process uses it, with one access token for all calls."""

    def __init__(
        self,
        client: Client,
        *,
        base_url: str,
        client_id: str,
        client_secret: str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client = client
        self._base_url = base_url
        self._has_credentials = bool(client_id and client_secret)
        self._tokens = Tokens(
            client, base_url=base_url, client_id=client_id, client_secret=client_secret, clock=clock
        )
        self._slots = asyncio.Semaphore(MAX_CALLS)
        self._calls = 0

    async def check(self, fields: Mapping[str, str], body: bytes) -> None:
        """Ask PayPal about an event by the `fields` of its transmission and its `body`, in the very bytes that came.

        Raises NotGenuine when PayPal says no or nothing, and Refusal `overloaded` when too many questions wait.
        """
        if not self._has_credentials:
            raise NotGenuine("credentials_missing")
        if self._calls >= MAX_WAITING:
            raise Refusal("overloaded", "Too many events wait for PayPal.", retry_after=1.0)
        self._calls += 1
        try:
            async with self._slots:
                verdict = await self._ask(
                    msgspec.json.encode(fields)[:-1] + b',"webhook_event":' + body + b"}"
                )
        except UnreachableError:
            raise NotGenuine("verification_unreachable") from None
        finally:
            self._calls -= 1
        if verdict != "SUCCESS":
            raise NotGenuine("verification_failed")

    async def _ask(self, question: bytes) -> str:
        url = f"{self._base_url}/v1/notifications/verify-webhook-signature"
        status, answer = 0, b""
        # A token may have been revoked before its time, so a 401 is followed by one more try with a new token.
        for _ in range(2):
            token = await self._tokens.current()
            headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
            status, answer = await self._client.call("POST", url, headers=headers, body=question)
            if status != 401:
                break
            self._tokens.forget(token)
        if status != 200:
            raise UnreachableError(f"the verification answered {status}")
        return _decoded(answer, _Verdict).verification_status


def _decoded(answer: bytes, kind: type[_Kind]) -> _Kind:
    try:
        return msgspec.json.decode(answer, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UnreachableError(f"the answer cannot be read: {error}") from None
