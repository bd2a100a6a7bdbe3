"""The settings as they are documented: `.env.example` is what the code prints, every key is described, and read."""

import ast
import subprocess
import sys
from pathlib import Path

from core.settings import Settings, load_settings
from core.settings.example import example
from core.settings.kinds import names_of
from core.settings.load import GROUPS
from core.settings.retired import WITHOUT_EFFECT
from tests.core.test_settings import ROOT, defaults


def test_the_example_file_is_the_printed_one() -> None:
    printed = subprocess.run(
        [sys.executable, "-m", "core.settings"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    assert printed == (ROOT / ".env.example").read_text()
    assert printed == example()


def test_the_example_file_has_every_key_with_its_default(tmp_path: Path) -> None:
    lines = [
        line
        for line in (ROOT / ".env.example").read_text().splitlines()
        if line.startswith("#") and "=" in line
    ]
    keys = [line[1:] for line in lines if line[1].isupper()]
    names = {
        names_of(attribute, field)[0] for group in GROUPS for attribute, field in group.model_fields.items()
    }
    assert {key.partition("=")[0] for key in keys} == names
    file = tmp_path / ".env"
    file.write_text("\n".join(keys).replace("ENV=dev", "ENV=test", 1))
    assert load_settings(env_file=file) == defaults()


def test_every_key_is_described_and_every_number_bounded() -> None:
    for attribute, field in Settings.model_fields.items():
        assert field.description, attribute
        if field.annotation in {int, float, int | None}:
            assert any(hasattr(rule, "le") for rule in field.metadata), attribute


def keys_read() -> set[str]:
    """The attributes that are taken from something called settings outside of their package, and ports of listeners."""
    nodes = [
        node
        for package in ("core", "handlers", "jobs", "ops")
        for path in (ROOT / package).rglob("*.py")
        if ROOT / "core" / "settings" not in path.parents
        for node in ast.walk(ast.parse(path.read_text()))
    ]
    taken = {
        node.attr
        for node in nodes
        if isinstance(node, ast.Attribute) and ast.unparse(node.value).endswith("settings")
    }
    ports = {
        ast.literal_eval(node.args[0])
        for node in nodes
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "Listener"
    }
    return taken | ports


def test_every_key_is_read_or_tells_that_it_is_not() -> None:
    keys = {attribute for group in GROUPS for attribute in group.model_fields}
    idle = {row.attribute for row in WITHOUT_EFFECT}

    assert keys - keys_read() == idle
