"""The wallet's examples, run as they stand against a service in development."""

import asyncio
from pathlib import Path

import pytest

from core.settings import Settings
from ops.process import python_environment
from tests.handlers.wallets.conftest import ApiClient

EXAMPLES = Path(__file__).parents[3] / "examples"


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return Settings.model_validate(settings.model_dump() | {"env": "dev"})


async def run(name: str, wallets: ApiClient) -> tuple[int, list[str], str]:
    process = await asyncio.create_subprocess_exec(
        EXAMPLES / name,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=python_environment(BASE_URL=str(wallets.make_url("")).rstrip("/")),
    )
    out, err = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode().splitlines(), err.decode()


async def test_wallet(wallets: ApiClient) -> None:
    code, out, err = await run("wallet-e2e", wallets)
    assert code == 0, (out, err)
    assert '  "detail":"accepted"' in out
    assert out[-2:] == ["balance: 45300", "balance: 4700"]


async def test_cash(wallets: ApiClient) -> None:
    code, out, err = await run("cash-demo", wallets)
    assert code == 0, (out, err)
    assert [line for line in out if "customer" in line] == ["  customer: 20000", "  customer: 5000"]
    assert [line for line in out if "agent:" in line] == ["  agent: 80000", "  agent: 95000"]
