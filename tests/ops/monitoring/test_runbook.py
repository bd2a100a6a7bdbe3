"""The runbook's commands against the program, its statements against the schema, its figures against the metrics."""

import re
import shlex
from importlib import import_module

import asyncpg
import click
import pytest

from ops.commands.table import COMMANDS
from tests.ops.monitoring.asked import ROOT
from tests.ops.monitoring.test_rules_and_boards import exported

pytestmark = pytest.mark.shared

RUNBOOK = (ROOT / "docs" / "RUNBOOK.md").read_text()
# Words of the runbook that stand for somebody's own, with such a one.
STAND_INS = {"ID": "01938a5e-1c3b-7d42-9d6f-2f1f6c1f2a10", "$PAYMENT": "01938a5e-1c3b-7d42-9d6f-2f1f6c1f2a10"}


def commands(text: str) -> list[str]:
    """Return each `tallystick ...` of a document, inline or on a line of its own, without comments and pipes."""
    inline = re.findall(r"`(tallystick [^`]*)`", text)
    lines = re.findall(
        r"^(tallystick .*)$", "\n".join(re.findall(r"```sh\n(.*?)```", text, re.DOTALL)), re.MULTILINE
    )
    return sorted({re.split(r"\s+#|\s+\|", found)[0] for found in inline + lines})


def parse(line: str) -> None:
    """Parse a command as far as it goes before it runs. Raises ClickException for a mistake in it."""
    _, name, *words = (STAND_INS.get(word, word) for word in shlex.split(line))
    if name not in COMMANDS:
        raise click.UsageError(f"There is no {name}.")
    module, _, attribute = COMMANDS[name][0].partition(":")
    command: click.Command = getattr(import_module(module), attribute)
    parent = None
    while True:
        try:
            parent = command.make_context(name, words, parent=parent)
        except click.exceptions.Exit:  # --help
            return
        words = [*getattr(parent, "_protected_args", ()), *parent.args]
        if not isinstance(command, click.Group) or not words:
            return
        found, subcommand, words = command.resolve_command(parent, words)
        assert subcommand is not None
        name, command = str(found), subcommand


def test_commands_and_options_of_the_runbook_exist(capsys: pytest.CaptureFixture[str]) -> None:
    found = commands(RUNBOOK)
    wrong = {}
    for line in found:
        try:
            parse(line)
        except click.ClickException as error:
            wrong[line] = error.format_message()
    assert wrong == {}
    assert len(found) > 20


@pytest.mark.parametrize(
    "line", ["tallystick dlq shwo ID", "tallystick dlq show", "tallystick reconcile --fix", "tallystick x"]
)
def test_a_wrong_command_is_noticed(line: str) -> None:
    with pytest.raises(click.ClickException):
        parse(line)


async def test_statements_of_the_runbook_fit_the_schema(database_url: str) -> None:
    statements = re.findall(r"\bsql \"([^\"$]+)\"", RUNBOOK)
    assert len(statements) > 8
    connection = await asyncpg.connect(database_url)
    try:
        for statement in statements:
            await connection.prepare(statement)
    finally:
        await connection.close()


def test_metrics_of_the_runbook_are_exported() -> None:
    names = exported()
    asked = {
        one
        for quoted, word in re.findall(r"(?:^|`)metrics (?:'([^']+)'|(\w+))", RUNBOOK, re.MULTILINE)
        for one in re.sub(r"\\\{.*|\([^)]*\)", "", quoted or word).split("|")
    }
    assert len(asked) > 20
    assert {one for one in asked if not any(name.startswith(one) for name in names)} == set()
