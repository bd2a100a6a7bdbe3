"""The six methods over gRPC: each message is translated, and the same functions answer as over HTTP."""

from __future__ import annotations

import asyncio
from time import perf_counter
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from urllib.parse import unquote

import grpc
import msgspec
import structlog
from google.protobuf.message import DecodeError

from core import ids, log, metrics, tracing
from core.errors import Refusal
from core.payments.orchestration.asking import NewOrder, Wanted
from core.payments.orchestration.provider_events import PROCESSED, ProviderEvent
from core.wire import payments_pb2 as wire
from handlers.payments.orchestration.front_door import API_KEY, REQUEST_ID, enter

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from core.payments.orchestration.desk import Viewer
    from core.payments.orchestration.shown import PaymentOut
    from core.tracing.live import Scope
    from handlers.http.parts import Parts

    Handle = Callable[["Service", Viewer, Any], Awaitable[Any]]

_log = structlog.get_logger(__name__)

NAME: Final = "payments.PaymentsService"
# A call of ours takes no longer than the slowest provider's answer; a caller's own deadline may be sooner.
MOST_SECONDS: Final = 65.0
CODES: Final[Mapping[str, grpc.StatusCode]] = {
    "request_id_required": grpc.StatusCode.INVALID_ARGUMENT,
    "invalid_request": grpc.StatusCode.INVALID_ARGUMENT,
    "payment_paid": grpc.StatusCode.INVALID_ARGUMENT,
    "callback_rejected": grpc.StatusCode.INVALID_ARGUMENT,
    "api_key_required": grpc.StatusCode.UNAUTHENTICATED,
    "unauthorized": grpc.StatusCode.UNAUTHENTICATED,
    "forbidden": grpc.StatusCode.PERMISSION_DENIED,
    "payment_not_found": grpc.StatusCode.NOT_FOUND,
    "payment_exists": grpc.StatusCode.ALREADY_EXISTS,
    "rate_limited": grpc.StatusCode.RESOURCE_EXHAUSTED,
    "auth_service_away": grpc.StatusCode.UNAVAILABLE,
    "busy": grpc.StatusCode.UNAVAILABLE,
    "database_unavailable": grpc.StatusCode.UNAVAILABLE,
    "not_migrated": grpc.StatusCode.UNAVAILABLE,
    "overloaded": grpc.StatusCode.UNAVAILABLE,
    "session_not_set": grpc.StatusCode.UNAVAILABLE,
    "shutting_down": grpc.StatusCode.UNAVAILABLE,
}
# The codes that OpenTelemetry counts as errors of a server.
_OUR_FAULTS: Final = frozenset(
    {
        grpc.StatusCode.INTERNAL, grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.UNKNOWN, grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.DATA_LOSS,
    }
)  # fmt: skip
_BROKEN: Final = "internal server error"


class Method(NamedTuple):
    """A method: the type of its requests, and the function that answers."""

    request: Any
    handle: Handle

    def read(self, raw: bytes) -> Any:
        """Return the request of a call. Raises Refusal `invalid_request` for bytes that are none."""
        try:
            return self.request.FromString(raw)
        except DecodeError:
            refusal = Refusal("invalid_request", f"the message is no {self.request.DESCRIPTOR.name}")
        raise refusal


