"""Rules of every command: a missing or older schema is told in a sentence, and texts that are kept have bounds."""

import asyncio
import importlib
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import asyncpg
import click
import pytest
from click.testing import CliRunner

from ops.cli import FAILURE, _explain, cli
from ops.commands.table import COMMANDS, GROUPS
from ops.commands.texts import Text
from ops.embedded import EmbeddedServers
from ops.process import python_environment
from tests.commands import tallystick

NONE = "The database has no schema yet. Run `tallystick migrate` first."
ID = "01a22930-bac5-7480-925e-18318d9cd8c9"
REPORT = "id,type,amount,currency\npi_1,payment,1.00,EUR\n"
# A line has a command with words that it takes; REPORT stands for a file.
LINES = f"""
import wallets --from sqlite:REPORT
verify
reconcile
backup
recovered --reason restored
keys create --principal shop --scope transfers:read
keys list
keys reseal
keys revoke tsk_x
agents appoint +963911111111
agents limits +963911111111 --day-max 5
agents list
agents suspend +963911111111 --reason left
events list
events show {ID}
events tail
payments expire
payments list
payments match REPORT --provider stripe --format generic
payments reconcile
payments refunds
payments resolve {ID} --as paid --by Ann --reason seen
payments settle REPORT --provider stripe --format generic
payments show {ID}
callbacks dispatch
callbacks list
callbacks secret orders 7 https://example.com/back
orders address 7
orders key 7
orders list
kaspi configs deactivate 7
kaspi configs list
kaspi configs set 7
kaspi register-device 7 --trade-point 7 --device till
dlq discard {ID} --reason known
dlq list
dlq replay --all
dlq show {ID}
sources create bank --principal shop
sources delete bank
sources disable bank
sources enable bank
sources list
sources rotate bank
deliveries list
deliveries recover {ID} --since 2026-01-01
deliveries resend {ID}
deliveries show {ID}
requeue
backfill paypal
backfill stripe
closing list
closing move EUR --reason audit --before 2026-01-01
settlement
autopay
charge
expire
expire pending
settle
retain
archive
archive forget audit_events_1
archive list
archive restore audit_events_1
seed
seed merchant
"""
# Commands that read no database; those that take one of their own; and those that ask a service over HTTP.
OTHERS = {
    "backup check", "backup list", "kaspi trade-points", "migrate", "pooler", "restore", "secrets check",
    "secrets list", "secrets new", "serve", "up", "version", "worker",
}  # fmt: skip
DEVELOP = {*GROUPS["Develop"]} - {"seed"}
# Options that are kept as they are typed, for people.
KEPT = {"reason", "description", "by", "device"}


def leaves(name: str) -> Iterator[tuple[str, click.Command]]:
    module, attribute = COMMANDS[name][0].split(":")
    waiting = [(name, getattr(importlib.import_module(module), attribute))]
    for words, one in waiting:
        if isinstance(one, click.Group):
            waiting += [(f"{words} {each}", one.commands[each]) for each in one.commands]
        if not isinstance(one, click.Group) or one.invoke_without_command:
            yield words, one


def told_by(line: list[str]) -> tuple[int, str]:
    """Run a command in this process, which takes a few milliseconds; return what `main` says of its end."""
    done = CliRunner().invoke(cli, line, standalone_mode=False)
    error = done.exception
    if isinstance(error, click.ClickException):
        return error.exit_code, error.format_message()
    return _explain(error) if isinstance(error, Exception) else (done.exit_code, done.output)


# Commands begin loops of their own, and set up the log; so they run one after the other in a process beside the tests.
BESIDE = """
import json, os, sys
from tests.ops.test_every_command import told_by
out = os.fdopen(os.dup(1), "w")
json.dump([told_by(line) for line in json.load(sys.stdin)], out)
"""


@pytest.fixture
async def empty(servers: EmbeddedServers) -> AsyncIterator[str]:
    """The URL of a database without a schema."""
    admin = await asyncpg.connect(servers.postgres.url("postgres"))
    await admin.execute("CREATE DATABASE without_schema")
    yield servers.postgres.url("without_schema")
    await admin.execute("DROP DATABASE without_schema WITH (FORCE)")
    await admin.close()


async def test_every_command_tells_of_a_database_without_a_schema(
    empty: str, redis_url: str, tmp_path: Path
) -> None:
    report = tmp_path / "report.csv"
    report.write_text(REPORT)
    lines = LINES.strip().splitlines()
    known = {words for name in COMMANDS if name not in DEVELOP for words, _ in leaves(name)} - OTHERS
    assert {
        words for words in known if not any(f"{line} ".startswith(f"{words} ") for line in lines)
    } == set()
    environment = python_environment(
        DATABASE_URL=empty, REDIS_URL=redis_url, STATE_DIR=str(tmp_path), SECRETS_KEYS=f"first:{'A' * 43}="
    )
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", BESIDE),
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    words = [line.replace("REPORT", str(report)).split() for line in lines]
    out, _ = await process.communicate(json.dumps(words).encode())
    told = dict(zip(lines, json.loads(out), strict=True))
    assert {line: said for line, said in told.items() if said != [FAILURE, NONE]} == {}


@pytest.mark.parametrize(
    ("line", "gone"), [("worker", "SELECT 1"), ("archive list", "DROP TABLE partitions CASCADE")]
)
async def test_an_older_schema_is_told_in_a_sentence(
    line: str, gone: str, database_url: str, redis_url: str
) -> None:
    owner = await asyncpg.connect(database_url)
    name = await owner.fetchval(
        "WITH newest AS (SELECT max(name) AS name FROM schema_migrations WHERE name LIKE 'migrations/%')"
        " DELETE FROM schema_migrations USING newest WHERE schema_migrations.name = newest.name RETURNING newest.name"
    )
    await owner.execute(gone)
    await owner.close()
    done = await tallystick(*line.split(), DATABASE_URL=database_url, REDIS_URL=redis_url)
    sentence = f"is older than this program: {name} was not applied. Run `tallystick migrate` first."
    assert (done.returncode, sentence in done.stderr) == (FAILURE, True), done.stderr


def test_texts_that_are_kept_have_bounds() -> None:
    found = {
        f"{words} {option.name}": option
        for name in COMMANDS
        if name not in DEVELOP
        for words, command in leaves(name)
        for option in command.params
        if option.name in KEPT
        and (words, option.name) not in {("dlq list", "reason"), ("dlq replay", "reason")}
    }
    assert {"recovered reason", "closing move reason", "dlq discard reason"} <= found.keys()
    assert [name for name, option in found.items() if not isinstance(option.type, Text)] == []
    reason, description = found["recovered reason"].type, found["keys create description"].type
    for text in ("x", "x" * 500, "two\nlines"):
        assert reason.convert(text, None, None) == text
    assert description.convert("", None, None) == ""
    for text in ("", "x" * 501, " \n", "\udcff"):
        code, sentence = told_by(["recovered", "--reason", text])
        assert (code, "Invalid value for '--reason'" in sentence) == (2, True), (text, sentence)
