"""The settings as they are documented: `.env.example` is what the code prints, and every key is described."""

import subprocess
import sys
from pathlib import Path

from core.settings import Settings, load_settings
from core.settings.example import example
from core.settings.kinds import names_of
from core.settings.load import GROUPS
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
