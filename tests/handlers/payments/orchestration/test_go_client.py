"""The example in Go: generated from the published .proto, built, and run against the service."""

import asyncio
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.handlers.payments.orchestration.conftest import Contract
from tests.handlers.payments.orchestration.test_grpc import served

pytestmark = [pytest.mark.shared, pytest.mark.drill]

ROOT = Path(__file__).parents[4]
NO_GO = "the gRPC client in Go: go is not on the PATH"
# The packages of gRPC are compiled at the first run on a machine.
BUILD_SECONDS = 280
EXPECTED = """\
health: ok
created: PAYMENT_STATUS_PENDING 1250 USD
the same: true
another: AlreadyExists true
shown: 7 true
listed: 1
unsigned event: InvalidArgument callback rejected
canceled: PAYMENT_STATUS_CANCELED
"""


async def ran(folder: Path, *command: str, **environment: str) -> str:
    """Return the output of a program that succeeds."""
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=folder,
        env={**os.environ, **environment},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await asyncio.wait_for(process.communicate(), BUILD_SECONDS)
    assert process.returncode == 0, err.decode()
    return out.decode()


async def test_a_client_in_go_does_everything(
    contract: Contract, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    if shutil.which("go") is None:
        record_property("left_out", NO_GO)
        return
    shutil.copytree(ROOT / "docs" / "proto", tmp_path / "docs" / "proto")
    folder = tmp_path / "examples" / "grpc_go"
    shutil.copytree(ROOT / "examples" / "grpc_go", folder)
    await ran(folder, "./generate.sh", PROTOC=f"{sys.executable} -m grpc_tools.protoc")
    await ran(folder, "go", "build", "-o", "client", ".")
    async with served(contract) as (_, port):
        key = await contract.key("gateway")
        assert await ran(folder, "./client", f"127.0.0.1:{port}", KEY=key) == EXPECTED
