"""The sockets that several processes serve one port with.

Every process has a listening socket of its own (SO_REUSEPORT), over which the kernel spreads new connections far more
evenly than processes do that accept from one. The sockets belong to the supervisor and the processes inherit them: a
connection that waits in the queue of a process that ends is served by its successor, where a socket of the process's
own would reset it.
"""

from __future__ import annotations

import socket
import sys
from typing import TYPE_CHECKING

from ops.process import StartError, is_free, release_port, take_api_port, take_next_port, take_port

if TYPE_CHECKING:
    from collections.abc import Callable

    from core.settings import Settings

# Connections that may wait while a process starts; the kernel caps it at net.core.somaxconn (4096 by default).
BACKLOG = 1024
# Elsewhere the option lets sockets share a port too, but the kernel spreads nothing over them.
SPREADS = sys.platform == "linux"


class Listeners:
    """The listening sockets of one address, one a process; where the kernel cannot spread, all share the first.

    `setting` is the attribute of the settings that asks for the port.
    """

    def __init__(self, host: str, port: int, setting: str = "app_port") -> None:
        """Port 0 takes any free port. Raises StartError if the port is busy."""
        self.host = host
        self.setting = setting
        # SO_REUSEPORT would let two services of one user share the port, and each get half of the other's requests.
        if port and not take_port(host, port):
            raise _busy(host, port, setting)
        self._sockets: dict[int, socket.socket] = {}
        self.port = port
        self.port = self.open(0).getsockname()[1]

    def open(self, number: int) -> socket.socket:
        """Return the socket of that number, which listens from then on."""
        number = number if SPREADS else 0
        if number not in self._sockets:
            self._sockets[number] = self._bind()
        return self._sockets[number]

    def close(self, number: int) -> None:
        """Refuse the connections of one number, so that the kernel gives them to the others."""
        if SPREADS and number in self._sockets:
            self._sockets.pop(number).close()

    def close_all(self) -> None:
        """Refuse all further connections, as soon as the processes have closed their copies too."""
        for listener in self._sockets.values():
            listener.close()
        self._sockets.clear()
        release_port(self.host, self.port)

    def _bind(self) -> socket.socket:
        try:
            listener = _bound(self.host, self.port)
            try:
                listener.listen(BACKLOG)
                listener.setblocking(False)
            except OSError:
                listener.close()
                raise
        except OSError as error:
            raise StartError(f"Cannot listen on {self.host}:{self.port}: {error.strerror}.") from None
        return listener


class Reserved:
    """A port that is kept for processes which bind it themselves, as a gRPC server does: it takes no socket of others.

    A socket that is bound and does not listen gets no connections. The kernel lets sockets of the same user share the
    port with it (SO_REUSEPORT), and refuses it to all others.
    """

    def __init__(self, host: str, port: int) -> None:
        """Port 0 takes any free port. Raises StartError if the port is busy."""
        if port and not take_port(host, port):
            raise _busy(host, port, "grpc_port")
        self.host = host
        try:
            self._socket = _bound(host, port)
        except OSError as error:
            raise StartError(f"Cannot take the port {port} of {host} for gRPC: {error.strerror}.") from None
        self.port = int(self._socket.getsockname()[1])

    def close(self) -> None:
        """Let the port go."""
        self._socket.close()
        release_port(self.host, self.port)


def reserve_grpc(settings: Settings, host: str, say: Callable[[str], object]) -> Reserved | None:
    """Keep GRPC_PORT for the processes, None for 0. Raises StartError.

    Outside prod the default port moves on to the next free one, and `say` is told.
    """
    wanted = port = settings.grpc_port
    if not wanted:
        return None
    taken = {settings.app_port, *contract_ports(settings).values()}
    if "grpc_port" not in settings.model_fields_set and settings.env != "prod":
        port = take_next_port(host, wanted, taken)
        if port != wanted:
            say(f"Port {wanted} is busy; gRPC uses {port}.")
    elif wanted in taken:
        raise StartError(f"GRPC_PORT is {wanted}, as another port is. Each needs a port of its own.")
    return Reserved(host, port)


def contract_ports(settings: Settings) -> dict[str, int]:
    """Return the ports of the contracts that have one, by the setting that asks for it."""
    # A process that inherits its sockets reads no settings, whose import takes a third of its start.
    from core.settings.service import Ports

    ports = {setting: int(getattr(settings, setting)) for setting in Ports.model_fields}
    return {setting: port for setting, port in ports.items() if port}


def check_contract_ports(settings: Settings, host: str) -> None:
    """Raise StartError if a contract's port is busy; asked before servers start, which take longer than the answer."""
    for setting, port in contract_ports(settings).items():
        if not is_free(host, port):
            raise _busy(host, port, setting)


def _bound(host: str, port: int) -> socket.socket:
    """Return a socket that is bound to the address, and that others of ours may share. Raises OSError."""
    family, kind, _, _, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    found = socket.socket(family, kind)
    try:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if SPREADS:
            found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        found.bind(address)
    except OSError:
        found.close()
        raise
    return found


def _busy(host: str, port: int, setting: str) -> StartError:
    return StartError(
        f"Port {port} on {host} is busy. Stop its server, or set {setting.upper()} to another one."
    )


def listen_where_free(
    settings: Settings, host: str, say: Callable[[str], object], *, moves: bool
) -> list[Listeners]:
    """Listen as `listen` does. The default port may move on to a free one, and `say` is told.

    A port that somebody has set does not move, and neither do the ports of contracts: their clients know no others.
    """
    wanted = port = settings.app_port
    taken = contract_ports(settings).values()
    # A default that is the port of a contract is an error, which `listen` tells.
    if moves and "app_port" not in settings.model_fields_set and wanted not in taken:
        port = take_api_port(host, wanted, taken)
        if port != wanted:
            say(f"Port {wanted} is busy; the API uses {port}.")
    return listen(settings, host, port)


def listen(settings: Settings, host: str, port: int) -> list[Listeners]:
    """Listen on the common port, and on those of the contracts. Raises StartError if one is busy, or two are equal."""
    settings_of: dict[int, str] = {}
    for setting, wanted in {"app_port": port, **contract_ports(settings)}.items():
        if (twin := settings_of.setdefault(wanted, setting)) != setting:
            raise StartError(
                f"{twin.upper()} and {setting.upper()} are both {wanted}. Each needs a port of its own."
            )
    found: list[Listeners] = []
    try:
        for wanted, setting in settings_of.items():
            found.append(Listeners(host, wanted, setting))
    except StartError:
        for listeners in found:
            listeners.close_all()
        raise
    return found
