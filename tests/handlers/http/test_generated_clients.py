"""Clients that two generators make of the document: they compile, no model is lost, and they pay.

The generator from PyPI is always there. The one from npm needs Node.js, and packages that are fetched once.
"""

import asyncio
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from handlers.app import SURFACES
from handlers.http import openapi

pytestmark = pytest.mark.drill

CLIENTS = Path(__file__).with_name("clients")
FILES = ("package.json", "package-lock.json", "tsconfig.json", "call.ts")
INSTALL_SECONDS = 120

# A program as a user of the generated package writes it.
PROGRAM = """
import importlib, json, pkgutil, sys
import generated
from generated import AuthenticatedClient
from generated.api.accounts import get_account, open_account
from generated.api.transfers import create_transfer, list_transfers
from generated.models import AccountBody, LimitsBody, TransferBody

for module in pkgutil.walk_packages(generated.__path__, "generated."):
    importlib.import_module(module.name)

client = AuthenticatedClient(base_url=sys.argv[1], token=sys.argv[2])
limits = LimitsBody(floor=None)
open_account.sync(client=client, body=AccountBody(code="py:from", currency="USD", limits=limits))
open_account.sync(client=client, body=AccountBody(code="py:to", currency="USD"))
body = TransferBody(from_="py:from", to="py:to", amount=3_000_000_000)
made = create_transfer.sync_detailed(client=client, body=body, idempotency_key="py-1")
page = list_transfers.sync(client=client, account="py:to")
missing = get_account.sync(client=client, account="nobody")
print(json.dumps({
    "amount": page.data[0].entries[1].amount, "next": page.next_, "code": missing.error.code,
    "status": int(made.status_code),
}))
"""
SAID = {"amount": 3_000_000_000, "next": None, "code": "account_not_found", "status": 201}


@pytest.fixture
def document() -> dict[str, Any]:
    written: dict[str, Any] = json.loads(msgspec.json.encode(openapi.document(SURFACES)))
    return written


def trusting() -> dict[str, str]:
    """Return the environment of a program that wants the public authorities, whom the tests trust no other time."""
    return {name: value for name, value in os.environ.items() if name != "SSL_CERT_FILE"}


async def said_by(*command: str, cwd: Path) -> str:
    process = await asyncio.create_subprocess_exec(
        *command, cwd=cwd, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, env=trusting()
    )
    out, errors = await process.communicate()
    assert process.returncode == 0, f"{command[0]}: {out.decode()[-3_000:]} {errors.decode()[-3_000:]}"
    return out.decode() + errors.decode()


@pytest.mark.timeout(300)
async def test_python_client_has_every_model_and_pays(
    api: Any, api_key: Callable[..., Awaitable[str]], document: dict[str, Any], tmp_path: Path
) -> None:
    (tmp_path / "openapi.json").write_text(json.dumps(document))
    (tmp_path / "config.yml").write_text("post_hooks: []\n")
    told = await said_by(
        sys.executable, "-m", "openapi_python_client", "generate", "--path", "openapi.json",
        "--output-path", "generated", "--meta", "none", "--config", "config.yml",
        cwd=tmp_path,
    )  # fmt: skip
    assert "Unable to process" not in told
    assert "removal" not in told
    made = (tmp_path / "generated" / "models" / "__init__.py").read_text()
    lost = [name for name in document["components"]["schemas"] if f'"{name}"' not in made]
    assert not lost
    (tmp_path / "pay.py").write_text(PROGRAM)
    said = await said_by(sys.executable, "pay.py", str(api.make_url("/")), await api_key(), cwd=tmp_path)
    assert json.loads(said.splitlines()[-1]) == SAID


@pytest.mark.timeout(300)
async def test_typescript_client_compiles_and_pays(
    api: Any,
    api_key: Callable[..., Awaitable[str]],
    document: dict[str, Any],
    tmp_path: Path,
    record_property: Callable[[str, object], None],
) -> None:
    packages = await asyncio.to_thread(node_packages)
    if packages is None:
        record_property("left_out", "the TypeScript client: Node.js or its packages are not on this machine")
        return
    for file in FILES:
        shutil.copy(CLIENTS / file, tmp_path)
    (tmp_path / "node_modules").symlink_to(packages)
    (tmp_path / "openapi.json").write_text(json.dumps(document))
    tools = packages / ".bin"
    await said_by(str(tools / "openapi-typescript"), "openapi.json", "-o", "schema.d.ts", cwd=tmp_path)
    await said_by(str(tools / "tsc"), "-p", ".", cwd=tmp_path)
    said = await said_by(
        "env", f"TALLYSTICK_URL={api.make_url('/')}", f"TALLYSTICK_KEY={await api_key()}", "node", "call.js",
        cwd=tmp_path,
    )  # fmt: skip
    assert json.loads(said.splitlines()[-1]) == SAID


def node_packages() -> Path | None:
    """Return the folder of the packages, fetched once for each lock; None without Node.js or a network."""
    npm = shutil.which("npm")
    if npm is None or shutil.which("node") is None:
        return None
    lock = hashlib.sha256((CLIENTS / "package-lock.json").read_bytes()).hexdigest()[:16]
    home = Path.home() / ".cache" / "tallystick" / f"clients-{lock}"
    if not home.exists():
        fresh = home.with_name(f"{home.name}.new")
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(parents=True)
        for file in FILES[:2]:
            shutil.copy(CLIENTS / file, fresh)
        command = [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--prefer-offline"]
        try:
            subprocess.run(
                command, cwd=fresh, check=True, capture_output=True, timeout=INSTALL_SECONDS, env=trusting()
            )
        except (OSError, subprocess.SubprocessError):
            return None
        fresh.rename(home)
    return home / "node_modules"
