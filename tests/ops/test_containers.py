"""The Dockerfile and the compose file, as far as they can be held without an engine."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from core.settings import Settings, load_settings
from core.settings.kinds import names_of

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = {"core", "handlers", "jobs", "loadtests", "ops", "sql"}
GIVEN = {
    "POSTGRES_PASSWORD": "p" * 32,
    "ADMIN_TOKEN": "5f0c2b9e7d1a4836c2f7e90b1d6a8453",
    "ALLOWED_ORIGINS": "https://shop.example",
}


def tool(name: str) -> str:
    """The tool of the environment that the tests run in."""
    return shutil.which(name, path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}") or name


def copied() -> Iterator[str]:
    """What the Dockerfile copies from the checkout."""
    for line in (ROOT / "Dockerfile").read_text().splitlines():
        if line.startswith("COPY ") and "--from=" not in line:
            yield from line.split()[1:-1]


@pytest.fixture(scope="module")
def compose() -> Any:
    return yaml.safe_load((ROOT / "docker-compose.yml").read_text())


def interpolate(text: str) -> str:
    """As compose does it, for the forms that are used: ${NAME:-default} and ${NAME:?message}."""
    return re.sub(
        r"\$\{(\w+):([-?])([^}]*)\}",
        lambda found: GIVEN.get(found[1], found[3] if found[2] == "-" else ""),
        text,
    )


def test_hadolint_accepts_the_dockerfile() -> None:
    done = subprocess.run(
        [tool("hadolint"), "Dockerfile"], cwd=ROOT, capture_output=True, text=True, check=False
    )

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_schema_accepts_the_compose_file() -> None:
    done = subprocess.run(
        [tool("check-jsonschema"), "--builtin-schema", "vendor.compose-spec", "docker-compose.yml"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stdout


def test_what_is_copied_exists_and_reaches_the_builder() -> None:
    let_through = {
        line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")
    }

    assert [path for path in copied() if not (ROOT / path).exists()] == []
    assert {path.partition("/")[0] for path in copied()} == let_through
    assert set(copied()) >= PACKAGES


def test_the_image_runs_as_an_ordinary_user() -> None:
    (user,) = re.findall(r"^USER (.+)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)

    assert int(user) > 0


def test_compose_starts_the_service_after_the_migration(compose: Any) -> None:
    for name in ("api", "worker"):
        waits = compose["services"][name]["depends_on"]
        assert waits["migrate"] == {"condition": "service_completed_successfully"}
        assert waits["redis"] == {"condition": "service_healthy"}
    assert compose["services"]["migrate"]["depends_on"]["postgres"] == {"condition": "service_healthy"}


def test_the_image_follows_the_rules_of_production() -> None:
    assert re.search(r"^ENV ENV=prod\b", (ROOT / "Dockerfile").read_text(), re.MULTILINE)


def test_compose_bounds_what_the_service_fills(compose: Any) -> None:
    for name in ("migrate", "api", "worker"):
        assert [mount.partition(":")[0] for mount in compose["services"][name]["tmpfs"]] == ["/tmp"]  # noqa: S108
    assert "--maxmemory" in compose["services"]["redis"]["command"]


def test_compose_gives_every_process_the_time_that_it_takes_to_stop(compose: Any) -> None:
    bound = Settings.model_fields["shutdown_timeout_secs"].default
    for name, times in (("api", 1), ("worker", 2)):
        grace = compose["services"][name]["stop_grace_period"]
        assert int(grace.removesuffix("s")) >= times * bound + 5, name


def test_composes_worker_shows_its_metrics_to_its_health_check(compose: Any) -> None:
    api, worker = compose["services"]["api"], compose["services"]["worker"]
    port = worker["environment"]["WORKER_METRICS_PORT"]

    assert worker["environment"] == api["environment"] | {"WORKER_METRICS_PORT": port}
    assert f":{port}/metrics" in worker["healthcheck"]["test"][-1]
    assert int(port) > 0


def test_compose_publishes_the_api_alone(compose: Any) -> None:
    assert [name for name, service in compose["services"].items() if "ports" in service] == ["api"]
    for name in ("postgres", "redis"):
        assert compose["services"][name]["networks"] == ["data"]
    assert compose["networks"]["data"] == {"internal": True}


def test_composes_settings_are_ours_and_good_enough_for_production(
    compose: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment = {
        name: interpolate(text) for name, text in compose["services"]["api"]["environment"].items()
    }
    known = {
        name for attribute, field in Settings.model_fields.items() for name in names_of(attribute, field)
    }
    for name, value in environment.items():
        monkeypatch.setenv(name, value)

    settings = load_settings(env_file=None)

    assert set(environment) - known == set()
    assert settings.env == "prod"
    assert (
        settings.database_url
        == f"postgresql://tallystick:{GIVEN['POSTGRES_PASSWORD']}@postgres:5432/tallystick"
    )


def test_composes_secrets_have_no_default(compose: Any) -> None:
    text = (ROOT / "docker-compose.yml").read_text()

    assert set(re.findall(r"\$\{(\w+):\?", text)) == set(GIVEN)
    assert compose["services"]["postgres"]["environment"]["POSTGRES_PASSWORD"].startswith(
        "${POSTGRES_PASSWORD:?"
    )
