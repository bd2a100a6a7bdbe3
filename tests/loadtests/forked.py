"""Stands for a process of the service that tests/loadtests/forking.py has forked: `forked.py SOCKET api|worker`.

The process has our environment, folder and output, hears our signals, and ends before us. Few modules are imported
here, because a start in no time is what this is for.
"""

import json
import os
import signal
import socket
import sys
import time

ENOUGH_BYTES = 65536
#: The server takes some seconds to begin.
TRIES = 600
PAUSE_SECONDS = 0.1


def ask(server: socket.socket, role: str) -> None:
    """Ask for the process, and wait for its end."""
    wanted = {"role": role, "environment": dict(os.environ), "folder": os.getcwd()}  # noqa: PTH109 - see above
    socket.send_fds(server, [json.dumps(wanted).encode() + b"\n"], [1, 2])
    pid = int(server.recv(ENOUGH_BYTES))
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda received, _: os.kill(pid, received))
    server.recv(1)  # nothing comes but the end


def connect(server: socket.socket, path: str) -> None:
    """Connect, once the server is there."""
    for _ in range(TRIES):
        try:
            server.connect(path)
        except OSError:
            time.sleep(PAUSE_SECONDS)
        else:
            return
    sys.exit("nobody forks processes here")


if __name__ == "__main__":
    with socket.socket(socket.AF_UNIX) as asking:
        connect(asking, sys.argv[1])
        ask(asking, sys.argv[2])
