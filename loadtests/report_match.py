"""How long the comparison of a large report takes: `python -m loadtests.report_match [ROWS]`, on servers of its own.

The ledger is filled by statements, since the comparison only reads. The report lacks a row in 10,007, and another
amount stands in one in 10,009.
"""

from __future__ import annotations

import asyncio
import csv
import datetime as dt
import hashlib
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import asyncpg

from ops.embedded import embedded_servers
from ops.process import python_environment

ROWS = 1_000_000
CLEARING, COLLECTED = "provider:stripe:clearing:EUR", "system:payments_collected:EUR"
PAYMENT = "('00000000-0000-7000-8000-' || lpad(to_hex(n), 12, '0'))"
ATTEMPT = "('00000000-0000-7000-9000-' || lpad(to_hex(n), 12, '0'))"
HEADER = (
    "balance_transaction_id", "created_utc", "currency", "gross", "fee", "net", "reporting_category", "source_id",
    "charge_id", "payment_intent_id",
)  # fmt: skip


def statements(rows: int) -> list[str]:
    """Return the statements that make `rows` paid payments of 10 to 60 EUR, each with a fee of 30 cents."""
    numbers = f"FROM generate_series(1, {rows}) AS n"
    account = "(SELECT id FROM accounts WHERE code = '{}')"
    legs = (
        (CLEARING, "2 * n - 1", 0, "-(1000 + n % 5000)"),
        (COLLECTED, "2 * n - 1", 1, "1000 + n % 5000"),
        (COLLECTED, "2 * n", 2, "-30"),
        (CLEARING, "2 * n", 3, "30"),
    )
    return [
        "SET session_replication_role = replica",
        *(
            f"INSERT INTO accounts (code, currency, floor) VALUES ('{code}', 'EUR', NULL)"  # noqa: S608 - names above
            for code in (CLEARING, COLLECTED)
        ),
        (
            "INSERT INTO payments (id, surface, caller, request_id, fingerprint, amount, scale, currency, method,"
            f" state, routes, paid, revision) SELECT {PAYMENT}::uuid, 'bench', 'c', 'r' || n, sha256('x'),"
            f" 1000 + n % 5000, 2, 'EUR', 'hosted_card', 'paid', '{{stripe}}', 1000 + n % 5000, 1 {numbers}"
        ),
        (
            "INSERT INTO payment_attempts (id, payment_id, number, provider, provider_id, names, state, received, fee)"
            f" SELECT {ATTEMPT}::uuid, {PAYMENT}::uuid, 1, 'stripe', 'cs_' || md5(n::text), '{{}}', 'paid',"
            f" 1000 + n % 5000, 30 {numbers}"
        ),
        *(
            f"INSERT INTO payment_names SELECT 'stripe', '{kind}_' || md5(n::text), {ATTEMPT}::uuid {numbers}"
            for kind in ("ch", "cs")
        ),
        f"INSERT INTO batches SELECT 1000 + n, now() - interval '30 days' + n * interval '2 seconds', 1 {numbers}",
        (
            "INSERT INTO transfers (no, id, principal_id, kind, reference, metadata) SELECT item_no(1000 + n, 1),"
            f" gen_random_uuid(), 0, 'payment.paid', {PAYMENT},"
            f" jsonb_build_object('provider', 'stripe', 'attempt', {ATTEMPT}) {numbers}"
        ),
        *(
            f"INSERT INTO entries SELECT {account.format(code)}, {version}, item_no(1000 + n, 1) + {leg}, {amount}, 0"
            f" {numbers}"
            for code, version, leg, amount in legs
        ),
        "ANALYZE",
    ]


async def fill(url: str, rows: int) -> dt.datetime:
    """Fill the ledger; return the time before its first payment."""
    connection = await asyncpg.connect(url)
    try:
        for statement in statements(rows):
            print(statement[:60], flush=True)
            await connection.execute(statement, timeout=900)
        base: dt.datetime = await connection.fetchval("SELECT now() - interval '30 days'")
        return base
    finally:
        await connection.close()


def write_report(path: Path, rows: int, base: dt.datetime) -> None:
    """Write Stripe's itemised report of these payments."""
    with path.open("w", newline="") as file:
        report = csv.writer(file)
        report.writerow(HEADER)
        for n in (one for one in range(1, rows + 1) if one % 10_007):
            charge = f"ch_{hashlib.md5(str(n).encode(), usedforsecurity=False).hexdigest()}"
            gross = 1000 + n % 5000 + (n % 10_009 == 0)
            at = f"{base + dt.timedelta(seconds=2 * n - 1):%Y-%m-%d %H:%M:%S}"
            money = (f"{cents // 100}.{cents % 100:02}" for cents in (gross, 30, gross - 30))
            report.writerow((f"txn_{n}", at, "eur", *money, "charge", charge, charge, f"pi_{n}"))


def main(rows: int) -> None:
    """Fill, compare, and print the time, the processor time and the memory of the command."""
    folder = Path(tempfile.mkdtemp(prefix="tallystick-match-"))
    # Root's servers run as another user.
    folder.chmod(0o755)
    try:
        with embedded_servers(folder) as servers:
            environment = python_environment(DATABASE_URL=servers.database_url)
            command = [sys.executable, "-m", "ops.cli"]
            subprocess.run([*command, "migrate"], env=environment, check=True, stdout=subprocess.DEVNULL)
            write_report(folder / "report.csv", rows, asyncio.run(fill(servers.database_url, rows)))
            started, before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
            subprocess.run(
                [*command, "payments", "match", str(folder / "report.csv"), "--provider", "stripe", "--csv",
                 str(folder / "differences.csv")],
                env=environment, check=False,
            )  # fmt: skip
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
            print(
                f"{time.monotonic() - started:.1f} s, {cpu:.1f} s of processor time, {after.ru_maxrss // 1024} MB"
            )
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else ROWS)
