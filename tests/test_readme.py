"""The README's examples are run as they stand, against the service that its first command starts."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
START_LINES = 200

_UUID = re.compile(r"[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}")
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?Z")


def console_steps() -> list[tuple[str, str]]:
    """Return each command of the console blocks with the output that is shown below it."""
    steps: list[tuple[str, list[str]]] = []
    for block in re.findall(r"^```console\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL):
        for line in block.splitlines():
            if line.startswith("$ "):
                steps.append((line[2:], []))
            else:
                steps[-1][1].append(line)
    return [(command, "\n".join(shown)) for command, shown in steps]


def masked(text: str) -> str:
    """Return `text` without the parts that differ from run to run."""
    return _TIME.sub("TIME", _UUID.sub("UUID", text.replace("\r", ""))).strip()


@pytest.fixture
def running(tmp_path: Path) -> Iterator[tuple[str, str]]:
    """Run `tallystick up` on a free port; return the URL and the key that it prints."""
    environment = {"PATH": "/usr/bin:/bin", "APP_PORT": "18321", "STATE_DIR": str(tmp_path / "state")}
    up = subprocess.Popen(
        [sys.executable, "-m", "ops.cli", "up"], cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True
    )
    try:
        assert up.stdout is not None
        seen = ""
        for _ in range(START_LINES):
            seen += up.stdout.readline()
            if "curl " in seen:
                break
        url = re.search(r"API\s+(http://\S+)", seen)
        key = re.search(r"tsk_[A-Za-z0-9_-]+", seen)
        assert url is not None, seen
        assert key is not None, seen
        yield url[1], key[0]
    finally:
        up.send_signal(signal.SIGINT)
        assert up.wait(timeout=30) == 0
        if up.stdout is not None:
            up.stdout.close()


def test_the_readmes_examples_do_what_it_shows(running: tuple[str, str]) -> None:
    url, key = running
    steps = console_steps()
    assert len(steps) > 5
    assert steps[0][0].startswith("export API=")
    script = [f"export API={url} KEY={key}"]
    for number, (command, _) in enumerate(steps[1:], 1):
        script += [command, f"echo; echo '=== {number}'"]
    run = subprocess.run(
        ["bash", "-c", "\n".join(script)], capture_output=True, text=True, check=True, timeout=60
    )
    outputs = re.split(r"=== \d+\n", run.stdout)[: len(steps) - 1]
    for (command, shown), output in zip(steps[1:], outputs, strict=True):
        assert masked(output) == masked(shown), command


def test_the_commands_that_the_readme_names_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"make ([a-z0-9-]+)", README):
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), target
    for path in re.findall(r"\]\(([\w./-]+)\)", README):
        assert (ROOT / path).exists(), path
