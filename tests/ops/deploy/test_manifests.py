"""The files for Kubernetes, systemd and PM2: they name what is there, and their times and settings fit the service."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml

from core.settings import Settings, load_settings
from core.settings.kinds import names_of

ROOT = Path(__file__).parents[3]
FOLDER = ROOT / "ops" / "kubernetes"
UNITS = sorted((ROOT / "ops" / "systemd").glob("*.service"))
BOUND = Settings.model_fields["shutdown_timeout_secs"].default
LeftOut = Callable[[str, object], None]


def resources() -> Iterator[dict[str, Any]]:
    """The objects of the files that the kustomization lists."""
    listed = yaml.safe_load((FOLDER / "kustomization.yaml").read_text())["resources"]
    assert {path.name for path in FOLDER.glob("*.yaml")} == {*listed, "kustomization.yaml"}
    for name in listed:
        yield from yaml.safe_load_all((FOLDER / name).read_text())


@pytest.fixture(scope="module")
def found() -> dict[tuple[str, str], Any]:
    return {(each["kind"], each["metadata"]["name"]): each for each in resources()}


def pods(found: dict[tuple[str, str], Any]) -> dict[str, Any]:
    kinds = {"Deployment", "Job"}
    return {name: each["spec"]["template"] for (kind, name), each in found.items() if kind in kinds}


def test_each_pod_may_do_next_to_nothing(found: dict[tuple[str, str], Any]) -> None:
    assert pods(found).keys() == {"api", "worker", "migrate"}
    for name, pod in pods(found).items():
        spec = pod["spec"]
        (container,) = spec["containers"]
        assert spec["securityContext"]["runAsNonRoot"], name
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert spec["automountServiceAccountToken"] is False
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert "memory" in container["resources"]["limits"]
        assert container["args"] == [{"api": "serve"}.get(name, name)]


def test_each_pod_has_the_time_that_it_takes_to_stop(found: dict[tuple[str, str], Any]) -> None:
    drain = int(found["ConfigMap", "settings"]["data"]["SHUTDOWN_DRAIN_SECS"])
    for name, needed in (("api", drain + BOUND), ("worker", 2 * BOUND)):
        assert pods(found)[name]["spec"]["terminationGracePeriodSeconds"] >= needed + 5


def test_the_selectors_of_services_budgets_and_policies_find_pods(found: dict[tuple[str, str], Any]) -> None:
    labels = {name: pod["metadata"]["labels"] for name, pod in pods(found).items()}
    for (kind, name), each in found.items():
        spec = each.get("spec", {})
        selector = spec.get("selector") or spec.get("podSelector")
        if selector and kind != "Service":
            selector = selector["matchLabels"]
        if selector:
            assert selector.items() <= labels[name].items(), (kind, name)
    scaled = found["HorizontalPodAutoscaler", "api"]["spec"]
    assert ("Deployment", scaled["scaleTargetRef"]["name"]) in found
    assert "replicas" not in found["Deployment", "api"]["spec"]
    assert {"PodDisruptionBudget", "NetworkPolicy"} <= {kind for kind, name in found if name == "api"}


def test_the_settings_are_ours_and_good_enough_for_production(
    found: dict[tuple[str, str], Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    subprocess.run([ROOT / "ops/deploy/secrets.sh", tmp_path], check=True, capture_output=True)
    data = found["ConfigMap", "settings"]["data"]
    known = {name for key, field in Settings.model_fields.items() for name in names_of(key, field)}
    assert {name.removesuffix("_FILE") for name in data} <= known
    for name, value in data.items():
        monkeypatch.setenv(name, value.replace("/run/secrets/tallystick", str(tmp_path)))
    settings = load_settings(env_file=None)
    pool = settings.database_pool_size
    # PostgreSQL has 100 connections by default: those of all pods of the API, of two workers, and some for people.
    most = found["HorizontalPodAutoscaler", "api"]["spec"]["maxReplicas"]
    assert (settings.env, (most + 2) * pool < 100) == ("prod", True)


def test_the_units_and_pm2_give_each_program_the_time_that_it_takes_to_stop() -> None:
    needed = {"serve": BOUND + 5, "worker": 2 * BOUND + 5}
    for unit in UNITS:
        text = unit.read_text()
        (command,) = re.findall(r"^ExecStart=\S+/tallystick (\w+)$", text, re.MULTILINE)
        given = re.findall(r"^TimeoutStopSec=(\d+)$", text, re.MULTILINE)
        assert [int(seconds) >= needed[command] for seconds in given] == [True] * (command in needed)
        assert "ProtectSystem=strict" in text
    text = (ROOT / "ops/pm2/ecosystem.config.cjs").read_text()
    told = dict(re.findall(r'args: "(\w+)",.*?kill_timeout: (\d+)', text, re.DOTALL))
    assert {name: int(told[name]) >= 1000 * needed[name] for name in told} == dict.fromkeys(needed, True)


@pytest.mark.drill
def test_the_tools_accept_the_files(tmp_path: Path, record_property: LeftOut) -> None:
    """The readers of the files: kubectl, the schemas of Kubernetes, systemd, Node.js."""

    def ran(*command: str | Path) -> str:
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    if shutil.which("kubectl"):
        built = tmp_path / "built.yaml"
        built.write_text(ran("kubectl", "kustomize", FOLDER))
        assert "registry.example/tallystick:1.0.0" in built.read_text()
    else:
        record_property("left_out", "kustomize on ops/kubernetes: kubectl is not on the PATH")
        built = tmp_path / "built.yaml"
        built.write_text(yaml.safe_dump_all(resources()))
    if find_spec("kubernetes_validate"):
        ran(sys.executable, "-m", "kubernetes_validate", "--strict", built)
    else:
        record_property(
            "left_out", "the schemas of Kubernetes: the package kubernetes-validate is not installed"
        )
    if shutil.which("systemd-analyze"):
        # It wants to find the program.
        program = tmp_path / "tallystick"
        program.write_text("#!/bin/sh\n")
        program.chmod(0o755)
        for unit in UNITS:
            copy = tmp_path / unit.name
            copy.write_text(unit.read_text().replace("/opt/tallystick/.venv/bin/tallystick", str(program)))
            ran("systemd-analyze", "verify", copy)
            ran("systemd-analyze", "security", "--offline=true", "--threshold=20", copy)
    else:
        record_property("left_out", "the units of systemd: systemd-analyze is not on the PATH")
    if shutil.which("node"):
        script = "console.log(require('./ops/pm2/ecosystem.config.cjs').apps.map((app) => app.name).join())"
        assert ran("node", "-e", script).strip() == "tallystick-api,tallystick-worker"
    else:
        record_property("left_out", "PM2's file: Node.js is not on the PATH")


@pytest.mark.drill
@pytest.mark.timeout(1200)
def test_compose_from_nothing_to_a_roll_under_load(record_property: LeftOut) -> None:
    """`make docker-smoke`, where Docker and the images that nothing can be built without are there."""
    images = ("python:3.13-slim", "postgres:18", "valkey/valkey:9", "nginx:1.30")
    there = shutil.which("docker") and all(
        subprocess.run(["docker", "image", "inspect", image], capture_output=True, check=False).returncode
        == 0
        for image in images
    )
    if not there:
        record_property(
            "left_out", f"docker-compose.yml: Docker runs not here, or has not pulled {', '.join(images)}"
        )
        return
    done = subprocess.run(
        [sys.executable, "-m", "ops.deploy.smoke"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert " 0 failed" in done.stdout
