"""The examples of the README and of the tours are run as they stand, against one service that is started for them.

`python -m tests.test_readme README.md docs/tours/*.md` writes what their commands print now.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

from ops.process import choose_port
from tests.copies import in_memory
from tests.handlers.pay_page.chromium import find_chromium, open_tab

# The shell of a person who reads: a service of its own, and a hundred programs.
pytestmark = pytest.mark.drill

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.handlers.pay_page.chromium import Tab

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
TOURS = sorted((ROOT / "docs" / "tours").glob("*.md"))
START_LINES = 200
# A walk through a page that asks more often than this has lost its way.
MOST_PAGES = 10

_UUID = re.compile(r"[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}")
_TIME = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:\.\d+)?Z?")
_CODE = re.compile(r"\b[A-Za-z0-9_-]{32}\b")
_URL = re.compile(r"http://127\.0\.0\.1:\d+")
_DIGEST = re.compile(r"\b[0-9a-f]{64}\b")
_SECRET = re.compile(r"\b(?:whsec|tsk|msg)_[\w+/=-]+")
_NUMBER = re.compile(r'(?<="id":)\d+')


class Running(NamedTuple):
    """A `tallystick up`: what it said, and the variables of a person beside it."""

    said: str
    environment: dict[str, str]

    def shown(self, name: str) -> str:
        found = re.search(rf"^  {name} +(\S+)$", self.said, re.MULTILINE)
        assert found is not None, self.said
        return found[1]


def console_steps(text: str) -> list[tuple[str, str]]:
    """Return each command of the console blocks with the output that is shown below it."""
    steps: list[tuple[str, list[str]]] = []
    for block in re.findall(r"^```console\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL):
        for line in block.splitlines():
            if line.startswith("$ "):
                steps.append((line[2:], []))
            else:
                steps[-1][1].append(line)
    return [(command, "\n".join(shown)) for command, shown in steps]


def masked(text: str) -> str:
    """Return `text` without the parts that differ from run to run."""
    text = text.replace("\r", "")
    for pattern in (_UUID, _TIME, _DIGEST, _SECRET, _CODE, _URL, _NUMBER):
        text = pattern.sub("SOME", text)
    return text.strip()


def perform(steps: list[tuple[str, str]], environment: dict[str, str]) -> list[str]:
    """Run the commands in one shell, as a person does, and return what each of them printed."""
    # A checkout's `./tallystick` would set the checkout up; this one is set up already.
    script = [f'./tallystick() {{ "{sys.executable}" -m ops.cli "$@"; }}']
    for number, (command, _) in enumerate(steps):
        script += [command, f"echo; echo '=== {number}'"]
    run = subprocess.run(
        ["bash", "-c", "\n".join(script)], capture_output=True, text=True, check=False, timeout=100, cwd=ROOT,
        env=environment,
    )  # fmt: skip
    outputs = re.split(r"=== \d+\n", run.stdout)
    assert len(outputs) == len(steps) + 1, run.stdout + run.stderr
    return outputs[:-1]


@contextmanager
def service() -> Iterator[Running]:
    """Run `tallystick up` on a free port."""
    # Root's servers run as another user, to whom pytest's own folders are closed.
    state = Path(tempfile.mkdtemp(prefix="tallystick-readme-", dir=in_memory()))
    state.chmod(0o755)
    environment = {
        "PATH": os.environ["PATH"], "APP_PORT": str(choose_port(None)), "STATE_DIR": str(state),
        "SSL_CERT_FILE": os.devnull,  # as in tests/conftest.py
    }  # fmt: skip
    up = subprocess.Popen(
        [sys.executable, "-m", "ops.cli", "up"], cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True
    )
    try:
        assert up.stdout is not None
        said = ""
        for _ in range(START_LINES):
            said += up.stdout.readline()
            if "curl " in said:
                break
        yield Running(said, environment)
    finally:
        up.send_signal(signal.SIGINT)
        assert up.wait(timeout=60) == 0
        if up.stdout is not None:
            up.stdout.close()
        shutil.rmtree(state, ignore_errors=True)


@pytest.fixture(scope="module")
def running() -> Iterator[Running]:
    """One service for all tests here."""
    with service() as found:
        yield found


@pytest.fixture(scope="module")
def tour(running: Running) -> list[str]:
    """The output of the README's commands."""
    return perform(console_steps(README), running.environment)


