"""Runs a load client in its own process: wrk where it is on PATH, else `loadtests.bench.clients.raw`.

Both keep `connections` open, send the next request on each as soon as the last one is answered, never pipeline, and
count whatever was not a success. Their rates mean the same. Their latencies do not: wrk (measured with 4.1) adds the
requests that a stall kept from being sent, as if they were due at the average pace, which a pause of 100 ms turns into
many slow requests; ours tells those that were sent. Latencies that have a target are therefore taken with ours.
"""

import asyncio
import contextlib
import math
import resource
import shutil
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import msgspec

from loadtests.bench.clients.workload import WRK_SCRIPT, Caller, Workload

ClientName = Literal["wrk", "raw"]
#: How long a single answer may take before it counts as an error, in seconds.
ANSWER_TIMEOUT_SECONDS = 10
#: How long a client may take beyond the measured time to start, to drain and to report, in seconds.
CLIENT_GRACE_SECONDS = 30
#: Both clients print their result on a line of its own after this word.
RESULT_MARK = "RESULT "


class ClientError(Exception):
    """The client itself failed, so that there is nothing to report; the text holds the end of its output."""


class ClientResult(msgspec.Struct, frozen=True, kw_only=True):
    """A client's counts. `requests` were answered with any status; `errors` has only kinds that occurred."""

    requests: int
    seconds: float
    latency_ms: dict[str, float]
    errors: dict[str, int]
    client: str = ""
    cpu_seconds: float = 0.0
    #: The moments, of `time.perf_counter`, at which requests were sent, by the name that the workload gives each.
    sent: dict[str, float] = {}


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """The job that a client of ours reads from standard input."""

    host: str
    port: int
    connections: int
    seconds: float
    seed: int
    timeout_seconds: float
    workload: Workload
    #: Requests a second, sent when they are due whatever becomes of those before; 0: as fast as they are answered.
    rate: float = 0.0


def choose_client() -> ClientName:
    """Returns the faster client that can be found: wrk, else our own."""
    return "wrk" if shutil.which("wrk") else "raw"


async def run_client(
    workload: Workload,
    caller: Caller,
    *,
    connections: int,
    seconds: float,
    seed: int,
    client: ClientName,
    rate: float = 0.0,
) -> ClientResult:
    """Loads `caller`'s host and port for `seconds` and reports; raises ClientError when the client cannot run.

    At a `rate`, and for what has to be signed, the client is always our own.
    """
    if rate or workload.signing_secret:
        client = "raw"
    if client == "wrk":
        return await _run_wrk(workload, caller, connections, seconds, seed)
    job = Job(
        host=caller.host,
        port=caller.port,
        connections=connections,
        seconds=seconds,
        seed=seed,
        timeout_seconds=ANSWER_TIMEOUT_SECONDS,
        workload=workload,
        rate=rate,
    )
    command = [sys.executable, "-m", f"loadtests.bench.clients.{'open_rate' if rate else 'raw'}"]
    return await _run(command, seconds, client, standard_input=msgspec.json.encode(job))


async def _run_wrk(
    workload: Workload, caller: Caller, connections: int, seconds: float, seed: int
) -> ClientResult:
    with tempfile.TemporaryDirectory(prefix="tallystick-wrk-") as folder:
        lua = write_lua(workload, Path(folder))
        # One thread: the counter behind the keys is its own, and one thread of wrk outruns any number of cores here.
        command = [
            "wrk",
            "-t1",
            f"-c{connections}",
            f"-d{math.ceil(seconds)}s",
            f"--timeout={ANSWER_TIMEOUT_SECONDS}s",
        ]
        command += ["-s", str(WRK_SCRIPT), f"http://{caller.host}:{caller.port}", "--", str(lua), str(seed)]
        return await _run(command, seconds, "wrk")


def write_lua(workload: Workload, folder: Path) -> Path:
    """Writes the workload where wrk's script reads it."""
    path = folder / "workload.lua"
    path.write_text(workload.as_lua())
    return path


async def _run(
    command: Sequence[str], seconds: float, client: ClientName, *, standard_input: bytes | None = None
) -> ClientResult:
    cpu_before = children_cpu_seconds()
    code, output = await run_process(command, seconds + CLIENT_GRACE_SECONDS, standard_input=standard_input)
    lines = [line for line in output.splitlines() if line.startswith(RESULT_MARK)]
    if code != 0 or not lines:
        raise ClientError(f"{client} ended with exit code {code}: {output[-2000:]}")
    result = msgspec.json.decode(lines[-1].removeprefix(RESULT_MARK), type=ClientResult)
    return msgspec.structs.replace(
        result,
        client=client,
        # The raw client reports its own, which leaves out the start of its interpreter.
        cpu_seconds=result.cpu_seconds or children_cpu_seconds() - cpu_before,
        errors={kind: count for kind, count in result.errors.items() if count},
    )


async def run_process(
    command: Sequence[str], timeout_seconds: float, *, standard_input: bytes | None = None
) -> tuple[int, str]:
    """Runs a command to its end and returns its exit code and everything it printed.

    A cancelled or timed out call leaves no process behind. Raises TimeoutError, and ClientError when it cannot start.
    """
    try:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.PIPE if standard_input is not None else asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            # Ctrl-C goes to our whole process group: only we shall hear it and end the client in order.
            start_new_session=True,
        )
    except OSError as error:
        raise ClientError(f"cannot run {command[0]}: {error}") from error
    try:
        output, _ = await asyncio.wait_for(process.communicate(standard_input), timeout_seconds)
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGKILL)
            await process.wait()
    return process.returncode or 0, output.decode(errors="replace")


def children_cpu_seconds() -> float:
    """CPU seconds of all children that have ended: the kernel adds each one's when it is waited for."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
