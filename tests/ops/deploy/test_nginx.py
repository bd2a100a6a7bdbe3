"""ops/nginx in front of a service, run by a real nginx: TLS, limits, addresses that nobody can forge, whole bodies."""

import asyncio
import io
import json
import os
import re
import shutil
import ssl
import subprocess
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import grpc
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from core.settings import Settings
from handlers.app import create_app
from handlers.http.problems import PROBLEMS
from ops.process import choose_port
from ops.stripe_events import payment_intent_succeeded, stripe_signature

pytestmark = [pytest.mark.shared, pytest.mark.drill]

ROOT = Path(__file__).parents[3]
NO_NGINX = "the configuration of nginx: nginx or openssl is not on this machine"
TOKEN = "an-admin-token-of-these-tests"
SECRET = "whsec_of_these_tests"
# A load balancer's address, from which X-Forwarded-For is believed; and clients of nginx itself.
BALANCER, CLIENT, OTHER = "127.0.0.9", "127.0.0.2", "127.0.0.3"
# Later versions know more; the lines that this one does not know are left out.
SINCE = {"http2 on;": (1, 25, 1), "keepalive_min_timeout": (1, 27, 4)}
Problem = dict[str, Any]


def missing() -> bool:
    """Whether a program is not there that the drill needs; Debian keeps nginx where users do not look."""
    os.environ["PATH"] += os.pathsep + "/usr/sbin"
    return shutil.which("nginx") is None or shutil.which("openssl") is None


def written(folder: Path, upstream: int, of_grpc: int) -> tuple[int, int, int]:
    """Write the configuration for this machine, and return the ports of HTTP, TLS and gRPC."""
    told = subprocess.run(["nginx", "-v"], capture_output=True, text=True, check=True).stderr
    version = tuple(map(int, re.findall(r"\d+", told)[:3]))
    subprocess.run([ROOT / "ops/deploy/secrets.sh", folder / "secrets"], check=True, capture_output=True)
    plain, tls, calls, inside = (choose_port(None) for _ in range(4))
    for source in (ROOT / "ops/nginx").glob("*.conf"):
        text = source.read_text()
        for line, since in SINCE.items():
            if version < since:
                text = re.sub(rf"^ *{re.escape(line)}.*$", "", text, flags=re.MULTILINE)
        if version < SINCE["http2 on;"]:
            text = text.replace("ssl default_server;", "ssl http2 default_server;")
        if source.name == "upstream.conf":
            text = re.sub(r"^resolver .*$", "", text, flags=re.MULTILINE)
            text = text.replace("server api:8080 resolve", f"server 127.0.0.1:{upstream}")
            text = text.replace("server api:9090 resolve", f"server 127.0.0.1:{of_grpc}")
        if source.name == "real_ip.conf":
            text = re.sub(r"^# (set_real_ip_from|real_ip)", r"\1", text, flags=re.MULTILINE)
            text = text.replace("192.0.2.0/24", BALANCER)
        for given, here in (
            ("listen 8080", f"listen {plain}"),
            ("listen 8443", f"listen {tls}"),
            ("listen 8444", f"listen {calls}"),
            ("127.0.0.1:8081", f"127.0.0.1:{inside}"),
            # The container's own folders; the second path has the first one in it.
            ("/tmp/", f"{folder}/"),  # noqa: S108
            ("/run/secrets", str(folder / "secrets")),
        ):
            text = text.replace(given, here)
        (folder / source.name).write_text(text)
    return plain, tls, calls


class Proxy:
    """A running nginx."""

    def __init__(self, plain: int, tls: int, calls: int, certificate: Path) -> None:
        self.plain, self.url = f"http://127.0.0.1:{plain}", f"https://127.0.0.1:{tls}"
        self.grpc, self.certificate = f"127.0.0.1:{calls}", certificate
        self.trusting = ssl.create_default_context(cafile=str(certificate))

    async def ask(
        self, path: str, client: str = CLIENT, method: str = "GET", url: str = "", **kwargs: Any
    ) -> tuple[int, Any, bytes]:
        """Return status, headers and body of an answer to a client at an address."""
        connector = aiohttp.TCPConnector(ssl=self.trusting, local_addr=(client, 0))
        async with (
            aiohttp.ClientSession(connector=connector) as session,
            session.request(method, (url or self.url) + path, allow_redirects=False, **kwargs) as answer,
        ):
            return answer.status, answer.headers, await answer.read()


