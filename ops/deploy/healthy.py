"""Whether a server on this machine answers 200: `python -IS healthy.py PORT PATH`, the health check of the image.

It runs every few seconds in each container, so it imports next to nothing: that of urllib takes five times as long.
"""

import socket
import sys

TIMEOUT_SECONDS = 4


def main(port: str, path: str) -> int:
    """Return 0 for an answer with the status 200."""
    with socket.create_connection(("127.0.0.1", int(port)), TIMEOUT_SECONDS) as connection:
        connection.sendall(f"GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n".encode())
        status = connection.makefile("rb").readline(64)
    return 0 if status.split(b" ")[1:2] == [b"200"] else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
