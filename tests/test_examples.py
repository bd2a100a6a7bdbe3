"""The programs of examples/ do what they say: each is run as it stands, against a development service on a socket."""

import asyncio
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp.test_utils import TestServer

from core.settings import Settings, load_settings
from handlers.app import ROUTES, create_app

ROOT = Path(__file__).parent.parent
EXAMPLES = ROOT / "examples"
SCRIPTS = sorted(path.name for path in EXAMPLES.glob("*.sh") if path.name != "lib.sh")
NO_NODE = "the JavaScript examples: node is not on the PATH"
# The guide's vector, by which the author of a client checks it.
SECRET, SECONDS, PATH = "00112233445566778899aabbccddeeff", 1_700_000_000, "/merchant/api/transactions"

Run = Callable[..., Coroutine[Any, Any, str]]
LeftOut = Callable[[str, object], None]


@pytest.fixture
def settings(database_url: str, redis_url: str, tmp_path: Path) -> Settings:
    return load_settings(
        env_file=None,
        env="dev",
        database_url=database_url,
        redis_url=redis_url,
        state_dir=str(tmp_path),
        # The default of development is shorter than the tokens' standard likes, which a test takes for an error.
        jwt_secret="test-jwt-secret-of-32-characters",
        rate_limit_per_minute=1_000_000,
        merchant_fee_bps=150,
        stripe_signing_secrets=("whsec_examples",),
        paypal_mode="demo_hmac",
        demo_hmac_secret="demo-secret-of-the-examples",
    )


@pytest.fixture
async def base_url(settings: Settings) -> AsyncIterator[str]:
    async with TestServer(create_app(settings)) as server:
        yield str(server.make_url("")).rstrip("/")


