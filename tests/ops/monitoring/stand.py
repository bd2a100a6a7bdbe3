"""A service that Prometheus watches: API, worker and Prometheus as processes, and the rules made quick."""

import asyncio
import re
import shutil
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import aiohttp
import yaml

from ops.process import choose_port, python_environment
from tests.ops.monitoring.asked import PROMETHEUS

TOKEN = "a-token-of-the-drill"
# A scrape waits two seconds for a database that hangs, so that it must be given more.
SCRAPE_SECONDS = 3
# A rate needs two scrapes within its window, and one of them may come late.
LEAST_WINDOW_SECONDS = 18
# A window of an hour is six seconds here.
QUICKER = 600
SECONDS = {"m": 60, "h": 3_600, "d": 86_400}


def quickened(rules: str) -> str:
    """Return rules whose windows are short and that wait for nothing; their bounds stay but for that of jobs."""

    def window(found: re.Match[str]) -> str:
        seconds = int(found[1]) * SECONDS[found[2]] // QUICKER
        return f"[{max(LEAST_WINDOW_SECONDS, seconds)}s]"

    text = re.sub(r"\[(\d+)([mhd])\]", window, rules)
    text = re.sub(r"for: \w+", "for: 0s", text)
    text = re.sub(r"interval: \w+", "interval: 1s", text)
    # Five minutes without a success.
    return re.sub(r"(_seconds\) < |, )300\b", r"\g<1>20", text)


class Stand:
    """The processes, and the alerts that have fired so far."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self.folder = folder
        self.api_port, self.worker_port, self.port = (choose_port(None) for _ in range(3))
        self.environment = python_environment(
            ENV="test", APP_HOST="127.0.0.1", APP_PORT=str(self.api_port), SERVE_WORKERS="1", GRPC_PORT="0",
            ADMIN_TOKEN=TOKEN, RATE_LIMIT_ENABLED="false", METRICS_INTERVAL_SECS="0.5", STATE_DIR=str(folder),
            WORKER_METRICS_PORT=str(self.worker_port), **environment,
        )  # fmt: skip
        self.environment.pop("PROMETHEUS_MULTIPROC_DIR", None)
        self.fired: set[str] = set()
        self._processes: dict[str, asyncio.subprocess.Process] = {}

    async def start(self, name: str, *arguments: str) -> asyncio.subprocess.Process:
        with (self.folder / f"{name}.log").open("wb") as log:
            process = await asyncio.create_subprocess_exec(
                *arguments, env=self.environment, stdout=log, stderr=log, start_new_session=True
            )
        self._processes[name] = process
        return process

    async def start_service(self) -> None:
        await self.start("api", sys.executable, "-m", "ops.cli", "serve")
        await self.start_worker()

    async def start_worker(self) -> None:
        await self.start("worker", sys.executable, "-m", "ops.cli", "worker")

    async def start_prometheus(self, program: str) -> None:
        (self.folder / "rules").mkdir()
        for path in (PROMETHEUS / "rules").glob("*.yml"):
            (self.folder / "rules" / path.name).write_text(quickened(path.read_text()))
        (self.folder / "token").write_text(TOKEN)
        self.configure("payments-api", "worker")
        await self.start(
            "prometheus", program, f"--config.file={self.folder}/prometheus.yml",
            f"--storage.tsdb.path={self.folder}/data", f"--web.listen-address=127.0.0.1:{self.port}",
            "--web.enable-lifecycle",
        )  # fmt: skip

    def configure(self, *jobs: str) -> None:
        """Write the configuration of ops/prometheus, as if discovery found one process of each of these jobs."""
        config = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text())
        config["global"] = {
            "scrape_interval": f"{SCRAPE_SECONDS}s",
            "scrape_timeout": f"{SCRAPE_SECONDS}s",
            "evaluation_interval": "1s",
        }
        del config["alerting"]
        ports = {"payments-api": self.api_port, "worker": self.worker_port}
        config["scrape_configs"] = [one for one in config["scrape_configs"] if one["job_name"] in ports]
        for one in config["scrape_configs"]:
            del one["dns_sd_configs"]
            found = [f"127.0.0.1:{ports[one['job_name']]}"] if one["job_name"] in jobs else []
            one["static_configs"] = [{"targets": found}]
            if "authorization" in one:
                one["authorization"]["credentials_file"] = f"{self.folder}/token"
        (self.folder / "prometheus.yml").write_text(yaml.safe_dump(config))

    async def reload_prometheus(self) -> None:
        async with aiohttp.ClientSession() as session:
            await session.post(f"http://127.0.0.1:{self.port}/-/reload")

    async def ask(self, query: str) -> list[dict[str, Any]]:
        """Return the result of a query, empty while Prometheus does not answer."""
        with suppress(aiohttp.ClientError):
            async with (
                aiohttp.ClientSession() as session,
                session.get(f"http://127.0.0.1:{self.port}/api/v1/query", params={"query": query}) as answer,
            ):
                found: list[dict[str, Any]] = (await answer.json())["data"]["result"]
                return found
        return []

    async def firing(self) -> set[str]:
        """Return the alerts that fire now, and remember them."""
        found = {one["metric"]["alertname"] for one in await self.ask('ALERTS{alertstate="firing"}')}
        self.fired |= found
        return found

    async def call(self, method: str, path: str, key: str = "", **more: Any) -> int:
        """Send a request and return its status, 0 where there is no answer."""
        headers = {"Authorization": f"Bearer {key}", **more.pop("headers", {})}
        try:
            async with (
                aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=15)) as session,
                session.request(
                    method, f"http://127.0.0.1:{self.api_port}{path}", headers=headers, **more
                ) as answer,
            ):
                await answer.read()
                return answer.status
        except (aiohttp.ClientError, TimeoutError):
            return 0

    def pid(self, name: str) -> int:
        return self._processes[name].pid

    async def kill(self, name: str) -> None:
        process = self._processes.pop(name)
        with suppress(ProcessLookupError):
            process.send_signal(signal.SIGKILL)
        await process.wait()

    async def end(self) -> None:
        for name in [*self._processes]:
            process = self._processes[name]
            with suppress(ProcessLookupError):
                process.terminate()
            try:
                await asyncio.wait_for(process.wait(), 5)
            except TimeoutError:
                await self.kill(name)


@asynccontextmanager
async def standing(folder: Path, **environment: str) -> AsyncIterator[Stand]:
    stand = Stand(folder, environment)
    try:
        await stand.start_service()
        program = shutil.which("prometheus")
        assert program
        await stand.start_prometheus(program)
        yield stand
    finally:
        await stand.end()
