"""`make docker-smoke`: docker-compose.yml from nothing, rolled to another image under load, and taken down.

It works in a project of its own, on free ports, with secrets of its own, and removes all of it. The exit code is 1 when
anything is not as it should be.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import secrets
import ssl
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp

from ops.process import choose_port
from ops.stripe_events import payment_intent_succeeded, stripe_signature

if TYPE_CHECKING:
    from collections.abc import Sequence

ROOT = Path(__file__).resolve().parents[2]
PROJECT = "tallystick-smoke"
IMAGE, NEXT = "tallystick:smoke", "tallystick:smoke-next"
SCOPES = ("accounts:read", "accounts:write", "transfers:write")
CLIENTS = 4
REPLICAS = 3
PAUSE_SECONDS = 0.1
SESSIONS = (
    "SELECT DISTINCT a.usename, r.rolsuper FROM pg_stat_activity AS a JOIN pg_roles AS r ON a.usesysid = r.oid"
    " WHERE a.application_name = 'tallystick'"
)
# Each wait has a bound: a container that hangs must end the run.
UP_SECONDS = 240
EFFECT_SECONDS = 30.0


class SmokeError(Exception):
    """A step did not do what it should; the text says which."""


def say(text: str) -> None:
    """Print one line at once, for those who watch."""
    sys.stdout.write(f"smoke: {text}\n")
    sys.stdout.flush()


@dataclass
class Stage:
    """One run of the compose file: its variables, and the address of nginx."""

    folder: Path
    environment: dict[str, str] = field(default_factory=dict)
    url: str = ""
    key: str = ""
    stripe_secret: str = field(default_factory=lambda: f"whsec_{secrets.token_hex(24)}")

    def prepare(self) -> None:
        """Make secrets, and choose ports."""
        https = choose_port(None)
        self.url = f"https://127.0.0.1:{https}"
        self.environment = {
            **os.environ,
            "COMPOSE_PROJECT_NAME": PROJECT,
            "TALLYSTICK_IMAGE": IMAGE,
            "SECRETS_DIR": str(self.folder),
            "PUBLIC_BASE_URL": self.url,
            "ALLOWED_ORIGINS": "https://shop.example",
            "NGINX_HTTP_PORT": str(choose_port(None)),
            "NGINX_HTTPS_PORT": str(https),
            "EDGE_SUBNET": "10.203.114.0/24",
            "STRIPE_SIGNING_SECRET_FILE": "/etc/tallystick/stripe",
            "READY_WITHIN_SECONDS": str(UP_SECONDS),
        }
        self.run(str(ROOT / "ops/deploy/secrets.sh"), str(self.folder))
        secret = self.folder / "service" / "stripe"
        secret.write_text(self.stripe_secret)
        secret.chmod(0o444)

    def run(self, *command: str, text: str | None = None) -> str:
        """Return the output of a command that succeeds; its messages go to the terminal. Raises SmokeError."""
        done = subprocess.run(
            command,
            cwd=ROOT,
            env=self.environment,
            input=text,
            stdout=subprocess.PIPE,
            stderr=None if os.environ.get("VERBOSE") else subprocess.PIPE,
            text=True,
            timeout=3 * UP_SECONDS,
            check=False,
        )
        if done.returncode:
            raise SmokeError(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr}")
        return done.stdout

    def compose(self, *arguments: str) -> str:
        """Return the output of `docker compose`."""
        return self.run("docker", "compose", *arguments)

    def build(self) -> None:
        """Build the image, and another one that differs in a label alone."""
        network = os.environ.get("BUILD_NETWORK", "default")
        self.run("docker", "build", "--network", network, "--tag", IMAGE, ".")
        self.run("docker", "build", "--tag", NEXT, "-", text=f"FROM {IMAGE}\nLABEL smoke=next\n")

    def images(self) -> Counter[str]:
        """Return how many containers of the API run each image."""
        found = self.compose("ps", "--format", "json", "api").splitlines()
        return Counter(json.loads(line)["Image"] for line in found)

    def logins(self) -> str:
        """Return the logins that the service's sessions have, each with the word on whether it is a superuser."""
        psql = (
            "exec",
            "--no-TTY",
            "postgres",
            "psql",
            "--username=tallystick",
            "--tuples-only",
            "--no-align",
        )
        return self.compose(*psql, f"--command={SESSIONS}").strip()


@dataclass
class Load:
    """Clients that post one transfer after another through nginx, each over a connection that it keeps."""

    session: aiohttp.ClientSession
    url: str
    posted: int = 0
    failures: list[str] = field(default_factory=list)
    slowest_seconds: float = 0.0
    _ended: asyncio.Event = field(default_factory=asyncio.Event)

    async def client(self, name: str) -> None:
        """Post until the load ends."""
        number = 0
        while not self._ended.is_set():
            number += 1
            began = time.monotonic()
            try:
                async with self.session.post(
                    f"{self.url}/v1/transfers",
                    json={"from": "cash", "to": "shop", "amount": 1},
                    headers={"Idempotency-Key": f"{name}-{number}"},
                ) as answer:
                    text = await answer.text()
                    if answer.status == 201:
                        self.posted += 1
                    else:
                        self.failures.append(f"{answer.status} {text[:200]}")
            except (aiohttp.ClientError, TimeoutError) as error:
                self.failures.append(repr(error))
            self.slowest_seconds = max(self.slowest_seconds, time.monotonic() - began)
            # The containers that start beside them want a share of the machine.
            await asyncio.sleep(PAUSE_SECONDS)

    async def during(self, work: Any) -> None:
        """Run a function in a thread while the clients post."""
        tasks = [asyncio.create_task(self.client(f"client-{number}")) for number in range(CLIENTS)]
        try:
            await asyncio.to_thread(work)
        finally:
            self._ended.set()
            await asyncio.gather(*tasks)


