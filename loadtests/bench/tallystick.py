"""The service under test: Tallystick from this checkout."""

import asyncio
import contextlib
import os
import random
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence

import asyncpg

from core.access.api_keys import SCOPES, create_key
from core.database import open_database
from core.identity.tokens import Tokens
from core.ledger.accounts import MAX_OPENINGS, Limits, Opening, open_accounts
from core.migrations import migrate
from core.payables import payables
from core.platform import open_platform
from core.service import open_service
from core.settings import load_settings
from loadtests.bench import posting
from loadtests.bench.clients.workload import CURRENCY, HOT_ACCOUNT, STRIPE_SECRET
from loadtests.bench.creating.instant import creating
from loadtests.bench.subject import Books, Connection, Shop
from loadtests.rates import CREDIT, UNREACHED

#: The first principal, for whom the first key is made.
PRINCIPAL = 1
#: The measured service signs its users' tokens with this secret.
JWT_SECRET = "a-secret-of-the-benchmark-and-of-no-one"  # noqa: S105 - both sides of it run here
MERCHANT_PHONE, QUIET_PHONE = "+963900000000", "+963800000000"
MAKE_MERCHANT = """
    UPDATE users SET is_merchant = TRUE, merchant_status = 'approved', kyc_level = 1 WHERE id = ANY($1::uuid[])
"""
MAKE_PAYERS = "UPDATE users SET kyc_level = 1, kyc_status = 'approved' WHERE id = ANY($1::uuid[])"
#: Sessions that fill a ledger, each on accounts of its own: on common ones they would wait for each other.
FILL_SESSIONS = max(2, min(4, os.cpu_count() or 2))