@asynccontextmanager
async def proxied(app: web.Application, folder: Path, of_grpc: int = 9) -> AsyncIterator[Proxy]:
    """Serve an application behind nginx."""
    async with TestServer(app) as server:
        assert server.port is not None
        ports = written(folder, server.port, of_grpc)
        # Workers of root become another user, who cannot read the folder.
        words = "daemon off;" + (" user root;" if os.geteuid() == 0 else "")
        command = ["nginx", "-p", str(folder), "-c", str(folder / "nginx.conf"), "-g", words]
        with (folder / "log").open("wb") as log:
            process = await asyncio.create_subprocess_exec(*command, stdout=log, stderr=log)
        proxy = Proxy(*ports, folder / "secrets" / "tls_certificate")
        try:
            for _ in range(500):
                assert process.returncode is None, (folder / "log").read_text()
                try:
                    await proxy.ask("/", url=proxy.plain)
                    break
                except aiohttp.ClientError:
                    await asyncio.sleep(0.02)
            yield proxy
        finally:
            if process.returncode is None:
                process.terminate()
            await process.wait()


def is_problem(answer: tuple[int, Any, bytes], code: str) -> bool:
    """Whether nginx refused in the form of the API, with the title that the API gives to the code."""
    status, headers, body = answer
    told = json.loads(body)
    assert (status, headers["Content-Type"]) == (PROBLEMS[code].status, "application/problem+json")
    assert told == {
        "type": f"/problems/{code}",
        "title": PROBLEMS[code].title,
        "status": status,
        "detail": told["detail"],
        "error": {"code": code, "message": told["detail"]},
    }
    return True


async def test_a_service_behind_nginx(
    settings: Settings,
    api_key: Any,
    tmp_path: Path,
    record_property: Callable[[str, object], None],
) -> None:
    if missing():
        record_property("left_out", NO_NGINX)
        return
    changes = {
        "trusted_proxies": "127.0.0.1/32",
        "admin_token": TOKEN,
        "stripe_signing_secrets": SECRET,
        "v1_rate_limit_address_per_second": 100_000,
    }
    app = create_app(Settings.model_validate(settings.model_dump() | changes))
    key = {"Authorization": f"Bearer {await api_key('transfers:write')}"}
    async with proxied(app, tmp_path) as proxy:
        status, headers, _ = await proxy.ask("/v1/feed?after=1", url=proxy.plain)
        assert (status, headers["Location"]) == (308, "https://127.0.0.1/v1/feed?after=1")
        status, headers, _ = await proxy.ask("/health")
        assert (status, "max-age" in headers["Strict-Transport-Security"]) == (200, True)

        # The signature is over the bytes as they were sent, blanks included.
        event = payment_intent_succeeded("alice", event_id="evt_nginx", intent="pi_nginx")
        body = json.dumps(event, indent=3).encode() + b"\n "
        signed = {"Stripe-Signature": stripe_signature(body, SECRET, int(time.time()))}
        assert (await proxy.ask("/webhooks/stripe", method="POST", data=body, headers=signed))[0] == 200

        admin = {"X-Admin-Token": TOKEN}
        assert (await proxy.ask("/metrics", headers=admin))[0] == 200
        assert (await proxy.ask("/metrics"))[0] == 401
        public = admin | {"X-Forwarded-For": "203.0.113.7"}
        for path in ("/metrics", "/metrics/json", "/%6Detrics", "//metrics", "/x/../metrics"):
            assert is_problem(await proxy.ask(path, BALANCER, headers=public), "not_found")
        # A client who is no balancer says in vain that it is somebody else.
        assert (await proxy.ask("/metrics", headers=public))[0] == 200

        large = b'{"items": [' + b" " * 2**20 + b"]}"
        as_json = key | {"Content-Type": "application/json"}
        for path, code in (("/v1/transfers", "payload_too_large"), ("/v1/transfers/batch", "")):
            answer = await proxy.ask(path, method="POST", data=io.BytesIO(large), headers=as_json)
            assert is_problem(answer, code) if code else answer[0] in {400, 422}
        answer = await proxy.ask(
            "/v1/transfers/batch", method="POST", data=io.BytesIO(b" " * (4 * 2**20 + 1)), headers=as_json
        )
        assert json.loads(answer[2])["error"]["code"] == "payload_too_large"

        for path, burst, others in (
            ("/webhooks/paypal", 20, 400),
            ("/admin/events", 10, 200),
            ("/reconciliation/summary", 5, 200),
        ):
            method = "POST" if others == 400 else "GET"
            answers = await asyncio.gather(
                *(proxy.ask(path, OTHER, method, headers=admin) for _ in range(4 * burst + 20))
            )
            told = Counter(answer[0] for answer in answers)
            assert set(told) == {others, 429}, (path, told)
            assert told[others] > burst
            assert is_problem(next(answer for answer in answers if answer[0] == 429), "rate_limited")
            assert (await proxy.ask(path, CLIENT, method, headers=admin))[0] == others


