"""How long a backup and a restore take: `python -m loadtests.backups [TRANSFERS]`, on servers of its own."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import asyncpg
import msgspec

from core.ledger.accounts import Limits, Opening, open_accounts
from core.ledger.items import Leg, Posting, operation_id
from core.ledger.sealing import seal_once
from core.migrations import migrate
from core.service import open_service
from core.settings import load_settings
from ops.embedded import EmbeddedServers, embedded_servers
from ops.process import python_environment

TRANSFERS = 200_000
ACCOUNTS = 1_000
PAGE = 5_000
MIB = 1024 * 1024


async def fill(servers: EmbeddedServers, transfers: int) -> None:
    """Post so many transfers between the accounts, through the ledger itself, and seal them."""
    await migrate(servers.database_url)
    settings = load_settings(
        env_file=None, env="test", database_url=servers.database_url, redis_url=servers.redis_url
    )
    async with open_service(settings) as service:
        codes = [f"account-{number}" for number in range(ACCOUNTS)]
        await open_accounts(service.database, [Opening(code, "USD", Limits(floor=None)) for code in codes], 1)
        for first in range(0, transfers, PAGE):
            postings = [
                Posting(
                    id=operation_id(1, f"{number}"),
                    principal_id=1,
                    legs=(
                        Leg(codes[number % ACCOUNTS], -1 - number % 900),
                        Leg(codes[number * 7 % ACCOUNTS - 1], 1 + number % 900),
                    ),
                    reference=f"order {number}",
                )
                for number in range(first, min(first + PAGE, transfers))
                if number % ACCOUNTS != (number * 7 - 1) % ACCOUNTS
            ]
            await service.ledger.poster.submit_many(postings)
        while await seal_once(service.database):
            pass


def timed(*command: str, **environment: str) -> tuple[float, str]:
    """Run a command of ours; return its seconds and its output."""
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "ops.cli", *command],
        check=False, stdout=subprocess.PIPE, text=True, env=python_environment(**environment),
    )  # fmt: skip
    if done.returncode != 0:
        sys.exit(f"{command} failed: {done.stdout}")
    return time.monotonic() - began, done.stdout


async def create(servers: EmbeddedServers, name: str) -> int:
    """Create a database, and return the bytes of the first one."""
    connection = await asyncpg.connect(servers.postgres.url("postgres"))
    try:
        await connection.execute(f"CREATE DATABASE {name}")
        size: int = await connection.fetchval("SELECT pg_database_size('tallystick')")
        return size
    finally:
        await connection.close()


def main() -> None:
    """Fill, back up, restore with one job and with two, and print a table."""
    transfers = int(sys.argv[1]) if len(sys.argv) > 1 else TRANSFERS
    folder = Path(tempfile.mkdtemp(prefix="tallystick-backups-"))
    folder.chmod(0o755)
    try:
        with embedded_servers(folder / "servers") as servers:
            asyncio.run(fill(servers, transfers))
            place = folder / "backups"
            taken, told = timed("backup", "--to", str(place), "--json", DATABASE_URL=servers.database_url)
            manifest = msgspec.json.decode(told)
            rows = manifest["picture"]["rows"]
            size = 0
            lines = [f"| `tallystick backup` | {taken:.1f} s |"]
            for jobs in (1, 2):
                size = asyncio.run(create(servers, f"restored_{jobs}"))
                target = servers.postgres.url(f"restored_{jobs}")
                spent, _ = timed("restore", f"{place}/{manifest['name']}", "--into", target, "-j", str(jobs))
                lines.append(f"| `tallystick restore -j {jobs}`, compared and verified | {spent:.1f} s |")
        print(
            f"{rows['transfers']:,} transfers, {rows['entries']:,} entries, {size / MIB:,.0f} MiB in PostgreSQL,"
            f" {manifest['bytes'] / MIB:,.0f} MiB of dump.\n"
        )
        print("\n".join(["| command | takes |", "|---|---|", *lines]))
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