class Tallystick:
    """See `loadtests.bench.subject.Subject`."""

    async def prepare(self, database_url: str, accounts: int) -> str:
        """Migrates, makes a key with every scope and opens the accounts, which may owe a credit."""
        await migrate(database_url)
        settings = load_settings(env_file=None, env="test", database_url=database_url)
        codes = [posting.code(number) for number in range(1, accounts + 1)]
        openings = [Opening(code, CURRENCY, Limits(floor=-CREDIT)) for code in codes]
        # Every unit comes from somewhere: the hot account is like a system account, without a floor.
        openings.append(Opening(HOT_ACCOUNT, CURRENCY, Limits(floor=None)))
        database = await open_database(settings, role=None, size=2)
        try:
            token, _ = await create_key(database, "bench", SCOPES, "load of the benchmark")
            for start in range(0, len(openings), MAX_OPENINGS):
                await open_accounts(database, openings[start : start + MAX_OPENINGS], PRINCIPAL)
        finally:
            await database.close()
        async with connected(database_url) as connection:
            await posting.seal_all(connection)
        return token

    async def key(self, database_url: str, principal: str) -> str:
        """Makes a key with every scope."""
        settings = load_settings(env_file=None, env="test", database_url=database_url)
        database = await open_database(settings, role=None, size=2)
        try:
            token, _ = await create_key(database, principal, SCOPES, "an owner of endpoints")
            return token
        finally:
            await database.close()

    async def shop(self, database_url: str, payers: int) -> Shop:
        """Makes them as the service itself makes users, with a starting credit."""
        settings = load_settings(
            env_file=None,
            env="test",
            database_url=database_url,
            # Nobody is asked there: it is Redis that can be done without.
            redis_url="redis://127.0.0.1:1/0",
            jwt_secret=JWT_SECRET,
            starting_credit_cents=CREDIT,
        )
        tokens = Tokens(settings)
        async with open_service(settings) as service, open_platform(service) as platform:
            merchant = await platform.users.ensure(MERCHANT_PHONE)
            quiet = await platform.users.ensure(QUIET_PHONE)
            people = [await platform.users.ensure(f"+9639{number:08}") for number in range(1, payers + 1)]
            async with connected(database_url) as connection:
                await connection.execute(MAKE_MERCHANT, [merchant.id, quiet.id])
                await connection.execute(MAKE_PAYERS, [person.id for person in people])
            code = payables.new_code()
            qr = payables.NewPayable("qr", platform.currency, payee_id=merchant.id, code=code, reusable=True)
            await payables.create(service.database, qr)
        return Shop(
            code=f"PAY:v1;code={code}",
            phone=MERCHANT_PHONE,
            quiet_phone=QUIET_PHONE,
            merchant_token=tokens.issue(merchant, None),
            tokens=tuple(tokens.issue(person, None) for person in people),
        )

    async def migrate(self, database_url: str) -> None:
        """Applies what is outstanding."""
        await migrate(database_url)

    async def fill(self, database_url: str, entries: int, on_progress: Callable[[int], None]) -> None:
        """Calls the posting function in batches from several sessions, then seals what they posted."""
        async with connected(database_url) as connection:
            found = await posting.books(connection)
        missing = max(entries - found.entries, 0) // 2
        done = found.entries
        on_progress(done)

        async def session(number: int, transfers: int) -> None:
            nonlocal done
            span = range(1, found.accounts + 1)
            mine = span[number::FILL_SESSIONS]
            draw = random.Random(found.entries + number)
            async with connected(database_url, synchronous_commit="off") as connection:
                while transfers > 0:
                    items = min(posting.FILL_ITEMS, transfers)
                    await posting.post_many(connection, mine, items, draw)
                    transfers -= items
                    done += 2 * items
                    on_progress(done)

        shares = [
            missing // FILL_SESSIONS + (number < missing % FILL_SESSIONS) for number in range(FILL_SESSIONS)
        ]
        try:
            async with asyncio.TaskGroup() as group:
                for number, share in enumerate(shares):
                    group.create_task(session(number, share))
        except ExceptionGroup as failed:
            raise failed.exceptions[0] from None
        async with connected(database_url, synchronous_commit="off") as connection:
            await posting.seal_all(connection)

    async def settled(self, database_url: str) -> bool:
        """Whether everything is numbered and sealed."""
        async with connected(database_url) as connection:
            return await posting.is_sealed(connection)

    async def books(self, database_url: str) -> Books:
        """Counts the accounts, transfers and entries."""
        async with connected(database_url) as connection:
            return await posting.books(connection)

    def api_command(self, processes: int) -> Sequence[str]:
        """`tallystick serve`."""
        return [sys.executable, "-m", "ops.cli", "serve", "--workers", str(processes)]

    def worker_command(self) -> Sequence[str] | None:
        """`tallystick worker`."""
        return [sys.executable, "-m", "ops.cli", "worker"]

    def environment(self, database_url: str, redis_url: str, port: int) -> Mapping[str, str]:
        """Development settings but for the rate limit, which is as in production and as high as it goes."""
        return {
            "ENV": "dev",
            "APP_HOST": "127.0.0.1",
            "APP_PORT": str(port),
            "DATABASE_URL": database_url,
            "REDIS_URL": redis_url,
            "LOG_LEVEL": "info",
            "STRIPE_SIGNING_SECRET": STRIPE_SECRET,
            # Where the receivers of the benchmark are.
            "OUTBOUND_ALLOW_HOSTS": "127.0.0.0/8",
            **UNREACHED,
            "JWT_SECRET": JWT_SECRET,
            "MERCHANT_FEE_BPS": "150",
        }

    def creates(
        self, database_url: str, redis_url: str
    ) -> contextlib.AbstractAsyncContextManager[Callable[[], Awaitable[object]]]:
        """The engine of payments in this process."""
        return creating(database_url, redis_url)

    def pgbench_script(self, books: Books, *, hot: bool) -> str:
        """One call of `ledger_post` with one transfer."""
        return posting.pgbench_script(books, hot=hot)

    async def direct(
        self, connection: Connection, books: Books, seed: int
    ) -> Callable[[], Awaitable[object]]:
        """The same by asyncpg, prepared."""
        return await posting.direct(connection, books, seed)


@contextlib.asynccontextmanager
async def connected(database_url: str, **settings: str) -> AsyncIterator[Connection]:
    """A connection with the owner's rights and these server settings."""
    connection: Connection = await asyncpg.connect(database_url, server_settings={"jit": "off", **settings})
    try:
        yield connection
    finally:
        await connection.close(timeout=10)
