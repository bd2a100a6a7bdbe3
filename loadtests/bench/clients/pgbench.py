"""Floors 2 and 3: pgbench on the same cluster, with its own TPC-B or with a script of ours."""

import math
import re
import tempfile
from pathlib import Path

from loadtests.bench.clients.client import (
    CLIENT_GRACE_SECONDS,
    ClientError,
    ClientResult,
    children_cpu_seconds,
    run_process,
)

CLIENTS = 8
#: Threads of pgbench itself: one keeps up with eight clients, two take turns with the server on a small machine.
THREADS = 2
#: Ten branches for eight clients: TPC-B at its usual contention, 150 MB of data.
TPCB_SCALE = 10
INITIALISE_TIMEOUT_SECONDS = 300


async def initialise(pgbench: Path, database_url: str, scale: int = TPCB_SCALE) -> None:
    """Creates pgbench's own four tables in the database; raises ClientError when that fails."""
    command = [str(pgbench), "--initialize", "--quiet", f"--scale={scale}", database_url]
    code, output = await run_process(command, INITIALISE_TIMEOUT_SECONDS)
    if code != 0:
        raise ClientError(f"pgbench --initialize ended with exit code {code}: {output[-2000:]}")


async def run_tpcb(pgbench: Path, database_url: str, seconds: float, seed: int) -> ClientResult:
    """TPC-B as pgbench ships it: five statements and a commit, which move an amount between three balances."""
    return await _run(pgbench, database_url, seconds, seed, [])


async def run_script(
    pgbench: Path, database_url: str, script: str, seconds: float, seed: int
) -> ClientResult:
    """A script of ours. A statement that fails ends its client, which counts as an error."""
    with tempfile.NamedTemporaryFile("w", suffix=".sql", prefix="tallystick-pgbench-") as file:
        file.write(script)
        file.flush()
        # No tables of pgbench's own: nothing to vacuum.
        return await _run(pgbench, database_url, seconds, seed, ["--no-vacuum", f"--file={file.name}"])


async def _run(
    pgbench: Path, database_url: str, seconds: float, seed: int, options: list[str]
) -> ClientResult:
    command = [
        str(pgbench),
        f"--client={CLIENTS}",
        f"--jobs={THREADS}",
        f"--time={math.ceil(seconds)}",
        f"--random-seed={seed}",
        # The protocol is prepared, as our own calls are; a floor that parsed each statement anew would flatter us.
        "--protocol=prepared",
        *options,
        database_url,
    ]
    cpu_before = children_cpu_seconds()
    code, output = await run_process(command, seconds + CLIENT_GRACE_SECONDS)
    result = parse(output, seconds, children_cpu_seconds() - cpu_before)
    if result is None:
        raise ClientError(f"pgbench ended with exit code {code}: {output[-2000:]}")
    return result


def parse(output: str, seconds: float, cpu_seconds: float) -> ClientResult | None:
    """Reads pgbench's report; None when there is none in the output. Clients that aborted count as errors."""
    rate = re.search(r"^tps = ([\d.]+) ", output, re.MULTILINE)
    processed = re.search(r"^number of transactions actually processed: (\d+)", output, re.MULTILINE)
    average = re.search(r"^latency average = ([\d.]+) ms", output, re.MULTILINE)
    if rate is None or processed is None:
        return None
    failed = re.search(r"^number of failed transactions: (\d+)", output, re.MULTILINE)
    kinds = {
        "failed": int(failed.group(1)) if failed else 0,
        "aborted_clients": len(re.findall(r"^pgbench: error: client \d+ .*abort", output, re.MULTILINE)),
    }
    return ClientResult(
        requests=int(processed.group(1)),
        # pgbench divides by its time without that of connecting.
        seconds=int(processed.group(1)) / float(rate.group(1)) if float(rate.group(1)) else seconds,
        latency_ms={"mean": float(average.group(1))} if average else {},
        errors={kind: count for kind, count in kinds.items() if count},
        client="pgbench",
        cpu_seconds=cpu_seconds,
    )