@pytest.fixture
def run(base_url: str) -> Run:
    """Return a function that runs a program of examples/, which has to succeed, and returns its output."""

    async def run(*command: str, **environment: str) -> str:
        done = await asyncio.to_thread(
            subprocess.run,
            command,
            cwd=ROOT,
            env={"PATH": os.environ["PATH"], "TALLYSTICK_URL": base_url, **environment},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run


@pytest.fixture
async def merchant(base_url: str) -> AsyncIterator[Callable[..., Coroutine[Any, Any, Any]]]:
    """Return a function that calls as a merchant, and whose `token` tells the merchant's token."""
    async with aiohttp.ClientSession(base_url) as session:
        async with session.post(
            "/auth/verify_otp", json={"phone": "+963944000001", "otp": "123456"}
        ) as response:
            token = (await response.json())["access_token"]

        async def call(path: str, body: Any = None) -> Any:
            if path == "token":
                return token
            headers = {"Authorization": f"Bearer {token}"}
            async with session.post(path, json=body, headers=headers) as response:
                assert response.status == 200, await response.text()
                return await response.json()

        await call("/kyc/dev/approve")
        await call("/payments/dev/become_merchant")
        yield call


@pytest.mark.parametrize("script", SCRIPTS)
async def test_script(script: str, run: Run) -> None:
    said = await run(f"examples/{script}")
    assert said.strip(), "it says nothing of what it found"


async def test_a_script_that_meets_a_refusal_fails(base_url: str) -> None:
    command = '. examples/lib.sh; call POST /payments/merchant/qr nonsense "{}" | field code'
    done = await asyncio.to_thread(
        subprocess.run, ["sh", "-euc", command], cwd=ROOT, capture_output=True, text=True, check=False,
        env={"PATH": os.environ["PATH"], "TALLYSTICK_URL": base_url},
    )  # fmt: skip
    assert done.returncode != 0
    assert "Invalid token" in done.stderr


def test_every_flow_has_its_script() -> None:
    flows = "sign_in p2p merchant_qr link request invoice cash_demo voucher refund e2e"
    assert sorted(f"{flow}.sh" for flow in flows.split()) == SCRIPTS
    for name in SCRIPTS:
        assert os.access(EXAMPLES / name, os.X_OK), name


def test_clients_are_short() -> None:
    for path in (*EXAMPLES.glob("*.py"), *EXAMPLES.glob("*.mjs")):
        assert len(path.read_text().splitlines()) <= 40, path.name


@pytest.mark.parametrize("guide", ["merchant-guide.md", "payments-guide.md"])
def test_what_a_guide_names_is_there(guide: str) -> None:
    text = (ROOT / "docs" / guide).read_text()
    known = {(route.method, re.sub(r"{\w+}", "{}", route.path)) for route in ROUTES}
    named = re.findall(r"(GET|POST|DELETE) (/[\w/{}.-]+)", text)
    assert len(named) > 3
    assert [call for call in named if (call[0], re.sub(r"{\w+}", "{}", call[1])) not in known] == []
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        assert (ROOT / "docs" / target).exists(), target


async def test_a_merchants_signed_call(
    run: Run, merchant: Any, base_url: str, record_property: LeftOut
) -> None:
    key = await merchant("/merchant/api/keys")
    arguments = (base_url, key["key_id"], key["secret"])
    answers = [json.loads(await run(sys.executable, "examples/merchant_hmac.py", *arguments))]
    if shutil.which("node") is None:
        record_property("left_out", NO_NODE)
    else:
        # A signature counts once, and both would make the same one within a second.
        other = await merchant("/merchant/api/keys")
        answers.append(
            json.loads(
                await run("node", "examples/merchant_hmac.mjs", base_url, other["key_id"], other["secret"])
            )
        )
    assert all(answer == answers[0] for answer in answers)
    assert answers[0]["entries"][0]["amount_cents_signed"] == 10_000_000


async def test_the_guides_vector(run: Run, record_property: LeftOut) -> None:
    guide = (ROOT / "docs" / "merchant-guide.md").read_text()
    plain, with_body = re.findall(r"`([0-9a-f]{64})`", guide)
    python = (
        "import sys; sys.path.insert(0, 'examples'); from merchant_hmac import sign;"
        f" print(sign('{SECRET}', {SECONDS}, '{PATH}'), sign('{SECRET}', {SECONDS}, '{PATH}', b'{{\"page\":1}}'))"
    )
    assert (await run(sys.executable, "-B", "-c", python)).split() == [plain, with_body]
    if shutil.which("node") is None:
        record_property("left_out", NO_NODE)
        return
    script = (
        "import { sign } from './examples/merchant_hmac.mjs';"
        f" console.log(sign('{SECRET}', {SECONDS}, '{PATH}'), sign('{SECRET}', {SECONDS}, '{PATH}', '{{\"page\":1}}'))"
    )
    assert (await run("node", "--input-type=module", "-e", script)).split() == [plain, with_body]


async def test_links_lead_to_their_page(
    run: Run, merchant: Any, base_url: str, record_property: LeftOut
) -> None:
    token = await merchant("token")
    commands = [(sys.executable, "examples/payment_link.py", "2550")]
    if shutil.which("node") is None:
        record_property("left_out", NO_NODE)
    else:
        commands.append(("node", "examples/payment_link.mjs", "2550"))
    for command in commands:
        text, page = (await run(*command, TALLYSTICK_TOKEN=token)).split()
        assert text.startswith("LINK:v1;code=")
        async with aiohttp.ClientSession() as session, session.get(page) as response:
            assert response.status == 200
            assert "SYP\u00a025.50" in await response.text()


@pytest.mark.parametrize("provider", ["stripe", "paypal"])
async def test_an_event_of_a_provider_passes_verification(provider: str, base_url: str, run: Run) -> None:
    script = f"examples/{provider}_event.py"
    right = {"STRIPE_SIGNING_SECRET": "whsec_examples", "DEMO_HMAC_SECRET": "demo-secret-of-the-examples"}
    assert "received" in await run(sys.executable, script, "something.happened", "evt_of_an_example", **right)
    assert "duplicate" in await run(
        sys.executable, script, "something.happened", "evt_of_an_example", **right
    )
    with pytest.raises(AssertionError, match="HTTP Error 400"):
        await run(sys.executable, script, "something.happened", **dict.fromkeys(right, "another-secret"))
