"""Migrations: each once, in order, whole or not at all, and together exactly the schema that is committed."""

import asyncio
import difflib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TypeAlias

import asyncpg
import pytest

from core import migrations
from core.errors import Refusal
from core.migrations import ADVISORY_LOCK, altered, migrate, migration_files, pending, plan, planned
from ops.embedded import EmbeddedServers

Raw: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

YES, NO = "-- online: yes, a test\n", "-- online: no, a test\n"
SCHEMA = Path(__file__).with_name("schema.txt")

# One row a fact, in words that do not depend on the server's version or on the order of creation.
CATALOGUE = {
    "column": """
        SELECT format('%s.%s %s%s%s%s%s', c.relname, a.attname, format_type(a.atttypid, a.atttypmod),
            (SELECT ' collate ' || l.collname FROM pg_collation AS l
                WHERE l.oid = a.attcollation AND l.collname <> 'default' AND a.atttypid <> 'name'::regtype),
            CASE WHEN a.attnotnull THEN ' not null' END, ' default ' || pg_get_expr(d.adbin, d.adrelid),
            CASE WHEN a.attidentity <> '' THEN ' identity ' || a.attidentity::text END)
        FROM pg_attribute AS a JOIN pg_class AS c ON c.oid = a.attrelid AND c.relkind IN ('r', 'p', 'v', 'm')
        LEFT JOIN pg_attrdef AS d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
        WHERE c.relnamespace = 'public'::regnamespace AND a.attnum > 0 AND NOT a.attisdropped
            AND NOT c.relispartition
    """,
    "storage": """
        SELECT format('%s %s', relname, o) FROM pg_class, unnest(reloptions) AS o
        WHERE relnamespace = 'public'::regnamespace
    """,
    "constraint": """
        SELECT format('%s: %s', conrelid::regclass, pg_get_constraintdef(oid)) FROM pg_constraint
        WHERE connamespace = 'public'::regnamespace AND contype <> 'n'
            AND conrelid NOT IN (SELECT inhrelid FROM pg_inherits)
    """,
    "index": """
        SELECT pg_get_indexdef(i.indexrelid) FROM pg_index AS i JOIN pg_class AS c ON c.oid = i.indrelid
        WHERE c.relnamespace = 'public'::regnamespace AND i.indexrelid NOT IN (SELECT inhrelid FROM pg_inherits)
    """,
    # Their bounds are those of the day of the migration.
    "partition": """
        SELECT format('%s by %s: %s', p.partrelid::regclass, pg_get_partkeydef(p.partrelid),
            (SELECT string_agg(h.inhrelid::regclass::text, ' ' ORDER BY h.inhrelid::regclass::text)
                FROM pg_inherits AS h WHERE h.inhparent = p.partrelid))
        FROM pg_partitioned_table AS p
    """,
    "sequence": """
        SELECT format('%s %s from %s to %s by %s, cache %s', sequencename, data_type, min_value, max_value,
            increment_by, cache_size)
        FROM pg_sequences WHERE schemaname = 'public'
    """,
    "function": """
        SELECT format('%s(%s) returns %s, %s%s, %s', proname, pg_get_function_identity_arguments(oid),
            pg_get_function_result(oid), provolatile, CASE WHEN prosecdef THEN ', security definer' END,
            coalesce(array_to_string(proconfig, '; '), 'no settings'))
        FROM pg_proc WHERE pronamespace = 'public'::regnamespace
    """,
    "trigger": """
        SELECT pg_get_triggerdef(t.oid) FROM pg_trigger AS t JOIN pg_class AS c ON c.oid = t.tgrelid
        WHERE c.relnamespace = 'public'::regnamespace AND NOT t.tgisinternal
    """,
    "may": """
        SELECT format('%s %s on %s', r.role, privilege_type, relname)
        FROM pg_class, aclexplode(relacl) AS g
        CROSS JOIN LATERAL (SELECT CASE g.grantee WHEN 0 THEN 'public' ELSE g.grantee::regrole::text END AS role) AS r
        WHERE relnamespace = 'public'::regnamespace AND g.grantee <> relowner
        UNION ALL
        SELECT format('%s %s of %s.%s', a.grantee::regrole, a.privilege_type, t.attrelid::regclass, t.attname)
        FROM pg_attribute AS t JOIN pg_class AS c ON c.oid = t.attrelid, aclexplode(t.attacl) AS a
        WHERE c.relnamespace = 'public'::regnamespace AND NOT t.attisdropped
        UNION ALL
        SELECT format('%s EXECUTE of %s', r.role, p.proname)
        FROM pg_proc AS p, aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) AS g
        CROSS JOIN LATERAL (SELECT CASE g.grantee WHEN 0 THEN 'public' ELSE g.grantee::regrole::text END AS role) AS r
        WHERE p.pronamespace = 'public'::regnamespace AND g.grantee <> p.proowner
    """,
}


