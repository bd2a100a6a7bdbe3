"""The parts of one process that sign users in, over those of the platform."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from core.identity.codes import Codes
from core.identity.memory import Memory
from core.identity.passkeys import Passkeys
from core.identity.passwords import Passwords
from core.identity.sms import Messages, open_messages

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from core.identity.tokens import Tokens
    from core.platform import Platform


@dataclass(frozen=True, slots=True)
class Identity:
    """The parts that the operations of signing in use; `open_identity` makes them."""

    platform: Platform
    tokens: Tokens
    memory: Memory
    codes: Codes
    messages: Messages
    passwords: Passwords
    passkeys: Passkeys


@asynccontextmanager
async def open_identity(platform: Platform, tokens: Tokens) -> AsyncIterator[Identity]:
    """Open the parts over a platform, and close them before it."""
    settings, service = platform.settings, platform.service
    memory = Memory(service.redis, service.epoch)
    messages, passwords = open_messages(settings), Passwords()
    try:
        yield Identity(
            platform,
            tokens,
            memory,
            Codes(settings, tokens, memory),
            messages,
            passwords,
            Passkeys(settings, platform.database, memory),
        )
    finally:
        await messages.close()
        passwords.close()