class Service:
    """The service of one process. A call that has begun is ended, whether its caller waits or has gone."""

    def __init__(self, parts: Parts) -> None:
        self.parts = parts
        self._under_way: set[asyncio.Task[Any]] = set()

    def handler(self) -> grpc.GenericRpcHandler:
        """Return the methods as the server takes them."""
        metrics.begin_grpc(METHODS, sorted({code.name for code in (grpc.StatusCode.OK, *CODES.values())}))
        behaviors: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
            name: grpc.unary_unary_rpc_method_handler(
                self._answering(name, method),
                response_serializer=lambda answer: answer.SerializeToString(),
            )
            for name, method in METHODS.items()
        }
        return grpc.method_handlers_generic_handler(NAME, behaviors)

    async def finish(self, within_seconds: float) -> None:
        """Wait for calls whose callers have gone."""
        if self._under_way:
            await asyncio.wait(self._under_way, timeout=within_seconds)

    def _answering(self, name: str, method: Method) -> Callable[[Any, Any], Awaitable[Any]]:
        async def answer(request: bytes, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
            started = perf_counter()
            scope = _traced(name, context)
            code, text = grpc.StatusCode.CANCELLED, ""
            try:
                found = await self._bounded(method, request, context)
                code = grpc.StatusCode.OK
                return found
            except Refusal as refusal:
                code = CODES.get(refusal.code, grpc.StatusCode.INTERNAL)
                text = refusal.detail
                if refusal.code not in {*CODES, "payment_failed"}:
                    _log.error("code without a status", code=refusal.code)
                    text = _BROKEN
            except TimeoutError:
                code, text = grpc.StatusCode.DEADLINE_EXCEEDED, "the call took too long"
            except Exception:  # noqa: BLE001 - a mistake of ours, of which the caller hears nothing
                _log.exception("request failed")
                code, text = grpc.StatusCode.INTERNAL, _BROKEN
            finally:
                seconds = perf_counter() - started
                metrics.observe_grpc(name, code.name, seconds)
                _log.info("grpc.request", method=name, code=code.name, duration_ms=round(seconds * 1000, 3))
                if scope is not None:
                    error = code.name if code in _OUR_FAULTS else None
                    scope.end(error, rpc__grpc__status_code=code.value[0])
            return await context.abort(code, text)

        return answer

    async def _bounded(
        self, method: Method, request: bytes, context: grpc.aio.ServicerContext[Any, Any]
    ) -> Any:
        """Answer in a task of its own: a caller who hangs up must not cancel a commit."""
        metadata = {key: text for key, text in context.invocation_metadata() or () if isinstance(text, str)}
        given = metadata.get(REQUEST_ID, "").strip()
        traceparent = tracing.current() or ids.continue_trace(metadata.get("traceparent"))
        log.begin_exchange(ids.request_id_of(given), traceparent)
        if given.isascii() and given.isprintable() and given:  # gRPC takes no other text
            await context.send_initial_metadata(((REQUEST_ID, given),))
        task = asyncio.create_task(self._answer(method, request, metadata, address_of(context.peer())))
        self._under_way.add(task)
        task.add_done_callback(self._ended)
        async with asyncio.timeout(MOST_SECONDS):
            return await asyncio.shield(task)

    async def _answer(self, method: Method, request: bytes, metadata: Mapping[str, str], address: str) -> Any:
        if self.parts.missing is not None:
            raise Refusal("database_unavailable", "the service waits for its database")
        (await self.parts.guard.admit(principal=None, address=address)).release()
        viewer = await enter(self.parts, metadata.get(REQUEST_ID), metadata.get(API_KEY), "metadata")
        return await method.handle(self, viewer, method.read(request))

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._under_way.discard(task)
        # The caller may have gone, and then the error must not become a "never retrieved" warning.
        if not task.cancelled():
            task.exception()


def _traced(name: str, context: grpc.aio.ServicerContext[Any, Any]) -> Scope | None:
    if tracing.active is None:
        return None
    metadata = dict(context.invocation_metadata() or ())
    given = metadata.get("traceparent")
    return tracing.active.call(NAME, name, given if isinstance(given, str) else None)


def address_of(peer: str) -> str:
    """Return the client's address from gRPC's word for it, such as `ipv4:10.0.0.7:5000` or `ipv6:%5B::1%5D:5000`."""
    family, _, rest = unquote(peer).partition(":")
    return rest.rpartition(":")[0].strip("[]") if family in {"ipv4", "ipv6"} else ""


def message_of(payment: PaymentOut) -> wire.Payment:
    """Return a payment as a message."""
    return wire.Payment(**msgspec.structs.asdict(payment))


async def _health(_service: Service, _viewer: Viewer, _request: Any) -> wire.HealthResponse:
    return wire.HealthResponse(status="ok")


async def _create(
    service: Service, viewer: Viewer, request: wire.CreatePaymentRequest
) -> wire.PaymentEnvelopeResponse:
    names = NewOrder.__struct_fields__
    values = {name: getattr(request, name) for name in names if name != "metadata"}
    order = NewOrder(**values, metadata=dict(request.metadata))
    return wire.PaymentEnvelopeResponse(payment=message_of(await service.parts.desk.create(viewer, order)))


async def _get(
    service: Service, viewer: Viewer, request: wire.GetPaymentRequest
) -> wire.PaymentEnvelopeResponse:
    return wire.PaymentEnvelopeResponse(payment=message_of(await service.parts.desk.show(viewer, request.id)))


async def _list(
    service: Service, viewer: Viewer, request: wire.ListPaymentsRequest
) -> wire.ListPaymentsResponse:
    wanted = Wanted(
        request_id=request.request_id.strip(),
        caller_service=request.caller_service.strip(),
        resource_type=request.resource_type.strip(),
        resource_id=request.resource_id.strip(),
        status=request.status if request.has_status else None,
        provider=request.provider,
        limit=request.limit,
        offset=request.offset,
    )
    found = await service.parts.desk.list(viewer, wanted)
    return wire.ListPaymentsResponse(payments=map(message_of, found))


async def _cancel(
    service: Service, viewer: Viewer, request: wire.CancelPaymentRequest
) -> wire.PaymentEnvelopeResponse:
    payment = await service.parts.desk.cancel(viewer, request.id)
    return wire.PaymentEnvelopeResponse(payment=message_of(payment))


async def _take_event(
    service: Service, _viewer: Viewer, request: wire.HandleProviderCallbackRequest
) -> wire.MessageResponse:
    if not request.request_id.strip():
        raise Refusal("invalid_request", "request_id is required")
    event = ProviderEvent(
        request.provider.strip().lower(),
        request.callback_hash.strip(),
        request.signature.strip(),
        request.payload.encode(),
    )
    event.check()
    events = service.parts.provider_events
    await events.take(event, await events.verified(event))
    return wire.MessageResponse(message=PROCESSED)


METHODS: Final[Mapping[str, Method]] = {
    "Health": Method(wire.HealthRequest, _health),
    "CreatePayment": Method(wire.CreatePaymentRequest, _create),
    "GetPayment": Method(wire.GetPaymentRequest, _get),
    "ListPayments": Method(wire.ListPaymentsRequest, _list),
    "CancelPayment": Method(wire.CancelPaymentRequest, _cancel),
    "HandleProviderCallback": Method(wire.HandleProviderCallbackRequest, _take_event),
}