@pytest.fixture
async def empty(servers: EmbeddedServers) -> AsyncIterator[str]:
    """The URL of a database without any schema."""
    servers.postgres.start()
    admin = await asyncpg.connect(servers.postgres.url("postgres"))
    await admin.execute("CREATE DATABASE not_migrated")
    yield servers.postgres.url("not_migrated")
    await admin.execute("DROP DATABASE not_migrated WITH (FORCE)")
    await admin.close()


@pytest.fixture
async def owner(database_url: str) -> AsyncIterator[Raw]:
    connection = await asyncpg.connect(database_url)
    yield connection
    await connection.close()


def with_files(monkeypatch: pytest.MonkeyPatch, **changes: str) -> None:
    """Let the project have these files, too, or in the place of its own."""
    files = migration_files() | {name.replace("__", "/") + ".sql": text for name, text in changes.items()}
    ordered = {
        name: files[name] for name in sorted(files, key=lambda name: (name.startswith("functions"), name))
    }
    monkeypatch.setattr(migrations, "migration_files", lambda: ordered)


def plainly(lines: list[str]) -> list[str]:
    """Return the lines without the pair of parentheses around an index's expression that some versions write."""
    return [
        line.replace("(((", "((").replace(")))", "))") if line.startswith("index ") else line
        for line in lines
    ]


async def exists(owner: Raw, table: str) -> bool:
    return bool(await owner.fetchval("SELECT to_regclass($1) IS NOT NULL", table))


async def test_all_together_are_the_committed_schema(owner: Raw, tmp_path: Path) -> None:
    lines = []
    for kind, text in CATALOGUE.items():
        rows = await owner.fetch(text)
        lines += sorted(f"{kind} {' '.join(row[0].split())}" for row in rows)
    found = "\n".join(lines) + "\n"
    (tmp_path / "schema.txt").write_text(found)
    difference = "\n".join(
        difflib.unified_diff(
            plainly(SCHEMA.read_text().splitlines()),
            plainly(lines),
            "tests/core/schema.txt",
            "migrated",
            lineterm="",
            n=0,
        )
    )
    assert not difference, f"{difference}\n\nIf that is meant: cp {tmp_path / 'schema.txt'} {SCHEMA}"


async def test_names_are_numbered_and_unique() -> None:
    numbers = [name.split("/")[1][:4] for name in migration_files() if name.startswith("migrations/")]
    assert numbers == sorted(set(numbers))


async def test_each_is_applied_once_in_order(empty: str) -> None:
    everything = list(migration_files())
    assert await pending(empty) == everything
    told: list[str] = []
    assert await migrate(empty, on_progress=told.append) == everything
    assert told == everything
    assert await pending(empty) == []
    assert await migrate(empty) == []


async def test_many_processes_at_once(empty: str) -> None:
    applied = await asyncio.gather(*(migrate(empty) for _ in range(4)))
    assert sorted(applied, key=len) == [[], [], [], list(migration_files())]


async def test_migration_that_was_changed_afterwards(
    database_url: str, monkeypatch: pytest.MonkeyPatch, owner: Raw
) -> None:
    first = next(iter(migration_files())).removesuffix(".sql").replace("/", "__")
    with_files(monkeypatch, **{first: "SELECT 1", "migrations__9999_new": YES + "CREATE TABLE brand_new ()"})
    for attempt in (pending(database_url), migrate(database_url)):
        with pytest.raises(Refusal) as refused:
            await attempt
        assert refused.value.code == "migration_changed"
        assert first.replace("__", "/") in refused.value.detail
    assert not await exists(owner, "brand_new")


async def test_function_is_applied_again_when_it_changes(
    database_url: str, monkeypatch: pytest.MonkeyPatch, owner: Raw
) -> None:
    def file(arguments: str, answer: int, result: str = "integer") -> str:
        text = f"CREATE OR REPLACE FUNCTION answer({arguments}) RETURNS {result} LANGUAGE sql AS 'SELECT {answer}';"
        return f"{text}\nREVOKE EXECUTE ON FUNCTION answer FROM public;"

    places, steps = [], []
    for text, call, answer in (
        (file("", 41), "answer()", 41),
        (file("", 42), "answer()", 42),
        (file("given integer", 43), "answer(1)", 43),
        (file("given integer", 44, "bigint"), "answer(1)", 44),
    ):
        with_files(monkeypatch, functions__answer=text)
        steps += await planned(database_url)
        assert await migrate(database_url) == ["functions/answer.sql"]
        assert await migrate(database_url) == []
        assert await owner.fetchval(f"SELECT {call}") == answer
        places.append(await owner.fetchval("SELECT oid FROM pg_proc WHERE proname = 'answer'"))
    # A session that has planned a call finds a function that is called as before in its place.
    assert places[0] == places[1] != places[2] != places[3]
    assert [step.online.yes for step in steps] == [True, True, False, False]
    assert steps[2].online.why == "the version before calls answer in another way"