async def balance(session: aiohttp.ClientSession, url: str, account: str) -> int:
    """Return an account's balance in minor units."""
    async with session.get(f"{url}/v1/accounts/{account}") as answer:
        return int((await answer.json())["balance"])


async def use(stage: Stage) -> None:
    """Post a transfer and receive a webhook; then scale, and roll under load. Raises SmokeError."""
    trusting = ssl.create_default_context(cafile=str(stage.folder / "tls_certificate"))
    headers = {"Authorization": f"Bearer {stage.key}"}
    timeout = aiohttp.ClientTimeout(total=30)
    connector = aiohttp.TCPConnector(ssl=trusting)
    async with aiohttp.ClientSession(connector=connector, headers=headers, timeout=timeout) as session:
        for account in ({"code": "cash", "limits": {"floor": None}}, {"code": "shop"}):
            async with session.post(f"{stage.url}/v1/accounts", json={**account, "currency": "USD"}) as made:
                expect(made.status, 201, "an account")
        transfer = {"from": "cash", "to": "shop", "amount": 500}
        key = {"Idempotency-Key": "first"}
        async with session.post(f"{stage.url}/v1/transfers", json=transfer, headers=key) as posted:
            expect(posted.status, 201, "a transfer")
        say("a transfer is posted")

        event = payment_intent_succeeded("shop", event_id="evt_smoke", intent="pi_smoke") | {"livemode": True}
        body = json.dumps(event).encode()
        signature = stripe_signature(body, stage.stripe_secret, int(time.time()))
        async with session.post(
            f"{stage.url}/webhooks/stripe", data=body, headers={"Stripe-Signature": signature}
        ) as received:
            expect(received.status, 200, "a webhook")
        give_up_at = time.monotonic() + EFFECT_SECONDS
        while await balance(session, stage.url, "shop") != 2000:
            if time.monotonic() > give_up_at:
                break
            await asyncio.sleep(0.2)
        expect(await balance(session, stage.url, "shop"), 2000, "the balance after the webhook")
        say("a signed webhook has its effect, by way of the worker")

        load = Load(session, stage.url)

        def scale_and_roll() -> None:
            stage.compose(
                "up", "--detach", "--no-build", "--no-recreate", "--wait", "--scale", f"api={REPLICAS}"
            )
            expect(stage.images(), Counter({IMAGE: REPLICAS}), "the API at scale")
            say(f"the API runs in {REPLICAS} containers; {load.posted} transfers so far")
            began = time.monotonic()
            stage.run("ops/deploy/roll.sh", NEXT)
            expect(stage.images(), Counter({NEXT: REPLICAS}), "the API after the roll")
            say(f"rolled to another image in {time.monotonic() - began:.0f} s")

        await load.during(scale_and_roll)
        say(
            f"{load.posted} transfers by {CLIENTS} clients meanwhile, {len(load.failures)} failed,"
            f" the slowest took {load.slowest_seconds:.2f} s"
        )
        expect(load.failures, [], "failures under load")
        expect(await balance(session, stage.url, "shop"), 2000 + load.posted, "the balance after the load")
    say(stage.compose("exec", "--no-TTY", "api", "tallystick", "verify").strip().splitlines()[0])


def expect(found: object, wanted: object, name: str) -> None:
    """Raise SmokeError unless two values are equal."""
    if found != wanted:
        raise SmokeError(f"{name}: {found} in the place of {wanted}")


def main(arguments: Sequence[str] = ()) -> int:
    """Run everything; with `--keep` what was started goes on."""
    with tempfile.TemporaryDirectory(prefix="tallystick-smoke-") as folder:
        stage = Stage(Path(folder))
        stage.prepare()
        try:
            stage.build()
            size = int(stage.run("docker", "image", "inspect", "--format", "{{.Size}}", IMAGE))
            say(f"the image has {size / 1e6:.0f} MB")
            began = time.monotonic()
            stage.compose("up", "--detach", "--no-build", "--wait")
            say(f"everything is up and healthy after {time.monotonic() - began:.0f} s")
            scopes = [word for scope in SCOPES for word in ("--scope", scope)]
            create = (
                "run",
                "--rm",
                "--no-TTY",
                "operator",
                "keys",
                "create",
                "--principal",
                "smoke",
                *scopes,
            )
            stage.key = stage.compose(*create).strip()
            expect(
                stage.logins(),
                "tallystick_service|f",
                "the login of the service, and whether it is a superuser",
            )
            asyncio.run(use(stage))
        except (SmokeError, subprocess.TimeoutExpired) as error:
            say(str(error))
            say(stage.compose("ps", "--all"))
            refused = re.findall(r'\{.*"status":5.*', stage.compose("logs", "--no-color", "nginx"))
            say("\n".join(["of nginx:", *refused[-10:]]))
            say(stage.compose("logs", "--no-color", "--tail", "3"))
            return 1
        finally:
            if "--keep" not in arguments:
                stage.compose("down", "--volumes", "--remove-orphans")
        say("down; everything was as it should be")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