def test_the_readmes_examples_do_what_it_shows(tour: list[str]) -> None:
    steps = console_steps(README)
    assert len(steps) > 10
    assert steps[0][0] == 'eval "$(./tallystick env)"'
    for (command, shown), output in zip(steps, tour, strict=True):
        assert masked(output) == masked(shown), command


@pytest.mark.parametrize("path", TOURS, ids=lambda path: path.stem)
def test_the_examples_of_a_tour_do_what_it_shows(path: Path, running: Running) -> None:
    steps = console_steps(path.read_text())
    assert len(steps) >= 3
    for (command, shown), output in zip(steps, perform(steps, running.environment), strict=True):
        assert masked(output) == masked(shown), command


async def walk(tab: Tab) -> list[str]:
    """Fill in what the page asks for and press its first button, until it says that it is paid; return the headings."""
    headings = []
    for _ in range(MOST_PAGES):
        headings.append(str(await tab.run("document.querySelector('h1').textContent")))
        if headings[-1] == "Paid":
            break
        for field, text in (("phone", "+963944000002"), ("otp", "123456")):
            if await tab.run(f"!!document.getElementById('{field}')"):
                await tab.run(f"document.getElementById('{field}').value = '{text}'")
        await tab.go(lambda: tab.run("void document.querySelector('main form button').click()"))
    return headings


async def test_the_readmes_step_in_the_browser(
    running: Running, tour: list[str], record_property: Callable[[str, object], None]
) -> None:
    program = find_chromium()
    if program is None:
        record_property("left_out", "the README's step in the browser: no Chromium is on the PATH")
        return
    async with open_tab(program) as tab:
        await tab.go(lambda: tab.call("Page.navigate", url=tour[-1].strip()))
        headings = await walk(tab)
        assert headings[-1] == "Paid", await tab.run("document.body.innerText")
        # The documentation takes the key that `up` printed, keeps it in the tab and takes it out of the address.
        await tab.go(lambda: tab.call("Page.navigate", url=running.shown("Docs")))
        assert await tab.run(LOADED) == ["Accounts", "Transfers", "Holds", "Closed dates", "Feed"]
        assert await tab.run("location.hash") == ""
        assert await tab.run("ui.authSelectors.authorized().toJS().bearer.value") == running.shown("API key")
        await tab.go(
            lambda: tab.run(
                "void document.querySelector('nav a[href=wallets], nav a[href$=wallets]').click()"
            )
        )
        assert "auth" in [tag.lower() for tag in await tab.run(LOADED)]


# The tags of the document, once it is shown.
LOADED = """new Promise((resolve) => {
  const look = () => {
    const tags = [...document.querySelectorAll(".opblock-tag")].map((tag) => tag.dataset.tag);
    tags.length ? resolve(tags) : setTimeout(look, 50);
  };
  look();
})"""


def test_the_examples_find_the_service_that_runs_here(running: Running, tmp_path: Path) -> None:
    # The examples of an installed program: it stands on the PATH, and no address is set.
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    program = tmp_path / "bin" / "tallystick"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\ncd "{ROOT}" && exec "{sys.executable}" -m ops.cli "$@"\n')
    program.chmod(0o755)
    environment = {**running.environment, "PATH": f"{program.parent}:{running.environment['PATH']}"}
    for script in ("e2e.sh", "cash_demo.sh"):
        done = subprocess.run(
            [tmp_path / "examples" / script], cwd=tmp_path, env=environment, capture_output=True, text=True,
            check=False, timeout=100,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr


def test_the_commands_that_the_readme_names_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"make ([a-z0-9-]+)", README):
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), target
    for path in re.findall(r"\]\(([\w./-]+)\)", README):
        assert (ROOT / path).exists(), path


def rewrite(path: Path, running: Running) -> None:
    """Put what the commands of a document print now in the place of what it shows, unless only ids and times differ."""
    text = path.read_text()
    steps = console_steps(text)
    outputs = iter(
        shown if masked(shown) == masked(printed) else _URL.sub("http://127.0.0.1:8080", printed.strip())
        for (_, shown), printed in zip(steps, perform(steps, running.environment), strict=True)
    )

    def shown(block: re.Match[str]) -> str:
        commands = [line for line in block[1].splitlines() if line.startswith("$ ")]
        lines = [line for command in commands for line in (command, next(outputs)) if line]
        return "```console\n" + "\n".join(lines) + "\n```"

    path.write_text(re.sub(r"^```console\n(.*?)^```", shown, text, flags=re.MULTILINE | re.DOTALL))


if __name__ == "__main__":
    with service() as found:
        for name in sys.argv[1:]:
            rewrite(Path(name), found)