async def test_functions_of_a_later_version_stay_as_they_are(
    database_url: str, monkeypatch: pytest.MonkeyPatch, owner: Raw
) -> None:
    later = {"migrations__9999_later": YES + "CREATE TABLE later ()"}
    file = "CREATE OR REPLACE FUNCTION answer() RETURNS integer LANGUAGE sql AS 'SELECT {}';"
    with monkeypatch.context() as new:
        with_files(new, functions__answer=file.format(2), **later)
        assert len(await migrate(database_url)) == 2
    # The old code starts anew while the new one is rolled out, or after it was taken back, and migrates as ever.
    with_files(monkeypatch, functions__answer=file.format(1))
    assert await pending(database_url) == await migrate(database_url) == []
    assert await planned(database_url) == []
    assert await owner.fetchval("SELECT answer()") == 2
    with_files(
        monkeypatch,
        functions__answer=file.format(1),
        functions__new=file.replace("answer", "other").format(3),
    )
    assert await migrate(database_url) == ["functions/new.sql"]


async def test_rows_that_do_not_fit_are_named(
    database_url: str, monkeypatch: pytest.MonkeyPatch, owner: Raw
) -> None:
    with_files(
        monkeypatch,
        migrations__9998_rows=YES + "CREATE TABLE fit AS SELECT 5 AS n",
        migrations__9999_check=YES + "ALTER TABLE fit ADD CONSTRAINT below_five CHECK (n < 5)",
    )
    with pytest.raises(Refusal, match=r"9999_check\.sql was not applied, since rows") as refused:
        await migrate(database_url)
    assert refused.value.code == "migration_unfit"
    assert await exists(owner, "fit")


async def test_migration_that_fails_leaves_nothing_and_stops_there(
    database_url: str, monkeypatch: pytest.MonkeyPatch, owner: Raw
) -> None:
    with_files(
        monkeypatch,
        migrations__9997_good=YES + "CREATE TABLE good ()",
        migrations__9998_bad=YES + "CREATE TABLE half (); SELECT 1 / 0;",
        migrations__9999_after=YES + "CREATE TABLE after_it ()",
    )
    with pytest.raises(asyncpg.DivisionByZeroError):
        await migrate(database_url)
    assert [await exists(owner, table) for table in ("good", "half", "after_it")] == [True, False, False]
    assert await pending(database_url) == ["migrations/9998_bad.sql", "migrations/9999_after.sql"]
    with_files(
        monkeypatch,
        migrations__9997_good=YES + "CREATE TABLE good ()",
        migrations__9998_bad=YES + "CREATE TABLE half ()",
        migrations__9999_after=YES + "CREATE TABLE after_it ()",
    )
    assert await migrate(database_url) == ["migrations/9998_bad.sql", "migrations/9999_after.sql"]


async def test_migration_gives_way_to_the_traffic(
    database_url: str, monkeypatch: pytest.MonkeyPatch, owner: Raw
) -> None:
    monkeypatch.setattr(migrations, "LOCK_WAITS_MS", (30,))
    monkeypatch.setattr(migrations, "LOCK_PAUSE_SECONDS", (0.01, 0.02))
    monkeypatch.setattr(migrations, "LOCK_TRIES", 2)
    # The second table is the one in use: its wait ends the lock of the first one, too.
    add = "ALTER TABLE holds ADD COLUMN extra integer; ALTER TABLE accounts ADD COLUMN extra integer"
    with_files(monkeypatch, migrations__9999_slow=YES + add)
    waited: list[str] = []
    async with owner.transaction():
        await owner.execute("SELECT count(*) FROM accounts")
        with pytest.raises(Refusal) as refused:
            await migrate(database_url, on_wait=waited.append)
        assert refused.value.code == "migration_busy"
        assert not await owner.fetchval("SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted)")
    assert waited == ["migrations/9999_slow.sql"] * 2
    assert await migrate(database_url) == ["migrations/9999_slow.sql"]


def test_each_migration_says_whether_it_is_online_and_no_lie() -> None:
    files = {name: text for name, text in migration_files().items() if name.startswith("migrations/")}
    lies = {name: plan.blocking(text) for name, text in files.items() if plan.online(name, text).yes}
    assert {name: why for name, why in lies.items() if why} == {}
    newest = max(name.removesuffix(".sql") for name in plan._earlier())
    assert newest == "0046_imports", "a new migration has its line in its own file"
    with pytest.raises(Refusal) as refused:
        plan.online("migrations/9999_mute.sql", "CREATE TABLE mute ()")
    assert refused.value.code == "migration_unsaid"


