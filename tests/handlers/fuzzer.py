"""Schemathesis, which makes requests from the document of the service and holds the answers against it."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path

# Each request asks for proxies and looks at every variable for that: with a hundred of them, a tenth of all its time.
KEPT = ("HOME", "LANG", "PATH", "TMPDIR")


async def fuzz(base: str, config: Path, *options: str) -> "subprocess.CompletedProcess[str]":
    """Try the service at this URL with these options: the same input each time, good and bad."""
    command = [
        sys.executable, "-m", "schemathesis.cli", "--config-file", str(config),
        "run", f"{base}openapi.json", "--url", base,
        *options,
        "--mode", "all", "--generation-deterministic", "--workers", "1", "--no-color",
    ]  # fmt: skip
    environment = {name: os.environ[name] for name in KEPT if name in os.environ}
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT, env=environment
    )
    said, _ = await process.communicate()
    assert process.returncode is not None
    return subprocess.CompletedProcess(command, process.returncode, said.decode())
