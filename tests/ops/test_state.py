"""What a person is told whose servers or state directory are not what the command needs, as processes of their own."""

import asyncio
import re
import shlex
import signal
import stat
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from core.settings import load_settings
from core.settings.example import example
from ops import process as processes
from ops.process import choose_port, python_environment
from ops.serving import metrics_folder
from ops.state import (
    ROOTS_STATE,
    Running,
    announced,
    operator_settings,
    overlooked_state,
    state_dir,
    state_lock,
)
from tests.commands import perform

Wait = Callable[..., Awaitable[Any]]
Start = Callable[..., Awaitable[Path]]

NEEDY = [["verify"], ["serve"], ["worker"], ["migrate"], ["keys", "list"], ["demo"]]


async def run(folder: Path, *arguments: str, **environment: str) -> tuple[int, str, str]:
    """Run a command in `folder`, where no .env lies."""
    done = await perform(arguments, environment, folder=folder)
    return done.returncode, done.stdout, done.stderr


@pytest.fixture
async def up_until_it_runs(state: Path, tmp_path: Path, eventually: Wait) -> AsyncIterator[Start]:
    """What starts `tallystick up`, waits for the call that it proposes, and returns the file of what it said."""
    started: list[asyncio.subprocess.Process] = []

    async def start(**environment: str) -> Path:
        said = tmp_path / "said"
        environment = {"APP_PORT": str(choose_port(None)), "STATE_DIR": str(state)} | environment
        with said.open("wb") as output:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "ops.cli",
                "up",
                stdout=output,
                stderr=output,
                env=python_environment(**environment),
                cwd=tmp_path,
            )
        started.append(process)
        await eventually(lambda: "currency" in said.read_text() or process.returncode is not None, timeout=90)
        assert process.returncode is None, said.read_text()
        return said

    yield start
    for process in started:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
            await asyncio.wait_for(process.wait(), 60)


@pytest.mark.parametrize("arguments", NEEDY, ids=lambda words: words[0])
async def test_who_set_nothing_is_told_where_a_running_instance_was_looked_for(
    arguments: list[str], tmp_path: Path
) -> None:
    code, _, err = await run(tmp_path, *arguments, STATE_DIR=str(tmp_path / "other"))
    assert code == 2
    words = " ".join(err.split())
    assert f"no `tallystick up` runs on {tmp_path}/other" in words
    assert "set STATE_DIR" in words
    assert "refused" not in words


async def test_all_that_is_missing_is_told_at_once(tmp_path: Path) -> None:
    _, _, err = await run(tmp_path, "serve", STATE_DIR=str(tmp_path))
    assert err.startswith("tallystick: DATABASE_URL unset, REDIS_URL unset, and no `tallystick up` runs on ")


