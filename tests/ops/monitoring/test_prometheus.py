"""A real Prometheus: it takes the rules, and each alert fires when its fault is there."""

import asyncio
import importlib
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from core import migrations
from core.ids import new_uuid
from ops.embedded import EmbeddedServers
from ops.process import children_of
from tests.commands import tallystick
from tests.ops.monitoring.asked import PROMETHEUS, ROOT, alerts, boards
from tests.ops.monitoring.stand import Stand, standing

pytestmark = [pytest.mark.drill, pytest.mark.timeout(300)]

Record = Callable[[str, object], None]
Wait = Callable[..., Awaitable[Any]]
ALERTMANAGER = ROOT / "ops" / "alertmanager" / "alertmanager.yml"

# Alerts that fire while all is well on a machine that is busy with other work.
OF_TIME = {"EventLoopSlow", "LatencyBudgetBurnsFast", "LatencyBudgetBurnsSlowly", "ConnectionPoolSlow"}
# Rows as the service would have written them long ago, or as nobody but a fault would write them.
OLD_WORK = """
INSERT INTO inbox_events (id, provider, event_id, event_type, headers, body, due_at)
VALUES (gen_random_uuid(), 'stripe', 'evt_old', 'charge.updated', '{}', '{}', now() - interval '1 hour');
INSERT INTO inbox_events (id, provider, event_id, event_type, headers, body, state, outcome, finished_at)
VALUES (gen_random_uuid(), 'stripe', 'evt_dead', 'charge.updated', '{}', '{}', 'dead', 'x', now() - interval '2 days');
INSERT INTO outbox_events (id, principal_id, event_type, body, created_at)
VALUES (gen_random_uuid(), 1, 'x', '{}', now() - interval '1 hour');
INSERT INTO webhook_deliveries (id, event_id, endpoint_id, due_at)
VALUES (gen_random_uuid(), gen_random_uuid(), gen_random_uuid(), now() - interval '2 hours');
INSERT INTO batches VALUES (nextval('batch_seq'), clock_timestamp() - interval '1 hour', 1);
INSERT INTO holds (no, id, source_id, amount, expires_at, principal_id, kind, leg_accounts, leg_amounts)
VALUES (1, gen_random_uuid(), 1, 1, now() - interval '1 hour', 1, 'x', '{}', '{}');
INSERT INTO provider_reports (provider, file, counts) VALUES ('stripe', 'x.csv', '{"matched": 3, "missing_here": 1}');
UPDATE workers SET seen_at = now() - interval '1 hour';
UPDATE payment_attempts SET next_look_at = now() - interval '1 hour';
UPDATE accounts SET balance = balance + 1 WHERE code = 'drill:a';
"""
# No partition can be made, since it would lie over the last one.
STORAGE_FAULTS = """
UPDATE backups SET taken_at = now() - interval '3 days';
UPDATE partitions SET to_at = now() + interval '1 day' WHERE to_at > now();
INSERT INTO partitions (name, parent, from_at, to_at, detached_at)
VALUES ('audit_events_x', 'audit_events', now() - interval '3 years', now() - interval '2 years', now());
INSERT INTO audit_events_rest (id, type, actor, data, created_at)
VALUES ('ffffffff-0000-7000-8000-000000000000', 'x', 'drill', '{}', '2400-01-01');
"""
PAYMENT = """
WITH made AS (
    INSERT INTO payments (
        id, surface, caller, request_id, fingerprint, amount, scale, currency, method, state, routes, details
    )
    VALUES (
        $1, 'orders', 'drill', $3, sha256('x'), 100, 2, 'USD', 'payment_link', 'unknown', '{simulator}',
        '{"title": "Tea", "reference": "1"}'
    )
)
INSERT INTO payment_attempts (id, payment_id, number, provider, provider_id, state, next_look_at, created_at)
VALUES ($2, $1, 1, 'simulator', $3, 'unknown', now() - interval '1 hour', now() - interval '2 hours')
"""
REFUND = """
INSERT INTO payment_refunds (id, payment_id, attempt_id, request_id, amount, state, created_at)
VALUES (gen_random_uuid(), $1, $2, 'r', 1, 'unknown', now() - interval '2 hours')
"""


