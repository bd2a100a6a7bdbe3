"""The gates about packages: licences, weaknesses, and the summary of all gates."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ops.setup import gates, supply

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("license_", "allowed"),
    [
        ("MIT", True),
        ("Apache-2.0 AND BSD-2-Clause", True),
        ("Mozilla Public License 2.0 (MPL 2.0)", True),
        ("MPL-2.0 AND (Apache-2.0 OR MIT)", True),
        ("GPL-3.0-only OR MIT", True),
        ("MIT; Apache Software License", True),
        ("GNU Lesser General Public License v3 (LGPLv3)", False),
        ("AGPL-3.0-or-later", False),
        ("MIT AND GPL-2.0-only", False),
        ("SSPL-1.0", False),
        ("UNKNOWN", False),
        ("", False),
    ],
)
def test_a_licence_is_harmless_or_wants_a_look(license_: str, *, allowed: bool) -> None:
    assert supply.harmless(license_) is allowed


@pytest.mark.parametrize(
    ("dependencies", "code", "told"),
    [
        ([{"name": "a", "version": "1", "vulns": []}], 0, "no weakness is known of 1 packages"),
        (
            [{"name": "a", "version": "1", "vulns": [{"id": "PYSEC-2026-1", "fix_versions": ["1.1"]}]}],
            1,
            "a 1: PYSEC-2026-1, mended in 1.1",
        ),
        ([{"name": "a", "version": "1", "vulns": [{"id": "X", "fix_versions": []}]}], 1, "no version yet"),
        (
            [{"name": "a", "version": "1", "vulns": []}, {"name": "b", "skip_reason": "gone"}],
            2,
            "1 packages: b",
        ),
    ],
)
def test_an_audit_without_an_answer_is_no_all_clear(
    dependencies: list[dict[str, Any]], code: int, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert supply.judged(dependencies) == code
    out = capsys.readouterr()
    assert told in out.out + out.err


@pytest.mark.drill
def test_every_package_of_the_lock_is_in_the_bill_and_has_a_harmless_licence() -> None:
    for gate in ("sbom", "licenses"):
        ran = subprocess.run(
            [sys.executable, ROOT / "ops" / "setup" / "supply.py", gate],
            check=False,
            capture_output=True,
            text=True,
        )
        assert (ran.returncode, gate) == (0, gate), ran.stderr
    bill = json.loads((ROOT / "build" / "sbom.json").read_text())
    names = {supply.normal(part["name"]) for part in bill["components"]}
    assert supply.locked() <= names
    assert all(part["version"] and part["externalReferences"] for part in bill["components"])


def test_the_summary_tells_each_gate(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    codes = {"check": 0, "licenses": 1, "sbom": 0, "audit": 2, "test": 0, "drill": 0}
    monkeypatch.setattr(
        gates, "_command", lambda name: [sys.executable, "-c", f"raise SystemExit({codes[name]})"]
    )
    assert gates.main([]) == 1
    told = {
        line.split()[0]: line.split()[1]
        for line in capsys.readouterr().out.splitlines()
        if line.endswith(" s")
    }
    assert told == {
        "check": "passed", "licenses": "failed", "sbom": "passed", "audit": "unknown", "test": "passed",
        "drill": "passed",
    }  # fmt: skip
    assert gates.main(["audit"]) == 0
    assert gates.main(["everything"]) == 2