@pytest.mark.parametrize("arguments", [["up"], ["verify"], ["load"]], ids=lambda words: words[0])
@pytest.mark.parametrize(
    ("folder", "reason"),
    [("file", "Not a directory"), ("file/below", "Not a directory"), ("~nobodys", "home directory")],
)
async def test_every_command_says_the_same_of_a_state_directory_that_cannot_be_used(
    arguments: list[str], folder: str, reason: str, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    code, _, err = await run(tmp_path, *arguments, STATE_DIR=folder)
    assert code in {1, 2}
    words = " ".join(err.split())
    assert re.search(rf"The state directory \S*{folder} \(STATE_DIR\) cannot be used: .*{reason}", words), err
    assert "Traceback" not in err


async def test_up_names_the_setting_of_a_database_it_cannot_reach_and_starts_nothing(state: Path) -> None:
    code, out, err = await run(
        state, "up", STATE_DIR=str(state), DATABASE_URL="postgresql://u:hunter2@127.0.0.1:1/x"
    )
    assert (code, out) == (1, "")
    assert err == (
        "tallystick: PostgreSQL at postgresql://u:***@127.0.0.1:1/x (DATABASE_URL) cannot be reached: "
        "Connection refused.\n"
    )
    assert not list(state.glob("valkey-*"))


@pytest.mark.parametrize(
    "arguments", [["migrate"], ["migrate", "--check"], ["verify"], ["keys", "list"]], ids=" ".join
)
async def test_commands_name_the_setting_of_a_database_they_cannot_reach(
    arguments: list[str], tmp_path: Path
) -> None:
    code, out, err = await run(tmp_path, *arguments, DATABASE_URL="postgresql://u:hunter2@127.0.0.1:1/x")
    assert (code, out) == (1, "")
    assert err.endswith("127.0.0.1:1/x (DATABASE_URL) cannot be reached: Connection refused.\n")
    assert "hunter2" not in err


@pytest.mark.parametrize(
    ("arguments", "name"), [(["up"], "DB_URL"), (["migrate"], "PAYMENTS_DB_URL"), (["verify"], "DB_URL")]
)
async def test_the_name_is_the_one_that_was_set(arguments: list[str], name: str, tmp_path: Path) -> None:
    address = {name: "postgresql+asyncpg://u:hunter2@127.0.0.1:1/x"}
    code, _, err = await run(tmp_path, *arguments, STATE_DIR=str(tmp_path), **address)
    assert code == 1
    assert err.endswith(f"127.0.0.1:1/x ({name}) cannot be reached: Connection refused.\n")


async def test_up_says_of_a_database_that_does_not_let_it_in_what_is_wrong(
    database_url: str, tmp_path: Path
) -> None:
    code, _, err = await run(tmp_path, "up", STATE_DIR=str(tmp_path), DATABASE_URL=f"{database_url}_missing")
    assert code == 1
    assert re.search(r"\(DATABASE_URL\) cannot be reached: database .* does not exist\.$", err.strip())


@pytest.mark.drill
async def test_up_warns_of_a_redis_it_cannot_reach(database_url: str, up_until_it_runs: Start) -> None:
    said = await up_until_it_runs(
        DATABASE_URL=database_url, REDIS_URL="redis://:hunter2@127.0.0.1:1/0", APP_HOST="::1"
    )
    text = said.read_text()
    warning = "Redis at redis://:***@127.0.0.1:1/0 (REDIS_URL) cannot be reached: Connection refused."
    assert text.count(warning) == 1
    # And the call that it proposes can be pasted into a shell that takes brackets for a pattern.
    call = shlex.split(text.partition("  curl ")[2].replace("\\\n", " "))
    assert call[0].startswith("http://[::1]:")
    assert f"curl '{call[0]}' " in text


async def test_an_instance_that_made_no_key_is_not_said_to_be_missing(tmp_path: Path) -> None:
    running = Running("http://127.0.0.1:1", "", "", api_key="", stripe_signing_secret="")
    with state_lock(tmp_path), announced(tmp_path, running):
        code, _, err = await run(tmp_path, "demo", STATE_DIR=str(tmp_path))
        assert (
            code,
            "no API key is known for http://127.0.0.1:1: set TALLYSTICK_TOKEN, or give --token" in err,
        ) == (2, True)
        code, _, err = await run(tmp_path, "demo", "--api-key", "tsk_x", STATE_DIR=str(tmp_path))
        assert (code, "set STRIPE_SIGNING_SECRET to the service's" in " ".join(err.split())) == (2, True)


@pytest.mark.parametrize(
    ("given", "taken"),
    [
        ({}, "http://127.0.0.1:8003"),
        ({"database_url": "postgresql://u@127.0.0.1:1/here"}, "http://127.0.0.1:8003"),
        (
            {"database_url": "postgresql://u@127.0.0.1:1/here", "redis_url": "redis://127.0.0.1:1/0"},
            "http://127.0.0.1:8003",
        ),
        ({"simulator_url": "http://127.0.0.1:9"}, "http://127.0.0.1:9"),
        (
            {"database_url": "postgresql://u@127.0.0.1:1/other", "redis_url": "redis://127.0.0.1:1/0"},
            "",
        ),
    ],
)
def test_a_command_knows_the_providers_of_the_instance_whose_database_it_uses(
    given: dict[str, Any], taken: str, tmp_path: Path
) -> None:
    running = Running(
        "http://127.0.0.1:1", "postgresql://u@127.0.0.1:1/here", "redis://127.0.0.1:1/0", "", "",
        handed={"simulator_url": "http://127.0.0.1:8003", "pay_page_cards": "true"},
    )  # fmt: skip
    with state_lock(tmp_path), announced(tmp_path, running):
        settings = operator_settings(state_dir=str(tmp_path), **given)
    assert settings.simulator_url == taken
    assert settings.pay_page_cards == bool(taken)


def test_databases_in_the_checkout_are_not_overlooked(tmp_path: Path) -> None:
    checkout, roots = tmp_path / "checkout", tmp_path / "roots"
    settings = load_settings(env_file=None)
    assert overlooked_state(settings, roots, checkout) is None
    (checkout / ".state" / "postgres-17").mkdir(parents=True)
    assert overlooked_state(settings, roots, checkout) == checkout / ".state"
    assert overlooked_state(settings, checkout / ".state", checkout) is None
    asked_for = load_settings(env_file=None, state_dir=str(roots))
    assert overlooked_state(asked_for, state_dir(asked_for), checkout) is None


def test_where_roots_state_is_stands_in_the_example_of_the_settings() -> None:
    assert f"{ROOTS_STATE}/" in example()


def test_logs_are_their_owners_alone_and_set_aside_when_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "LOG_LIMIT_BYTES", 100)
    log = tmp_path / "logs" / "api.log"
    log.parent.mkdir()
    log.touch(mode=0o644)
    with processes.open_log(log) as writer:
        assert stat.S_IMODE(log.stat().st_mode) == 0o600
        writer.write(b"a" * 101)
        writer.flush()
        processes.trim_log(log)
        writer.write(b"b")
        writer.flush()
        processes.trim_log(log)
    aside = log.with_name("api.log.1")
    assert (log.read_bytes(), aside.read_bytes()) == (b"b", b"a" * 101)
    assert stat.S_IMODE(aside.stat().st_mode) == 0o600
    processes.trim_log(tmp_path / "none.log")


def test_metrics_are_their_owners_alone(tmp_path: Path) -> None:
    with metrics_folder(tmp_path / "new" / "metrics") as folder:
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    with metrics_folder("") as folder:
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    with (tmp_path / "out").open("wb") as output:
        child = processes.spawn(
            [sys.executable, "-c", "open('made', 'w')"],
            output=output,
            directory=tmp_path,
            umask=processes.PRIVATE_UMASK,
        )
        assert child.wait(30) == 0
    assert stat.S_IMODE((tmp_path / "made").stat().st_mode) == 0o600
