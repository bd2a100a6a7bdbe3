"""A merchant's server, a program of its own: checks every delivery, writes it down, and misbehaves by its seed.

`python -m loadtests.chaos.receiver --port N --log FILE --seed N < secrets.json`, where the secrets are those of the
paths /hooks/0, /hooks/1 and so on. It writes one line of JSON a delivery, before the answer.
"""

import argparse
import asyncio
import hashlib
import os
import random
import signal
import sys
from pathlib import Path

import msgspec
import uvloop
from aiohttp import web

from ops.receiving import problem_of

#: Longer than a delivery may take.
HANG_SECONDS = 12.0
#: How often it behaves how; else it answers 204.
MOODS = {"unwell": 0.05, "hang": 0.003, "hang up": 0.01, "die": 0.001, "slow": 0.02}
SLOW_SECONDS = 0.5


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """One delivery as it came. `answer` is its status, 0 where there was to be none."""

    id: str
    intent: str
    digest: str
    answer: int
    problem: str = ""


class Receiver:
    """The receiver's state, which all requests share."""

    def __init__(self, secrets: list[str], log: Path, seed: int) -> None:
        self._secrets = secrets
        self._log = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        # The length of the log changes the seed, so that the moods differ after each start.
        self._random = random.Random(f"{seed} {log.stat().st_size}")

    async def receive(self, request: web.Request) -> web.Response:
        """Check, write down, answer."""
        body = await request.read()
        secret = self._secrets[int(request.match_info["shop"])]
        problem = problem_of(secret, request.headers, body)
        mood = "" if problem else self._mood()
        status = 400 if problem else {"": 204, "slow": 204, "unwell": 503}.get(mood, 0)
        self._write_down(request.headers.get("webhook-id", ""), body, status, problem)
        if mood == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        if mood == "hang up" and request.transport is not None:
            request.transport.abort()
        if mood in {"hang", "slow"}:
            await asyncio.sleep(HANG_SECONDS if mood == "hang" else SLOW_SECONDS)
        return web.Response(status=status or 204)

    def _mood(self) -> str:
        drawn = self._random.random()
        for mood, share in MOODS.items():
            drawn -= share
            if drawn < 0:
                return mood
        return ""

    def _write_down(self, identity: str, body: bytes, status: int, problem: str) -> None:
        line = Line(
            id=identity,
            intent="" if problem else str(msgspec.json.decode(body)["data"].get("id", "")),
            digest=hashlib.sha256(body).hexdigest(),
            answer=status,
            problem=problem,
        )
        # One write a line, so that a kill leaves it whole or not there.
        os.write(self._log, msgspec.json.encode(line) + b"\n")


def read_lines(text: bytes) -> list[Line]:
    """Return the lines that a receiver wrote down."""
    return [msgspec.json.decode(line, type=Line) for line in text.splitlines()]


async def serve(receiver: Receiver, port: int) -> None:
    """Serve on loopback until SIGTERM."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    app = web.Application()
    app.router.add_post("/hooks/{shop}", receiver.receive)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", port, reuse_address=True).start()
        await stop.wait()
    finally:
        await runner.cleanup()


def main() -> None:
    """Read the command line and the secrets, and serve."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--log", type=Path, required=True)
    parser.add_argument("--seed", type=int, required=True)
    options = parser.parse_args()
    secrets = msgspec.json.decode(sys.stdin.buffer.read(), type=list[str])
    options.log.touch(mode=0o600)
    uvloop.run(serve(Receiver(secrets, options.log, options.seed), options.port))


if __name__ == "__main__":
    main()
