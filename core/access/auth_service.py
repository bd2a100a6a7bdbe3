"""The auth service of an operator who has one: it tells whose a caller's key is, over gRPC (docs/proto/auth.proto)."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

import structlog

from core import tracing
from core.access.internal_callers import MOST_NAME, InternalCaller
from core.errors import Unavailable
from core.tracing.outgoing import Outgoing

if TYPE_CHECKING:
    import grpc.aio

    from core.settings import Settings

_log = structlog.get_logger(__name__)

METHOD: Final = "/auth.AuthService/ValidateInternalAccess"
# A caller of ours waits for the answer, and its own time-out is seldom below ten seconds.
ANSWER_WITHIN_SECONDS: Final = 2.0
# More questions at once would only queue at the auth service.
AT_ONCE: Final = 32
# The codes by which a service says that a key is not good; every other one says nothing of the key.
REFUSALS: Final = frozenset({"INVALID_ARGUMENT", "NOT_FOUND", "PERMISSION_DENIED", "UNAUTHENTICATED"})


class GrpcAuthService:
    """The client. The connection is opened at the first question, and kept."""

    def __init__(self, address: str, own_key: str) -> None:
        self._address = address
        self._own_key = own_key
        self._slots = asyncio.Semaphore(AT_ONCE)
        self._channel: grpc.aio.Channel | None = None

    @classmethod
    def of(cls, settings: Settings) -> GrpcAuthService | None:
        """Return the client of AUTH_SERVICE_GRPC_ADDR, None where it is unset, is our own, or has no APP_API_KEY."""
        if problem := settings.auth_service_problem:
            _log.warning("auth_service.not_asked", reason=problem)
        if problem or not settings.auth_service_grpc_addr:
            return None
        return cls(settings.auth_service_grpc_addr, settings.app_api_key)

    async def validate(self, key: str) -> InternalCaller | None:
        """Return the holder of a key, None for a key that is refused. Raises Unavailable `auth_service_away`."""
        import grpc.aio  # noqa: PLC0415 - 0.2 s, for those who have an auth service

        from core.wire import auth_pb2  # noqa: PLC0415

        if self._channel is None:
            self._channel = grpc.aio.insecure_channel(self._address)
        ask = self._channel.unary_unary(
            METHOD,
            request_serializer=auth_pb2.ValidateInternalAccessRequest.SerializeToString,
            response_deserializer=auth_pb2.ValidateInternalAccessResponse.FromString,
        )
        try:
            with Outgoing("auth service", "gRPC", f"//{self._address}"):
                async with asyncio.timeout(ANSWER_WITHIN_SECONDS), self._slots:
                    told = await ask(
                        auth_pb2.ValidateInternalAccessRequest(api_key=key),
                        metadata=(("x-api-key", self._own_key), *_traces()),
                        timeout=ANSWER_WITHIN_SECONDS,
                    )
        except (grpc.aio.AioRpcError, TimeoutError, UnicodeEncodeError) as error:
            if isinstance(error, grpc.aio.AioRpcError) and error.code().name in REFUSALS:
                return None
            raise Unavailable("auth service is away", code="auth_service_away") from error
        name = told.service_name
        if not (0 < len(name) <= MOST_NAME and name.isprintable()):
            return None
        return InternalCaller(name, frozenset(told.allowed_access))

    async def close(self) -> None:
        """Close the connection."""
        if self._channel is not None:
            await self._channel.close()


def _traces() -> tuple[tuple[str, str], ...]:
    """Return the trace that the auth service, which is one of the operator's own, may go on with."""
    traceparent = tracing.current()
    return () if traceparent is None else (("traceparent", traceparent),)
