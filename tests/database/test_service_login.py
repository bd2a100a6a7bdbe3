"""`tallystick migrate --login-file`: the login that a service runs with, made and given its password."""

import secrets
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import quote, urlsplit

import asyncpg
import pytest

from core.database import Query
from core.service import open_service
from core.settings import Settings
from core.settings.kinds import Dsn
from tests.commands import tallystick

LOGIN = 'of the "service"'


@pytest.fixture
async def owner(database_url: str) -> AsyncIterator["asyncpg.Connection[asyncpg.Record]"]:
    connection = await asyncpg.connect(database_url)
    yield connection
    for name in ('of the "service"', "of_administrators"):
        found = await connection.fetchval(
            "SELECT format('%I', rolname) FROM pg_roles WHERE rolname = $1", name
        )
        if found is not None:
            await connection.execute(f"DROP ROLE {found}")
    await connection.close()


def address(database_url: str, name: str, password: str) -> str:
    parts = urlsplit(database_url)
    return f"postgresql://{quote(name, safe='')}:{quote(password, safe='')}@{parts.hostname}:{parts.port}{parts.path}"


async def test_the_service_runs_with_a_login_that_owns_nothing(
    settings: Settings, owner: "asyncpg.Connection[asyncpg.Record]", tmp_path: Path
) -> None:
    file = tmp_path / "service_database_url"
    urls = [address(settings.database_url, LOGIN, f"p @:/%{secrets.token_hex(8)}") for _ in range(2)]
    for url in urls:  # the second run changes the password, as a rotation does
        file.write_text(f"{url}\n")
        done = await tallystick("migrate", "--login-file", str(file), DATABASE_URL=settings.database_url)
        assert (done.returncode, done.stdout) == (
            0,
            f"The schema is up to date.\nThe login {LOGIN} may serve.\n",
        )
    async with open_service(settings.model_copy(update={"database_url": Dsn(urls[1])})) as service:
        names = await service.database.fetchrow(Query("names", "SELECT session_user, current_user"))
        assert tuple(names or ()) == (LOGIN, "tallystick_serving")
    connection = await asyncpg.connect(urls[1])
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await connection.execute("UPDATE entries SET amount = 0")
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await connection.execute("CREATE TABLE mine ()")
    await connection.close()
    stored = await owner.fetchval("SELECT rolpassword FROM pg_authid WHERE rolname = $1", LOGIN)
    assert stored.startswith("SCRAM-SHA-256$4096:")


async def test_a_login_with_rights_of_its_own_is_refused(
    settings: Settings, owner: "asyncpg.Connection[asyncpg.Record]", tmp_path: Path
) -> None:
    file = tmp_path / "service_database_url"
    await owner.execute("CREATE ROLE of_administrators CREATEDB")
    powerful = "has more rights than the service should have"
    for text, code, sentence in (
        (settings.database_url, 1, powerful),
        (address(settings.database_url, "of_administrators", "secret"), 1, powerful),
        ("postgresql://127.0.0.1/x", 1, "has a name and a password"),
        ("postgresql://[/x", 1, "has a name and a password"),
        (address(settings.database_url, LOGIN, "s\u00e9cret"), 1, "plain ASCII"),
        (None, 2, "it is a directory and no regular file"),
    ):
        file.write_text(text or "")
        given = str(tmp_path if text is None else file)
        done = await tallystick("migrate", "--login-file", given, DATABASE_URL=settings.database_url)
        assert (done.returncode, sentence in done.stderr) == (code, True), done.stderr
    done = await tallystick(
        "migrate", "--check", "--login-file", str(file), DATABASE_URL=settings.database_url
    )
    assert done.returncode == 2