def run(*command: str | Path) -> None:
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_promtool_takes_the_rules_and_their_unit_tests_hold(tmp_path: Path, record_property: Record) -> None:
    if shutil.which("promtool") is None:
        record_property("left_out", "the rules of Prometheus, since there is no promtool here")
        return
    shutil.copytree(PROMETHEUS, tmp_path / "prometheus")
    config = tmp_path / "prometheus" / "prometheus.yml"
    (tmp_path / "token").write_text("x")
    config.write_text(config.read_text().replace("/run/secrets/admin_token", str(tmp_path / "token")))
    run("promtool", "check", "config", config)
    run("promtool", "test", "rules", *sorted((PROMETHEUS / "tests").glob("*.yml")))


def test_alertmanager_takes_its_routes(record_property: Record) -> None:
    if shutil.which("amtool") is None:
        record_property("left_out", "the routes of Alertmanager, since there is no amtool here")
        return
    run("amtool", "check-config", ALERTMANAGER)
    for labels, receiver in (
        ("alertname=WorkerGone severity=page", "pages"),
        ("alertname=JobFails severity=ticket", "tickets"),
        ("alertname=ReceiversLeftAlone severity=info", "quiet"),
        ("alertname=Watchdog severity=none", "watchdog"),
    ):
        test = (
            "amtool",
            "config",
            "routes",
            "test",
            f"--config.file={ALERTMANAGER}",
            f"--verify.receivers={receiver}",
        )
        run(*test, *labels.split())


def test_dashboards_are_valid_to_grafanas_own_model(record_property: Record) -> None:
    if importlib.util.find_spec("grafana_foundation_sdk") is None:
        record_property(
            "left_out", "dashboards against Grafana's model, since grafana-foundation-sdk is not installed"
        )
        return
    model = importlib.import_module("grafana_foundation_sdk.models.dashboard").Dashboard
    encoder = importlib.import_module("grafana_foundation_sdk.cog.encoder").JSONEncoder
    for name, board in boards().items():
        kept = json.loads(json.dumps(model.from_json(board), cls=encoder))
        assert list(lost(board, kept)) == [], name


def lost(given: Any, kept: Any, at: str = "") -> Any:
    """Yield the places of a document that the model does not know, and has dropped."""
    if isinstance(given, dict):
        for key, value in given.items():
            if value not in (None, "", [], {}):
                yield from lost(value, kept[key], f"{at}.{key}") if key in kept else (f"{at}.{key}",)
    elif isinstance(given, list):
        for place, (one, other) in enumerate(zip(given, kept, strict=True)):
            yield from lost(one, other, f"{at}[{place}]")
    elif given != kept:
        yield f"{at}: {kept}"


async def test_each_alert_fires_under_its_fault(
    database_url: str,
    redis_url: str,
    servers: EmbeddedServers,
    api_key: Callable[..., Awaitable[str]],
    tmp_path: Path,
    eventually: Wait,
    record_property: Record,
) -> None:
    if shutil.which("prometheus") is None:
        record_property("left_out", "alerts that fire, since there is no prometheus here")
        return
    key = await api_key()
    async with deaf_server() as deaf, owner_of(database_url) as owner:
        environment = {
            "DATABASE_URL": database_url, "REDIS_URL": redis_url, "DATABASE_POOL_SIZE": "2", "POSTER_MAX_WAITING": "4",
            "DATABASE_LOCK_TIMEOUT_MS": "6000", "SIMULATOR_URL": deaf, "SIMULATOR_TIMEOUT": "0.5",
            "STRIPE_SIGNING_SECRET": "whsec_drill",
            # The standby is away from the beginning.
            "DATABASE_REPLICA_URL": "postgresql://nobody@127.0.0.1:9/nothing",
        }  # fmt: skip
        await owner.execute("INSERT INTO backups VALUES ('/drill', 'newest', now(), 0, 1)")
        async with standing(tmp_path, **environment) as stand:
            drill = Drill(stand, owner, database_url, key, eventually)
            await drill.is_quiet_while_all_is_well()
            await drill.storage_fails()
            async with locked(database_url, "replays"):
                await drill.work_fails()
                await drill.the_database_hangs()
                await drill.fire("JobNotRun", "JobFails")
            await drill.the_worker_dies()
            wrong, _ = await asyncio.gather(
                tallystick("reconcile", DATABASE_URL=database_url, REDIS_URL=redis_url), drill.work_is_late()
            )
            assert wrong.returncode == 1, wrong.stderr
            await drill.fire("LedgerDrift")
            servers.valkey.kill()
            await drill.transfer("without Redis")
            await drill.fire("RedisAway")
            servers.postgres.kill()
            await drill.fire("DatabaseUnreachable", "TargetsMissing")
        drill.told()
    assert alerts().keys() - stand.fired == set()


