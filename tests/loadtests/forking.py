"""Forks processes of the service for forked.py: `forking.py SOCKET` imports everything once, for all of them."""

import json
import os
import signal
import socket
import sys
from typing import NoReturn

import uvloop

from core.log import configure_logging
from core.settings import load_settings
from handlers.app import create_app
from jobs import worker
from ops import api_process

ENOUGH_BYTES = 65536


def serve(path: str) -> None:
    """Fork a process for each that asks, for ever."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for them
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        while True:
            asking, _ = listener.accept()
            if os.fork() == 0:
                listener.close()
                become(asking)
            asking.close()


def become(asking: socket.socket) -> NoReturn:
    """Be the process that is asked for, in a child of the server."""
    code = 1
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        data, outputs, _, _ = socket.recv_fds(asking, ENOUGH_BYTES, 2)
        while not data.endswith(b"\n"):
            data += asking.recv(ENOUGH_BYTES)
        wanted = json.loads(data)
        for place, output in enumerate(outputs, start=1):
            os.dup2(output, place)
            os.close(output)
        os.environ.clear()
        os.environ.update(wanted["environment"])
        os.chdir(wanted["folder"])
        asking.sendall(str(os.getpid()).encode())
        run(wanted["role"])
        code = 0
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def run(role: str) -> None:
    """Serve the API or work, until SIGTERM."""
    settings = load_settings()
    configure_logging(settings)
    if role == "worker":
        worker.run(settings)
        return
    _beats, ready = os.pipe()
    bound = settings.shutdown_timeout_secs
    with socket.create_server((settings.app_host, settings.app_port)) as listener:
        sites = [(create_app(settings), listener)]
        uvloop.run(api_process.serve(sites, shutdown_timeout_secs=bound, ready_fd=ready))


if __name__ == "__main__":
    serve(sys.argv[1])
