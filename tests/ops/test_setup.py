"""`./tallystick` in a checkout of its own, with a package index that is a folder of two wheels."""

import io
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from ops.setup import bootstrap
from ops.setup.progress import Progress
from tests.ops.checkouts import Checkout, make_checkout, wheel

pytestmark = pytest.mark.drill

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("core", "handlers", "jobs", "loadtests", "ops", "sql")


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return make_checkout(tmp_path)


@pytest.fixture(scope="module")
def ready(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """A checkout that is set up; a test may only run commands in it."""
    made = make_checkout(tmp_path_factory.mktemp("ready"))
    first = made.run("version", "a b")
    assert (first.returncode, first.stdout) == (0, "alpha 1.0 version a b\n"), first.stderr
    assert "installing" in first.stderr
    # Nothing is to be had any more.
    made.wheels = made.wheels.rename(made.wheels.with_name("used wheels")).with_name("wheels")
    return made


@pytest.fixture
def installed(ready: Checkout, tmp_path: Path) -> Iterator[Checkout]:
    """The checkout that is set up, which the test may change, with a package index of its own."""
    # An environment works at its own path only: the copy is what is kept.
    kept = ready.root.rename(ready.root.with_name("kept"))
    shutil.copytree(kept, ready.root, symlinks=True)
    wheels = shutil.copytree(ready.wheels.with_name("used wheels"), tmp_path / "wheels")
    yield Checkout(ready.root, ready.bin, wheels)
    shutil.rmtree(ready.root, ignore_errors=True)
    kept.rename(ready.root)


def test_a_later_run_only_starts_the_command(ready: Checkout) -> None:
    done = ready.run("version", "a b")

    assert (done.returncode, done.stdout, done.stderr) == (0, "alpha 1.0 version a b\n", "")


def test_the_command_in_the_environment_runs_by_itself(ready: Checkout) -> None:
    command = ready.root / ".venv" / "bin" / "tallystick"

    done = subprocess.run([command, "version"], cwd="/", capture_output=True, text=True, check=True)

    assert done.stdout == "alpha 1.0 version\n"


def test_it_may_be_called_through_a_link_and_from_anywhere(ready: Checkout) -> None:
    link = ready.bin / "ts"
    link.symlink_to(ready.root / "tallystick")

    done = subprocess.run(
        [link, "version"], cwd="/", env=ready.environment(), capture_output=True, text=True, check=True
    )

    assert done.stdout == "alpha 1.0 version\n"


def test_the_exit_status_is_the_commands_own(ready: Checkout) -> None:
    assert ready.run("fail").returncode == 7


def test_a_changed_lock_file_is_installed(installed: Checkout) -> None:
    installed.lock(wheel(installed.wheels, "2.0"))

    assert installed.run("version").stdout == "alpha 2.0 version\n"


def test_a_file_with_another_hash_is_refused_and_what_was_there_still_works(installed: Checkout) -> None:
    installed.lock("alpha==2.0 --hash=sha256:" + "0" * 64 + "\n", name="dev")
    wheel(installed.wheels, "2.0")

    refused = installed.run("setup", "--dev")
    still = installed.run("version", PIP_FIND_LINKS="/nonexistent")

    assert refused.returncode == 1
    assert "HASH" in refused.stderr
    assert (still.returncode, still.stdout, still.stderr) == (0, "alpha 1.0 version\n", "")


def test_a_set_up_without_a_network_can_be_tried_again(checkout: Checkout) -> None:
    failed = checkout.run("version", PIP_FIND_LINKS="/nonexistent")
    again = checkout.run("version")

    assert failed.returncode == 1
    assert "PIP_INDEX_URL" in failed.stderr
    assert again.stdout == "alpha 1.0 version\n"
    assert "making" not in again.stderr


def test_two_started_together_set_up_once(checkout: Checkout) -> None:
    pair = [checkout.start("version"), checkout.start("version")]
    outputs = [process.communicate(timeout=100) for process in pair]

    assert [process.returncode for process in pair] == [0, 0], outputs
    assert [out for out, _ in outputs] == ["alpha 1.0 version\n"] * 2
    assert sum("installing" in err for _, err in outputs) == 1


def test_a_set_up_that_was_killed_is_made_anew(checkout: Checkout) -> None:
    with socket.create_server(("127.0.0.1", 0)) as index:
        index.settimeout(60)
        url = f"http://127.0.0.1:{index.getsockname()[1]}/"
        process = checkout.start("version", PIP_NO_INDEX="0", PIP_INDEX_URL=url, PIP_FIND_LINKS="")
        connection, _ = index.accept()
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate(timeout=60)
        connection.close()
    leftover = checkout.root / ".venv" / "half-written"
    leftover.touch()

    assert checkout.run("version").stdout == "alpha 1.0 version\n"
    assert not leftover.exists()


def test_a_moved_checkout_gets_a_new_environment(installed: Checkout) -> None:
    installed.root = installed.root.rename(installed.root.with_name("moved"))

    assert installed.run("version").stdout == "alpha 1.0 version\n"
    assert str(installed.root) in (installed.root / ".venv" / "bin" / "tallystick").read_text()


def test_an_environment_of_another_tool_is_used(checkout: Checkout) -> None:
    venv = checkout.root / ".venv"
    subprocess.run([checkout.bin / "python3", "-m", "venv", "--without-pip", venv], check=True)
    (venv / "theirs").touch()

    assert checkout.run("version").stdout == "alpha 1.0 version\n"
    assert (venv / "theirs").exists()


def test_a_broken_environment_of_another_tool_is_not_removed(checkout: Checkout) -> None:
    theirs = checkout.root / ".venv" / "theirs"
    theirs.parent.mkdir()
    theirs.touch()

    refused = checkout.run("version")

    assert refused.returncode == 1
    assert "made by another tool" in refused.stderr
    assert theirs.exists()


def test_an_unsuitable_python_is_passed_over(checkout: Checkout) -> None:
    python = checkout.bin / "python3"
    python.rename(checkout.bin / "python3.12")
    python.write_text("#!/bin/sh\nexit 1\n")
    python.chmod(0o755)

    assert checkout.run("version").stdout == "alpha 1.0 version\n"


def test_without_a_suitable_python_it_says_what_is_needed(checkout: Checkout) -> None:
    (checkout.bin / "python3").unlink()

    without = checkout.run("up")
    named = checkout.run("up", PYTHON="/bin/sh")

    assert (without.returncode, named.returncode) == (1, 1)
    assert "no CPython 3.11, 3.12, 3.13 or 3.14 was found" in without.stderr
    assert "PYTHON=/bin/sh is not CPython" in named.stderr


def test_a_checkout_of_somebody_else_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Called directly, for a test that runs as root may write anywhere."""
    monkeypatch.setattr(bootstrap, "ROOT", tmp_path)
    monkeypatch.setattr(bootstrap, "VENV", tmp_path / ".venv")
    monkeypatch.setattr(bootstrap, "STAMP", tmp_path / ".venv" / "tallystick-setup.json")
    monkeypatch.setattr(os, "access", lambda *_: False)

    with pytest.raises(bootstrap.SetupError, match="you may not write to"):
        bootstrap.ensure("runtime")


def test_pip_is_not_led_elsewhere_by_the_callers_habits(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PIP_TARGET", "/elsewhere")
    monkeypatch.setenv("PIP_PYTHON", "/elsewhere/python")
    monkeypatch.setenv("TARGET", "/mine")
    monkeypatch.setenv("PIP_USER", "1")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1/simple")
    monkeypatch.setenv("HOME", str(tmp_path / "missing"))

    environment = bootstrap.environment()

    assert {"PIP_TARGET", "PIP_PYTHON"} & set(environment) == set()
    assert environment["TARGET"] == "/mine"
    assert environment["PIP_USER"] == "0"
    assert environment["PIP_INDEX_URL"] == "http://127.0.0.1/simple"
    assert environment["PIP_NO_CACHE_DIR"] == "1"


@pytest.mark.parametrize("option", ["-h", "--help"])
@pytest.mark.parametrize("word", ["setup", "test", "drill", "check"])
def test_help_for_the_words_of_a_checkout_comes_before_any_set_up(
    word: str, option: str, tmp_path: Path
) -> None:
    checkout = make_checkout(tmp_path)

    done = checkout.run(word, option)

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"Usage: ./tallystick {word} [")
    assert not (checkout.root / ".venv").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "out", "err"),
    [
        ([], 0, "Operate:\n  verify ", ""),
        (["--help"], 0, "Develop:\n", ""),
        (["-h"], 0, "setup [--dev]", ""),
        (["keys", "create", "--help"], 0, "Create, list and revoke API keys.", ""),
        (["up", "--workers", "2", "-h"], 0, "Usage: ./tallystick up ", ""),
        (["load", "--suite", "qr", "--help"], 0, "Usage: ./tallystick load [OPTIONS]", ""),
        (["kyes", "--help"], 0, "Usage: ./tallystick [OPTIONS] COMMAND", ""),
        (["kyes", "list"], 2, "", "No such command 'kyes'. Did you mean 'keys'?"),
        (["chekc"], 2, "", "Did you mean 'check'"),
        (["qqqq"], 2, "", "No such command 'qqqq'. `./tallystick --help` lists them all."),
    ],
)
def test_help_and_unknown_words_install_nothing(
    arguments: list[str], code: int, out: str, err: str, tmp_path: Path
) -> None:
    checkout = make_checkout(tmp_path)
    (checkout.root / "ops" / "commands").mkdir()
    shutil.copy(ROOT / "ops" / "commands" / "table.py", checkout.root / "ops" / "commands")

    done = checkout.run(*arguments)

    assert done.returncode == code, done.stderr
    assert out in done.stdout
    assert err in done.stderr
    assert not (checkout.root / ".venv").exists()


class Screen(io.StringIO):
    """Standard error, which may be a terminal."""

    def __init__(self, *, terminal: bool) -> None:
        super().__init__()
        self.terminal = terminal

    def isatty(self) -> bool:
        return self.terminal


@pytest.mark.parametrize("terminal", [True, False])
def test_the_progress_is_told_on_a_terminal_and_in_a_log(*, terminal: bool) -> None:
    screen = Screen(terminal=terminal)
    progress = Progress(4, screen)
    for line in ("Collecting alpha==1.0\n", "  Downloading alpha\n", "Collecting beta==2.0 (from x)\n"):
        progress.read(line)
    progress.show()
    progress.read("Installing collected packages: alpha, beta\n")
    progress.show()

    told = screen.getvalue()
    assert "2 of up to 4: beta (0 s)" in told
    assert "2 of up to 4: unpacking and compiling (0 s)" in told
    assert ("[############............]" in told) is terminal
    assert ("\r" in told) is terminal


def test_check_names_what_it_does_not_know() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "ops" / "setup" / "check.py", "nosuch"],
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 2
    assert "no check is named nosuch; there are format, lint, types" in done.stderr


def test_a_built_distribution_carries_everything_that_is_read_at_run_time(tmp_path: Path) -> None:
    unread = shutil.ignore_patterns("__pycache__", "results")
    for package in PACKAGES:
        shutil.copytree(ROOT / package, tmp_path / package, ignore=unread)
    for file in ("pyproject.toml", "LICENSE", "README.md"):
        shutil.copy(ROOT / file, tmp_path)
    wanted = {
        path.relative_to(tmp_path).as_posix()
        for package in PACKAGES
        for path in (tmp_path / package).rglob("*.*")
    }

    subprocess.run(
        [sys.executable, "-c", "from setuptools import build_meta; build_meta.build_wheel('dist')"],
        cwd=tmp_path,
        capture_output=True,
        check=True,
    )

    (built,) = (tmp_path / "dist").iterdir()
    with zipfile.ZipFile(built) as archive:
        assert wanted - set(archive.namelist()) == set()


def test_a_test_that_hangs_ends_the_run_with_what_it_waits_for(tmp_path: Path) -> None:
    hanging = tmp_path / "test_hanging.py"
    hanging.write_text("import asyncio\n\nasync def test_it() -> None:\n    await asyncio.Event().wait()\n")
    options = [
        "-c",
        str(ROOT / "pyproject.toml"),
        "--rootdir",
        str(ROOT),
        "-p",
        "tests.conftest",
        "--timeout=1",
    ]
    run = subprocess.run(
        [sys.executable, "-m", "pytest", *options, hanging],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert run.returncode == 1
    assert re.search(rf"OUT OF TIME: .*::test_it\n.*\n  {re.escape(str(hanging))}:4\n", run.stderr), (
        run.stderr
    )
