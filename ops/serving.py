"""The processes of the service as the supervisor runs them, and `tallystick serve`."""

from __future__ import annotations

import asyncio
import fcntl
import logging
import shutil
import signal
import sys
import tempfile
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from core.log import configure_logging
from core.metrics import forget_process
from core.migrations import migrate
from core.settings import load_settings
from ops.listening import listen_where_free, reserve_grpc
from ops.reach import reaching_database
from ops.supervisor import Program, Supervisor

if TYPE_CHECKING:
    from collections.abc import Iterator

    from core.settings import Settings
    from ops.listening import Listeners, Reserved

log = structlog.get_logger(__name__)

METRICS_PREFIX = "tallystick-metrics-"
METRICS_LOCK = "lock"

# Events that a person should look at; all others of the supervisor are its ordinary work.
ALARMS = {
    "process.died": logging.ERROR,
    "process.hung": logging.ERROR,
    "process.killed": logging.WARNING,
    "process.not_started": logging.ERROR,
    "reload.failed": logging.ERROR,
}


def api_program(settings: Settings, output: Path | None = None, grpc: Reserved | None = None) -> Program:
    """Return the API's processes; they inherit the sockets of HTTP, and bind the port that is kept for gRPC.

    If the master dies, the processes let the requests in progress finish, within their own bound.
    """
    served = () if grpc is None else ("--grpc", f"{grpc.host}:{grpc.port}")
    command = (sys.executable, "-m", "ops.api_process", *served)
    bound = settings.shutdown_timeout_secs
    return Program(
        "api",
        command,
        settings.serve_workers,
        serves=True,
        stop_within=bound,
        log=output,
        death_signal=signal.SIGTERM,
    )


def worker_program(settings: Settings, output: Path | None = None) -> Program:
    """Return the worker process, which gives its loops and then its deliveries the same time to finish.

    If the master dies, the worker is killed: nobody waits for its answer, and others take over its work in hand.
    """
    command = (sys.executable, "-m", "ops.cli", "worker")
    return Program("worker", command, stop_within=2 * settings.shutdown_timeout_secs, log=output)


@contextmanager
def metrics_folder(wanted: str | Path) -> Iterator[Path]:
    """Make the folder in which the processes share their metrics: `wanted`, emptied, or one that ends with this one."""
    if not wanted:
        _remove_left_folders()
        with tempfile.TemporaryDirectory(prefix=METRICS_PREFIX, ignore_cleanup_errors=True) as folder:
            claim = Path(folder, "claim")
            with claim.open("w") as lock:
                # The lock is taken before the file has its known name: other masters must not find it unlocked.
                fcntl.flock(lock, fcntl.LOCK_EX)
                claim.rename(claim.with_name(METRICS_LOCK))
                yield Path(folder)
        return
    given = Path(wanted)
    given.mkdir(mode=0o700, parents=True, exist_ok=True)
    # An earlier run's processes would be counted again.
    for left in given.glob("*.db"):
        left.unlink()
    yield given


def _remove_left_folders() -> None:
    """Remove the folders of masters that were killed: the kernel let go of their locks."""
    for lock_file in Path(tempfile.gettempdir()).glob(f"{METRICS_PREFIX}*/{METRICS_LOCK}"):
        with suppress(OSError):  # another user's, or its master lives or has just removed it
            with lock_file.open() as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(lock_file.parent)


def report(event: str, **fields: object) -> None:
    """Log an event of the supervisor, at the level at which it should be seen."""
    log.log(ALARMS.get(event, logging.INFO), event, **fields)


def _listen(settings: Settings) -> list[Listeners]:
    """Listen on APP_PORT. In prod the default does not move on either, since a proxy would not follow."""
    return listen_where_free(
        settings,
        settings.app_host,
        lambda text: log.warning("app.port", notice=text),
        moves=settings.env != "prod",
    )


def serve_api(settings: Settings) -> None:
    """Serve the API with SERVE_WORKERS processes until SIGTERM or SIGINT; return when all have ended."""
    configure_logging(settings)
    for notice in settings.notices:
        log.warning("settings.notice", notice=notice)
    listeners = _listen(settings)
    grpc = reserve_grpc(settings, settings.grpc_host, lambda text: log.warning("grpc.port", notice=text))
    if settings.auto_create_schema:
        with reaching_database(settings.owner_url):
            asyncio.run(migrate(str(settings.owner_url)))
    given = load_settings()
    # Addresses found at a running instance are handed over, since children cannot read them. A reload reads the rest.
    found = {
        name.upper(): str(getattr(settings, name))
        for name in ("database_url", "redis_url")
        if not getattr(given, name)
    }
    ports = {each.setting: each.port for each in listeners}
    if ports["app_port"] != settings.app_port:
        found["APP_PORT"] = str(ports["app_port"])
    if grpc is not None:
        # The auth service is never asked at our own port, which the processes know from here.
        ports["grpc_port"] = grpc.port
        found["GRPC_PORT"] = str(grpc.port)
    with metrics_folder(settings.prometheus_multiproc_dir) as folder:
        Supervisor(
            [api_program(settings, grpc=grpc)],
            listeners,
            report=report,
            drain_seconds=settings.shutdown_drain_secs,
            environment={**found, "PROMETHEUS_MULTIPROC_DIR": str(folder)},
            on_ready=lambda: log.info("serving", host=settings.app_host, port=ports.pop("app_port"), **ports),
            on_exit=lambda pid: forget_process(pid, str(folder)),
        ).run()
