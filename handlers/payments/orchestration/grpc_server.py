"""The gRPC server of one process: our service, the standard ones of health and reflection, TLS, bounds and its end.

Health and reflection want neither request id nor key: probes have none, and the `.proto` is public.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from core import tasks
from core.payments.orchestration.asking import MOST_LISTED
from core.settings.files import MAX_CERTIFICATES_BYTES, bytes_in
from handlers.payments.orchestration.grpc_service import NAME, Service

if TYPE_CHECKING:
    from core.settings import Settings
    from handlers.http.parts import Parts

# More calls at once are refused: each may hold a connection of the pool.
MOST_CALLS: Final = 1_000
MOST_METADATA_BYTES: Final = 16 * 1024
# A page of the longest payments: of each, metadata may be as long as a request.
MOST_ANSWER_BYTES: Final = 64 * 1024 * MOST_LISTED
HEALTH_SECONDS: Final = 0.5


class GrpcServer:
    """The server, from `start` to `stop`. Several processes share a port, as they do for HTTP."""

    def __init__(self, parts: Parts, host: str, port: int) -> None:
        self._parts = parts
        self._host, self._port = host, port
        self._service = Service(parts)
        self._health = health.aio.HealthServicer()
        self._server: grpc.aio.Server | None = None
        self._beat: asyncio.Task[None] | None = None

    async def start(self) -> int:
        """Serve, and return the port. Raises RuntimeError for a port that is busy, and OSError for a file of TLS."""
        server = self._server = grpc.aio.server(
            options=(
                ("grpc.so_reuseport", 1),
                ("grpc.max_receive_message_length", self._parts.settings.max_request_size),
                ("grpc.max_send_message_length", MOST_ANSWER_BYTES),
                ("grpc.max_metadata_size", MOST_METADATA_BYTES),
            ),
            maximum_concurrent_rpcs=MOST_CALLS,
        )
        server.add_generic_rpc_handlers((self._service.handler(),))
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        names = (NAME, health.SERVICE_NAME, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(names, server)
        address = f"[{self._host}]:{self._port}" if ":" in self._host else f"{self._host}:{self._port}"
        credentials = tls_of(self._parts.settings)
        if credentials is None:
            port = server.add_insecure_port(address)
        else:
            port = server.add_secure_port(address, credentials)
        await server.start()
        self._beat = asyncio.create_task(self._tell_health())
        return port

    async def stop(self, within_seconds: float) -> None:
        """Take no more calls, let those under way end within the bound, and return."""
        if self._beat is not None:
            await tasks.end(self._beat)
        await self._health.enter_graceful_shutdown()
        # A call whose caller has gone is none of the server's any more.
        stopping = [] if self._server is None else [self._server.stop(within_seconds)]
        await asyncio.gather(*stopping, self._service.finish(within_seconds))

    async def _tell_health(self) -> None:
        while True:
            serving = self._parts.missing is None and not self._parts.stopping
            status = health_pb2.HealthCheckResponse.ServingStatus
            for name in ("", NAME):
                await self._health.set(name, status.SERVING if serving else status.NOT_SERVING)
            await asyncio.sleep(HEALTH_SECONDS)


def tls_of(settings: Settings) -> grpc.ServerCredentials | None:
    """Return the credentials of the files that are set, None for a server without TLS. Raises OSError."""
    if not settings.grpc_tls_cert_file:
        return None
    key = bytes_in(settings.grpc_tls_key_file)
    chain = bytes_in(settings.grpc_tls_cert_file, MAX_CERTIFICATES_BYTES)
    authorities = settings.grpc_tls_client_ca_file
    return grpc.ssl_server_credentials(
        [(key, chain)],
        root_certificates=bytes_in(authorities, MAX_CERTIFICATES_BYTES) if authorities else None,
        require_client_auth=bool(authorities),
    )
