"""Calls of providers: each is bounded in time, and ends in an answer or in one of three words that the table knows."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Final, Generic, NamedTuple, TypeVar

import structlog

from core.payments.looking import CALL_SECONDS
from core.payments.observing import note_call
from core.payments.states import Seen
from core.providers.protocol import DeclinedError, UnknownError, UnsentError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from core.providers.protocol import Provider

Answer = TypeVar("Answer")

_log = structlog.get_logger(__name__)

# A call that takes longer ends as unknown. It ends well before CALL_SECONDS, when others may look.
MOST_CALL_SECONDS: Final = CALL_SECONDS - 15
# The code of a question that a provider does not answer to anybody: it is well, and others may ask it for payments.
CANNOT_TELL: Final = "provider_cannot_tell"


class Ended(NamedTuple, Generic[Answer]):
    """The end of a call: the answer, or DECLINED, UNSENT or UNKNOWN with an error, a code and a sentence."""

    seen: Answer | Seen
    error: str | None = None

    @property
    def answered(self) -> bool:
        """Whether the provider has answered, be it by a refusal, or has no answer to such a question at all."""
        if self.seen is Seen.UNKNOWN and (self.error or "").startswith(f"{CANNOT_TELL}:"):
            return True
        return self.seen is not Seen.UNKNOWN and self.seen is not Seen.UNSENT


async def called(
    providers: Mapping[str, Provider], name: str, call: Callable[[Provider], Awaitable[Answer]]
) -> Ended[Answer]:
    """Call a provider. A time-out, a fault in its file and everything else that is no clear answer is UNKNOWN."""
    provider = providers.get(name)
    if provider is None:
        return Ended(Seen.UNSENT, f"provider_not_configured: {name} is not configured.")
    started = time.monotonic()
    ended = await _ended(provider, call)
    outcome = "answered" if not isinstance(ended.seen, Seen) else str(ended.seen)
    note_call(name, outcome, time.monotonic() - started)
    return ended


async def _ended(provider: Provider, call: Callable[[Provider], Awaitable[Answer]]) -> Ended[Answer]:
    try:
        async with asyncio.timeout(MOST_CALL_SECONDS):
            return Ended(await call(provider))
    except DeclinedError as error:
        return Ended(Seen.DECLINED, f"{error.code}: {error.detail}")
    except UnsentError as error:
        return Ended(Seen.UNSENT, f"{error.code}: {error.detail}")
    except UnknownError as error:
        return Ended(Seen.UNKNOWN, f"{error.code}: {error.detail}")
    except Exception as error:  # noqa: BLE001 - nobody knows what the provider has done by then
        _log.exception("payments.call_failed", provider=provider.name)
        return Ended(Seen.UNKNOWN, f"internal_error: {type(error).__name__}")