async def test_what_nginx_says_of_a_client(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    if missing():
        record_property("left_out", NO_NGINX)
        return
    peers, streamed = set(), asyncio.Event()

    async def echo(request: web.Request) -> web.Response:
        peers.add(request.transport and request.transport.get_extra_info("peername"))
        return web.json_response([list(pair) for pair in request.headers.items()])

    async def export(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"first\n")
        await streamed.wait()
        await response.write(b"last\n")
        return response

    app = web.Application()
    app.router.add_get("/wallet/transactions/export", export)
    app.router.add_route("*", "/{anything:.*}", echo)
    forged = {
        "X-Forwarded-For": "198.51.100.9",
        "Forwarded": "for=198.51.100.9",
        "X-Real-IP": "198.51.100.9",
        "X-Forwarded-Host": "evil.example",
        "X-Forwarded-Proto": "http",
    }
    calls = grpc.aio.server()
    healthy = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(healthy, calls)
    port = calls.add_insecure_port("127.0.0.1:0")
    await calls.start()
    async with proxied(app, tmp_path, port) as proxy:
        trusted = grpc.ssl_channel_credentials(proxy.certificate.read_bytes())
        async with grpc.aio.secure_channel(proxy.grpc, trusted) as channel:
            told = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
            assert told.status == health_pb2.HealthCheckResponse.SERVING
        await calls.stop(0)

        for client, seen in ((CLIENT, CLIENT), (BALANCER, "198.51.100.9")):
            for path in (
                "/v1/accounts",
                "/v1/transfers",
                "/v1/transfers/batch",
                "/webhooks/stripe",
                "/admin/kyc",
            ):
                _, _, body = await proxy.ask(path, client, headers=forged)
                got = dict(json.loads(body))
                assert got["X-Forwarded-For"] == seen, path
                assert got["X-Forwarded-Proto"] == "https"
                assert not got.keys() & {"Forwarded", "X-Real-IP", "X-Forwarded-Host"}
        # Ten requests went over connections that nginx keeps: fewer than one each.
        assert len(peers) <= os.cpu_count() + 1  # type: ignore[operator]

        connector = aiohttp.TCPConnector(ssl=proxy.trusting)
        async with (
            aiohttp.ClientSession(connector=connector) as session,
            session.get(f"{proxy.url}/wallet/transactions/export") as answer,
        ):
            # The first row is here while the last one is not there yet.
            assert await answer.content.readline() == b"first\n"
            streamed.set()
            assert await answer.content.readline() == b"last\n"
