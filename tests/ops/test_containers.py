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
GIVEN = {"PUBLIC_BASE_URL": "https://pay.example", "ALLOWED_ORIGINS": "https://shop.example"}
COMPOSE_FILES = ("docker-compose.yml", "ops/compose/dev.yml")
OURS = ("migrate", "operator", "api", "worker")


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


@pytest.mark.drill
def test_the_schema_accepts_the_compose_files() -> None:
    done = subprocess.run(
        [tool("check-jsonschema"), "--builtin-schema", "vendor.compose-spec", *COMPOSE_FILES],
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


def test_compose_lets_nobody_write_but_where_it_is_bounded(compose: Any) -> None:
    for name in (*OURS, "nginx"):
        service = compose["services"][name]
        assert service["read_only"]
        assert service["cap_drop"] == ["ALL"]
        assert [mount.partition(":")[0] for mount in service["tmpfs"]] == ["/tmp"]  # noqa: S108
        assert all("size=" in mount for mount in service["tmpfs"])
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
    assert worker["healthcheck"]["test"][-2:] == [port, "/metrics"]
    assert int(port) > 0


def test_compose_publishes_nginx_and_to_this_machine_the_monitors(compose: Any) -> None:
    published = {
        name: service["ports"] for name, service in compose["services"].items() if "ports" in service
    }
    assert published.keys() == {"nginx", "prometheus", "alertmanager", "grafana"}
    for name in published.keys() - {"nginx"}:
        assert compose["services"][name]["profiles"] == ["observability"]
        assert [port.split(":")[0] for port in published[name]] == ["127.0.0.1"]
    for name in ("postgres", "redis"):
        assert compose["services"][name]["networks"] == ["data"]
    assert compose["networks"]["data"] == {"internal": True}
    # TRUSTED_PROXIES is this network, so nothing else may be in it.
    assert {name for name, each in compose["services"].items() if "edge" in each["networks"]} == {
        "nginx",
        "api",
    }


def test_composes_settings_are_ours_and_good_enough_for_production(
    compose: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    subprocess.run([ROOT / "ops/deploy/secrets.sh", tmp_path], check=True, capture_output=True)
    environment = {
        name: interpolate(text).replace("/run/secrets", str(tmp_path))
        for name, text in compose["services"]["api"]["environment"].items()
    }
    known = {
        name for attribute, field in Settings.model_fields.items() for name in names_of(attribute, field)
    }
    for name, value in environment.items():
        monkeypatch.setenv(name, value)

    settings = load_settings(env_file=None)

    assert {name.removesuffix("_FILE") for name in environment} - known == set()
    assert settings.env == "prod"
    assert re.fullmatch(
        r"postgresql://tallystick_service:[0-9a-f]{64}@postgres:5432/tallystick", settings.database_url
    )
    # The owner's login is another one, and goes to those alone that need it.
    password = (tmp_path / "postgres_password").read_text().strip()
    owner = f"postgresql://tallystick:{password}@postgres:5432/tallystick"
    assert (tmp_path / "database_url").read_text().strip() == owner
    services = compose["services"]
    assert {name for name in services if "database_url" in services[name].get("secrets", [])} == {
        "migrate",
        "operator",
    }
    for name in ("migrate", "operator"):
        changed = {"DATABASE_URL_FILE": "/run/secrets/database_url"}
        assert services[name]["environment"] == services["api"]["environment"] | changed
    login = services["api"]["environment"]["DATABASE_URL_FILE"]
    assert services["migrate"]["command"] == ["migrate", "--login-file", login]
    assert services["operator"]["profiles"] == ["operator"]


def test_composes_secrets_are_files_that_the_script_makes(compose: Any, tmp_path: Path) -> None:
    """A secret in the environment shows in `docker inspect`."""
    script = ROOT / "ops/deploy/secrets.sh"
    subprocess.run([script, tmp_path], check=True, capture_output=True)
    made = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    subprocess.run([script, tmp_path], check=True, capture_output=True)

    assert set(compose["secrets"]) == set(made)
    assert {name: (tmp_path / name).read_bytes() for name in made} == made
    # During a rotation the service's file holds two tokens. Prometheus sends its own as it stands, so that has one.
    for name in ("admin_token", "prometheus_token"):
        (tmp_path / name).unlink()
    for text in ("new,old\n", "new\r\nold\r\n"):
        (tmp_path / "admin_token").write_text(text)
        subprocess.run([script, tmp_path], check=True, capture_output=True)
        assert (tmp_path / "prometheus_token").read_text() == "new\n"
        (tmp_path / "prometheus_token").unlink()
    assert compose["services"]["prometheus"]["secrets"] == [
        {"source": "prometheus_token", "target": "admin_token"}
    ]
    assert tmp_path.stat().st_mode & 0o077 == 0 or tmp_path.owner() == "root"
    text = (ROOT / "docker-compose.yml").read_text()
    assert set(re.findall(r"\$\{(\w+):\?", text)) == set(GIVEN)
