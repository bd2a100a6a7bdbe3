"""A receiver of webhooks in Python, with its standard library alone: it checks each signature and prints the event.

python3 receiver.py PORT whsec_... [COUNT]     ends after COUNT events
"""

import base64
import hmac
import sys
import time
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, HTTPServer


def genuine(secret: str, headers: Mapping[str, str], body: bytes) -> bool:
    """Whether one of the signatures is right and the time is of now (https://www.standardwebhooks.com)."""
    name, moment = headers["webhook-id"], headers["webhook-timestamp"]
    key, signed = base64.b64decode(secret.removeprefix("whsec_")), f"{name}.{moment}.".encode() + body
    wanted = "v1," + base64.b64encode(hmac.digest(key, signed, "sha256")).decode()
    right = any(hmac.compare_digest(wanted, found) for found in headers["webhook-signature"].split())
    return right and abs(time.time() - int(moment)) < 300


class Receiver(BaseHTTPRequestHandler):
    """Answer 204 to what is genuine. Work comes after the answer, once for each webhook-id."""

    def do_POST(self) -> None:
        """Answer a delivery."""
        body = self.rfile.read(int(self.headers["content-length"]))
        good = genuine(sys.argv[2], self.headers, body)
        self.send_response(204 if good else 400)
        self.end_headers()
        print("verified" if good else "refused", body.decode(), flush=True)
        self.server.answered += 1


if __name__ == "__main__":
    server = HTTPServer(("127.0.0.1", int(sys.argv[1])), Receiver)
    server.answered = 0
    while server.answered < int([*sys.argv, sys.maxsize][3]):
        server.handle_request()
