"""The documentation as a site: every link leads somewhere, and the collection has every operation."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from ops.commands.develop.site import docs


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("out") / "site"
    told = CliRunner().invoke(docs, ["--out", str(folder)])
    assert told.exit_code == 0, told.output
    return folder


def test_every_link_and_every_part_of_a_page_is_there(site: Path) -> None:
    lost = []
    for page in site.rglob("*.html"):
        text = page.read_text()
        for target in re.findall(r'(?:href|src)="([^"]+)"', text):
            if re.match(r"[a-z]+:|//|#$", target):
                continue
            name, _, place = target.partition("#")
            file = (page.parent / name).resolve() if name else page
            if not file.is_file() or (place and f'id="{place}"' not in file.read_text()):
                lost.append(f"{page.relative_to(site)}: {target}")
    assert lost == []


def test_the_collection_has_every_operation_with_a_body_that_is_json(site: Path) -> None:
    document = json.loads((site / "api" / "openapi.json").read_text())
    collection = json.loads((site / "api" / "postman.json").read_text())
    wanted = {
        (method.upper(), path)
        for path, operations in document["paths"].items()
        for method in operations
        if method in {"get", "post", "put", "patch", "delete"}
    }
    found = set()
    for folder in collection["item"]:
        for item in folder["item"]:
            request: dict[str, Any] = item["request"]
            path = re.sub(r":(\w+)", r"{\1}", request["url"]["raw"].removeprefix("{{url}}"))
            found.add((request["method"], path))
            assert {each["key"] for each in request["url"]["variable"]} == set(
                re.findall(r"{(\w+)}", path)
            ), path
            if "body" in request:
                json.loads(request["body"]["raw"])
    assert found == wanted
    assert {each["key"] for each in collection["variable"]} == {"url", "token"}


def test_a_folder_with_other_things_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("dear")
    told = CliRunner().invoke(docs, ["--out", str(tmp_path)])
    assert told.exit_code == 1
    assert "is not empty" in told.output
    assert (tmp_path / "letter.txt").exists()