@pytest.mark.parametrize(
    ("text", "locks", "waits"),
    [
        ("CREATE TABLE own (a int CHECK (a > 0)); CREATE INDEX i ON own (a);", {}, 0),
        ("CREATE INDEX i ON entries (no);", {"entries": "SHARE"}, 1),
        ("CREATE INDEX CONCURRENTLY i ON entries (no);", {"entries": "SHARE UPDATE EXCLUSIVE"}, 0),
        ("ALTER TABLE users ADD COLUMN a text DEFAULT 'x';", {"users": "ACCESS EXCLUSIVE"}, 0),
        ("ALTER TABLE users ADD CONSTRAINT c CHECK (a > 0);", {"users": "ACCESS EXCLUSIVE"}, 1),
        ("ALTER TABLE users ADD CONSTRAINT c CHECK (a > 0) NOT VALID;", {"users": "ACCESS EXCLUSIVE"}, 0),
        ("ALTER TABLE users VALIDATE CONSTRAINT c;", {"users": "SHARE UPDATE EXCLUSIVE"}, 0),
        ("UPDATE users AS u SET a = 1; -- DELETE FROM keys", {"users": "ROW EXCLUSIVE"}, 1),
        ("CREATE TABLE own (u uuid REFERENCES users);", {"users": "SHARE ROW EXCLUSIVE"}, 0),
        (
            "ALTER TABLE users RENAME TO old; CREATE TABLE users (); ALTER TABLE old DROP CONSTRAINT c;",
            {"users": "ACCESS EXCLUSIVE"},
            0,
        ),
        ("ALTER TABLE users RENAME TO old;", {"users": "ACCESS EXCLUSIVE"}, 1),
        ("ALTER TABLE users DROP COLUMN a;", {"users": "ACCESS EXCLUSIVE"}, 1),
    ],
)
def test_a_plan_is_read_from_the_text(text: str, locks: dict[str, str], waits: int) -> None:
    assert (plan.locks(text), len(plan.blocking(text))) == (locks, waits)


async def test_plan_of_what_is_outstanding(
    database_url: str, monkeypatch: pytest.MonkeyPatch, owner: Raw
) -> None:
    assert await planned(database_url) == []
    functions = [name for name in migration_files() if name.startswith("functions/")]
    await owner.execute("UPDATE schema_migrations SET checksum = '' WHERE name LIKE 'functions/%'")
    assert {step.name: step.online.yes for step in await planned(database_url)} == dict.fromkeys(
        functions, True
    )
    assert await migrate(database_url) == functions
    backfill_text = "UPDATE accounts SET extra = 1"
    with_files(
        monkeypatch,
        migrations__9997_column=YES + "ALTER TABLE accounts ADD COLUMN extra integer",
        migrations__9998_backfill=f"{NO} {backfill_text}",
        migrations__9999_after=YES + "CREATE TABLE after_it ()",
    )
    column, backfill, after = await planned(database_url)
    assert (column.online, column.locks) == (
        plan.Online(yes=True, why="a test"),
        {"accounts": "ACCESS EXCLUSIVE"},
    )
    assert not backfill.online.yes
    assert await migrate(database_url, online_only=True) == [column.name]
    assert await migrate(database_url) == [backfill.name, after.name]
    with_files(monkeypatch, migrations__9997_column=YES + "SELECT 1")
    assert await altered(database_url) == [column.name]


async def test_index_that_is_built_beside_the_traffic(
    database_url: str, monkeypatch: pytest.MonkeyPatch, owner: Raw
) -> None:
    text = YES + "CREATE UNIQUE INDEX CONCURRENTLY epochs_by_reason ON epochs (reason);"
    with_files(monkeypatch, migrations__9999_index=text)
    twin = "INSERT INTO epochs (reason) SELECT reason FROM epochs LIMIT 1 RETURNING epoch"
    epoch = await owner.fetchval(twin)
    with pytest.raises(asyncpg.UniqueViolationError):
        await migrate(database_url)
    valid = "SELECT indisvalid FROM pg_index WHERE indexrelid = 'epochs_by_reason'::regclass"
    assert await owner.fetchval(valid) is False
    await owner.execute("DELETE FROM epochs WHERE epoch = $1", epoch)
    assert await migrate(database_url) == ["migrations/9999_index.sql"]
    assert await owner.fetchval(valid) is True


async def test_another_process_that_takes_too_long(
    database_url: str, monkeypatch: pytest.MonkeyPatch, owner: Raw
) -> None:
    monkeypatch.setattr(migrations, "LOCK_WAIT_SECONDS", 0.05)
    monkeypatch.setattr(migrations, "LOCK_POLL_SECONDS", 0.01)
    await owner.execute("SELECT pg_advisory_lock($1)", ADVISORY_LOCK)
    with pytest.raises(Refusal) as refused:
        await migrate(database_url)
    assert refused.value.code == "migration_locked"
