"""Events that the provider, or a gateway for it, sends to a payment's own address.

An event is verified, stored in the inbox, and applied at once. A worker applies what is stored, too, so that an event
whose payment could not be written now is not lost; it may come any number of times.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec
import structlog

from core import metrics
from core.errors import Refusal, Unavailable
from core.inbox.rules import RULES, Target, named_account
from core.inbox.verifying import NotGenuine, read_object
from core.payments.notices import take_at
from core.payments.orchestration.desk import PROVIDER
from core.payments.orchestration.shown import PROVIDERS
from core.payments.payments import find, find_by_names
from core.providers.stripe_objects import read_event

if TYPE_CHECKING:
    from core.database import Row
    from core.inbox.intake import Intake, NewEvent
    from core.inbox.rules import Admission
    from core.inbox.verifying import Verifier
    from core.payments.flow import Payments
    from core.payments.orchestration.desk import Desk
    from core.payments.payments import Attempt
    from core.providers.protocol import Notice

_log = structlog.get_logger(__name__)

PROCESSED: Final = "Provider callback processed"
# The label of metrics for a type that we do not know, since each type makes a series.
OTHER_TYPE: Final = "webhook"
# The key in an object's metadata under which older gateways have put the hash.
HASH: Final = "callback_hash"


class ProviderEvent(NamedTuple):
    """An event as it came: the provider's name, the hash of the address, signature and bytes."""

    provider: str
    callback_hash: str
    signature: str
    payload: bytes

    def check(self) -> None:
        """Raise Refusal `invalid_request` with the contract's words."""
        for name, value in (("provider", self.provider), ("callback hash", self.callback_hash)):
            if not value:
                raise Refusal("invalid_request", f"{name} is required")
        if not self.signature:
            raise Refusal("invalid_request", "provider signature is required")
        if not self.payload.strip():
            raise Refusal("invalid_request", "payload is required")
        if self.provider not in PROVIDERS:
            raise Refusal("invalid_request", "provider is not supported")


class _Enveloped(msgspec.Struct):
    payload: str | None = None
    signature: str | None = None


class _Object(msgspec.Struct):
    metadata: Any = None


class _Data(msgspec.Struct):
    object: _Object


class _Event(msgspec.Struct):
    data: _Data


def unwrapped(provider: str, callback_hash: str, signature: str, body: bytes) -> ProviderEvent:
    """Return the event of a request's body: the provider's own bytes, or the envelope in which a gateway passes it on.

    Members of the envelope that are not blank count before body and header.
    """
    payload = body
    try:
        inner = msgspec.json.decode(body, type=_Enveloped)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        pass
    else:
        payload = inner.payload.encode() if inner.payload and inner.payload.strip() else body
        signature = inner.signature or "" if (inner.signature or "").strip() else signature
    return ProviderEvent(provider.strip().lower(), callback_hash.strip(), signature.strip(), payload)


class EventDesk:
    """Takes in the events of one process."""

    def __init__(
        self, desk: Desk, payments: Payments, verifier: Verifier, intake: Intake, admission: Admission
    ) -> None:
        self._desk = desk
        self._payments = payments
        self._verifier = verifier
        self._intake = intake
        self._admission = admission

    async def verified(self, event: ProviderEvent) -> NewEvent:
        """Return a genuine event. Raises Refusal `callback_rejected`."""
        # Signatures are hexadecimal, which the contract reads in either case.
        headers = {"stripe-signature": event.signature.lower()}
        try:
            found = await self._verifier.verify(event.payload, headers, time.time())
        except Unavailable:
            raise
        except Refusal as refusal:
            metrics.observe_signature(PROVIDER, valid=not isinstance(refusal, NotGenuine))
            rejected = Refusal("callback_rejected", "callback rejected")
        else:
            metrics.observe_signature(PROVIDER, valid=True)
            return found
        raise rejected

    async def take(self, event: ProviderEvent, genuine: NewEvent) -> None:
        """Store a genuine event, and apply it to the payment that it is about.

        Raises Refusal `payment_not_found` for a hash that no payment has, and `callback_rejected` for an event that is
        not about the hash's payment. Both are stored, as every genuine event is.
        """
        started = time.perf_counter()
        new = await self._intake.receive(genuine)
        known = (genuine.provider, genuine.event_type) in RULES
        word = genuine.event_type if known else OTHER_TYPE
        status = "processed" if new else "duplicate"
        metrics.observe_webhook(genuine.provider, word, status, time.perf_counter() - started)
        row = await self._desk.row_of_hash(PROVIDERS[event.provider], event.callback_hash)
        if row is None:
            raise Refusal("payment_not_found", "payment not found")
        notice = self._notice(genuine)
        if notice is not None:
            await self._apply(event, row, genuine, notice)

    def _notice(self, genuine: NewEvent) -> Notice | None:
        """Read an event; None if it has no effect here. One that makes no sense is left to the worker, which tells."""
        try:
            if self._admission.objection(genuine.provider, read_object(genuine.body)):
                return None
            return read_event(genuine.event_type, genuine.body)
        except (Refusal, ValueError) as error:
            _log.warning("orchestration.event_unusable", event_id=genuine.event_id, error=str(error))
            return None

    async def _apply(self, event: ProviderEvent, row: Row, genuine: NewEvent, notice: Notice) -> None:
        payment = await find(self._payments.database, row["payment_id"])
        # The simulator may stand in for the provider, which has the names then.
        providers = dict.fromkeys([PROVIDER, *(one.provider for one in payment.attempts)])
        wanted = [(provider, notice.names) for provider in providers]
        found = [one for one in await find_by_names(self._payments.database, wanted) if one is not None]
        if not found and _is_about(payment.attempt(row["attempt_id"]), event.callback_hash, genuine, notice):
            found = [(payment.id, row["attempt_id"])]
        if {payment_id for payment_id, _ in found} != {payment.id}:
            raise Refusal("callback_rejected", "callback rejected")
        await take_at(self._payments, Target(*found[0]), genuine.event_id, notice)


def _is_about(attempt: Attempt, callback_hash: str, genuine: NewEvent, notice: Notice) -> bool:
    """Whether an object without a known name is this payment's: an older gateway's objects name the address.

    An event that the rule of `metadata.account` takes posts there, and must not post twice. A second object of the kind
    that the attempt has already is not its own. A payer can choose `client_reference_id`, so it decides nothing.
    """
    if named_account(genuine.event_type, genuine.body) is not None:
        return False
    own, given = attempt.provider_id, notice.sight.provider_id
    if own and given and own != given and own.partition("_")[0] == given.partition("_")[0]:
        return False
    try:
        metadata = msgspec.json.decode(genuine.body, type=_Event).data.object.metadata
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return False
    return isinstance(metadata, dict) and metadata.get(HASH) == callback_hash
