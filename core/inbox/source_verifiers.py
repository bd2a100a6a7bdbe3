"""The verifiers of registered sources, as one process knows them."""

from __future__ import annotations

import asyncio
import re
import time
from collections import OrderedDict
from typing import TYPE_CHECKING, Final

from core.database import queries
from core.errors import Refusal
from core.inbox import plain_hmac, standard_webhooks
from core.inbox.intake import NewEvent
from core.inbox.locations import HEADER_PREFIX, Payload
from core.inbox.sources import NAME_PATTERN, owner_of, read_options
from core.inbox.verifying import identified, kept, moment_in, object_named

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from core.database import Database
    from core.inbox.sources import Kind, Options
    from core.vault import Vault

_sql = queries(__name__)

# The prefix keeps the name of a source from passing for one of the built-in providers.
PROVIDER_PREFIX: Final = "source:"
# A change takes hold after this at the latest. A second is promised, and the query takes its part of that.
BELIEVED_SECONDS: Final = 0.5
# A process remembers so many sources. Unknown names are kept apart, so that guesses cannot push out good ones.
CACHED: Final = 10_000
CACHED_UNKNOWN: Final = 10_000

_NAME = re.compile(NAME_PATTERN)


class SourceVerifier:
    """The `core.inbox.verifying.Verifier` of one source, with the keys that are good at present.

    `provider` names one that is built in and signs as a source does.
    """

    def __init__(
        self, name: str, kind: Kind, options: Options, secrets: Sequence[str], provider: str | None = None
    ) -> None:
        self.provider = provider or PROVIDER_PREFIX + name
        self._options = options
        self._secrets = secrets
        make = standard_webhooks.public_key if kind == "standard_ed25519" else standard_webhooks.secret_key
        self._keys = [] if kind == "hmac" else [make(secret) for secret in secrets]

    async def verify(self, body: bytes, headers: Mapping[str, str], now: float) -> NewEvent:
        """Check the signature first, and only then read the bytes."""
        options = self._options
        payload = Payload(body, headers)
        if options.signature is not None:
            plain_hmac.verify(body, headers, options.signature, self._secrets)
            event_id = payload.joined(options.event_id)
        else:
            event_id = standard_webhooks.verify(body, headers, self._keys, now).message_id
        event_type = payload.text_at(options.event_type)
        event_id, event_type = identified(event_id or "", event_type or "")
        return NewEvent(
            provider=self.provider,
            event_id=event_id,
            event_type=event_type,
            object_id=object_named(payload.text_if_any(options.object_id)),
            occurred_at=moment_in(payload.text_if_any(options.occurred_at)),
            headers=kept(headers, _names(options)),
            body=body,
        )


class SourceVerifiers:
    """The verifiers of all sources that one process knows, by name.

    An entry is believed for half a second. Requests that need the same source at the same time share one query.
    """

    def __init__(
        self, database: Database, vault: Vault, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._database = database
        self._vault = vault
        self._clock = clock
        self._known: OrderedDict[str, tuple[SourceVerifier | None, float]] = OrderedDict()
        self._unknown: OrderedDict[str, tuple[SourceVerifier | None, float]] = OrderedDict()
        self._asking: dict[str, asyncio.Task[SourceVerifier | None]] = {}

    async def get(self, name: str) -> SourceVerifier:
        """Return the verifier of the enabled source of this name.

        Raises Refusal `not_found` when there is none, and Unavailable when the database cannot be asked or its keys
        cannot be read.
        """
        if _NAME.fullmatch(name) is None:
            return _existing(None)
        entry = self._known.get(name) or self._unknown.get(name)
        if entry is not None and entry[1] > self._clock():
            return _existing(entry[0])
        task = self._asking.get(name)
        if task is None:
            task = self._asking[name] = asyncio.create_task(self._look_up(name))
            task.add_done_callback(_retrieve)
        # The query is shielded: a sender that hangs up must not take the answer from others who wait for it.
        return _existing(await asyncio.shield(task))

    def forget(self, name: str) -> None:
        """Drop the entry of a source that this process has changed, so that the next request asks again."""
        self._known.pop(name, None)
        self._unknown.pop(name, None)

    async def _look_up(self, name: str) -> SourceVerifier | None:
        try:
            # The time is taken before the query, because the source may be changed while the answer travels.
            until = self._clock() + BELIEVED_SECONDS
            row = await self._database.fetchrow(_sql.inbox_source_keys, name)
            self.forget(name)
            if row is None:
                _remember(self._unknown, name, (None, until), CACHED_UNKNOWN)
                return None
            secrets = [self._vault.open(stored, owner_of(name)) for stored in row["secrets"]]
            verifier = SourceVerifier(name, row["kind"], read_options(row["options"]), secrets)
            _remember(self._known, name, (verifier, until), CACHED)
            return verifier
        finally:
            del self._asking[name]


def _existing(verifier: SourceVerifier | None) -> SourceVerifier:
    if verifier is None:
        raise Refusal("not_found", "There is no enabled source of this name.")
    return verifier


def _remember(
    cache: OrderedDict[str, tuple[SourceVerifier | None, float]],
    name: str,
    entry: tuple[SourceVerifier | None, float],
    bound: int,
) -> None:
    cache[name] = entry
    if len(cache) > bound:
        cache.popitem(last=False)


def _retrieve(task: asyncio.Task[SourceVerifier | None]) -> None:
    # Every waiter may have gone, and then the error must not become a "never retrieved" warning.
    if not task.cancelled():
        task.exception()


def _names(options: Options) -> list[str]:
    """Return the names of the headers that are needed to verify and read the request again."""
    signature = options.signature
    names = [*standard_webhooks.HEADERS] if signature is None else [signature.header.lower()]
    locations = (*options.event_id, options.event_type, options.object_id or "", options.occurred_at or "")
    names += [
        place.removeprefix(HEADER_PREFIX).lower() for place in locations if place.startswith(HEADER_PREFIX)
    ]
    return names