class Drill:
    """The faults, one after the other; each waits for its alerts."""

    def __init__(
        self, stand: Stand, owner: "asyncpg.Connection[Any]", database_url: str, key: str, eventually: Wait
    ) -> None:
        self.stand = stand
        self.owner = owner
        self.database_url = database_url
        self.key = key
        self.eventually = eventually
        self.began = time.monotonic()
        self.lines: list[str] = []

    async def fire(self, *names: str) -> None:
        """Wait until all of these alerts have fired."""

        async def all_fired() -> bool:
            await self.stand.firing()
            missing = set(names) - self.stand.fired
            assert not missing, f"silent: {missing}; fired: {sorted(self.stand.fired)}"
            return True

        await self.eventually(all_fired, timeout=60)
        self.lines.append(f"{time.monotonic() - self.began:5.1f} s  {', '.join(names)}")

    def told(self) -> None:
        print("", *self.lines, sep="\n")  # noqa: T201 - the record of the drill

    async def is_quiet_while_all_is_well(self) -> None:
        stand = self.stand

        async def both_answer() -> bool:
            return len(await stand.ask("up == 1 and on() tallystick:http_requests:rate5m")) == 2

        await self.eventually(both_answer, timeout=60)
        for code in ("a", "b"):
            account = {"code": f"drill:{code}", "currency": "USD", "limits": {"floor": None}}
            assert await stand.call("POST", "/v1/accounts", self.key, json=account) == 201
        began = time.monotonic()
        while time.monotonic() < began + 8:
            assert await stand.call("GET", "/v1/accounts/drill:a/entries", self.key) == 200
            await asyncio.sleep(0.2)
        assert await stand.firing() - OF_TIME == {"Watchdog", "StandbyLate"}
        stand.fired = {"Watchdog", "StandbyLate"}
        self.lines.append(f"{time.monotonic() - self.began:5.1f} s  only Watchdog and StandbyLate fire")

    async def storage_fails(self) -> None:
        """Backups get old, partitions run out, go astray and are not archived; a worker measures them as it starts."""
        await self.stand.kill("worker")
        await self.owner.execute(STORAGE_FAULTS)
        await self.stand.start_worker()
        await self.fire("BackupLate", "BackupMissing")
        await self.fire("PartitionsRunOut", "RowsWithoutPartition", "PartitionsNotArchived")

    async def work_fails(self) -> None:
        """Receivers are down, signatures wrong, a provider deaf; the schema lacks a file."""
        function = next(name for name in migrations.migration_files() if "ledger_seal" in name)
        await self.owner.execute("DELETE FROM schema_migrations WHERE name = $1", function)
        os.kill(self.stand.pid("api"), signal.SIGHUP)
        payment = attempt = new_uuid()
        for _ in range(8):
            payment, attempt = new_uuid(), new_uuid()
            await self.owner.execute(PAYMENT, payment, attempt, str(payment))
        await self.owner.execute(REFUND, payment, attempt)
        await self.owner.execute(
            "INSERT INTO webhook_endpoints (id, principal_id, url, event_types, secrets)"
            " SELECT gen_random_uuid(), 1, 'http://127.0.0.1:9/' || n, '{}', '{whsec_ZHJpbGxkcmlsbGRyaWxsZHJpbGw=}'"
            " FROM generate_series(1, 8) AS n"
        )
        for _ in range(12):
            await self.owner.execute(
                "INSERT INTO outbox_events (id, principal_id, event_type, body)"
                " SELECT $1, id, 'x', '{}' FROM principals WHERE id = 1",
                new_uuid(),
            )
            await self.forge()
        await self.fire(
            "SignaturesRefused",
            "DeliveriesFail",
            "ReceiversLeftAlone",
            "ProviderBreakerOpen",
            "ProviderAnswersUnclear",
        )
        await self.fire("PaymentsUnknown", "RefundsUnknown", "MigrationsPending")

    async def transfer(self, key: str) -> int:
        legs = [{"account": "drill:a", "amount": -1}, {"account": "drill:b", "amount": 1}]
        headers = {"Idempotency-Key": key}
        return await self.stand.call("POST", "/v1/transfers", self.key, json={"legs": legs}, headers=headers)

    async def forge(self) -> None:
        wrong = {"Stripe-Signature": f"t={int(time.time())},v1={'0' * 64}"}
        await self.stand.call("POST", "/webhooks/stripe", json={"id": "evt_x"}, headers=wrong)

    async def the_database_hangs(self) -> None:
        """Rows are locked, so that calls wait, queue and fail; meanwhile the API is held up for a moment, too."""
        stand, key = self.stand, self.key
        # The process knows the key from here; it would else wait for that alone.
        assert await stand.call("GET", "/v1/accounts/drill:a", key) == 200
        async with locked(self.database_url, "accounts, keys"):
            calls = [stand.call("GET", "/v1/accounts/drill:a/entries", key) for _ in range(30)]
            calls += [self.transfer(f"k{number}") for number in range(20)]
            # Each call gives up its wait for the rows by itself.
            answers = await asyncio.gather(*calls)
        assert 503 in answers
        await self.fire("ConnectionPoolExhausted", "ConnectionPoolSlow", "LaneFull")
        await self.fire(
            "ErrorBudgetBurnsFast",
            "ErrorBudgetBurnsSlowly",
            "LatencyBudgetBurnsFast",
            "LatencyBudgetBurnsSlowly",
        )
        (child,) = children_of(stand.pid("api"))
        for _ in range(4):
            os.kill(child, signal.SIGSTOP)
            await asyncio.sleep(0.8)
            os.kill(child, signal.SIGCONT)
            await asyncio.sleep(0.7)
        await self.fire("EventLoopSlow")

    async def the_worker_dies(self) -> None:
        """The worker is killed, and all that it would have done is late."""
        await self.stand.kill("worker")
        await self.owner.execute("SET session_replication_role = replica")
        await self.owner.execute(OLD_WORK)

    async def work_is_late(self) -> None:
        await self.fire("TargetDown", "WorkerGone", "InboxStuck", "OutboxStuck", "DeliveriesLate", "SealLag")
        await self.fire(
            "HoldsOverdue", "DeadLettersGrow", "DeadLettersWait", "PaymentsNotLookedAt", "ReportDiffers"
        )
        # Prometheus needs some seconds to see that a target is gone: other faults are made meanwhile.
        self.stand.configure("payments-api")
        await self.stand.reload_prometheus()


@asynccontextmanager
async def owner_of(database_url: str) -> "AsyncIterator[asyncpg.Connection[Any]]":
    connection = await asyncpg.connect(database_url)
    try:
        yield connection
    finally:
        connection.terminate()


@asynccontextmanager
async def locked(database_url: str, tables: str) -> AsyncIterator[None]:
    """Lock tables against everybody."""
    async with owner_of(database_url) as holder, holder.transaction():
        await holder.execute(f"LOCK TABLE {tables} IN ACCESS EXCLUSIVE MODE")
        yield


@asynccontextmanager
async def deaf_server() -> AsyncIterator[str]:
    """Listen, take every request and never answer."""

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.close()

    server = await asyncio.start_server(take, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
