"""The ways in: the index at /, and the documentation in parts for those who read it."""

import json
import re
from typing import Any

import openapi_spec_validator
import pytest

from handlers.http.audiences import BY_NAME

pytestmark = pytest.mark.shared


async def test_each_audience_has_a_part_and_each_operation_an_audience(api: Any) -> None:
    whole = await (await api.get("/openapi.json")).json()
    pages = re.findall(r'<a href="docs/(\w+)"', await (await api.get("/docs")).text())
    assert pages == [*BY_NAME, "all"]
    seen: dict[tuple[str, str], str] = {}
    for name in BY_NAME:
        page = await (await api.get(f"/docs/{name}")).text()
        assert f'data-document="/openapi/{name}.json"' in page
        assert re.findall(r'<a href="(\w+)"', page) == pages
        assert f'href="{name}" aria-current="page"' in page
        part = await (await api.get(f"/openapi/{name}.json")).json()
        openapi_spec_validator.validate(part)
        for path, operations in part["paths"].items():
            for method, operation in operations.items():
                assert (path, method) not in seen, (path, name, seen)
                seen[path, method] = name
                assert operation == whole["paths"][path][method]
        used = {tag for path in part["paths"].values() for one in path.values() for tag in one["tags"]}
        assert [tag["name"].lower() for tag in part["tags"]] == [
            tag for tag in BY_NAME[name].tags if tag in {word.lower() for word in used}
        ]
        # A part is whole without what only others need.
        text = json.dumps(part)
        for kind in ("schemas", "examples", "headers", "parameters"):
            for component in part["components"].get(kind, {}):
                assert f'"#/components/{kind}/{component}"' in text, (name, component)
    assert seen.keys() == {(path, method) for path, told in whole["paths"].items() for method in told}
    assert 'data-document="/openapi.json"' in await (await api.get("/docs/all")).text()
    assert (await api.get("/openapi/nobody.json")).status == 404


@pytest.mark.parametrize(
    ("accept", "html"),
    [
        (None, False),
        ("*/*", False),
        ("application/json", False),
        ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", True),
        ("application/json;q=0.5, text/html", True),
        ("text/html;q=0.4, application/json;q=0.5", False),
        ("text/html;q=x", False),
        ("TEXT/HTML", True),
    ],
)
async def test_the_root_is_an_index_for_people_and_for_programs(
    api: Any, accept: str | None, *, html: bool
) -> None:
    response = await api.get("/", headers={} if accept is None else {"Accept": accept})
    assert (response.status, response.headers["Vary"]) == (200, "Accept")
    if html:
        assert response.content_type == "text/html"
        assert "default-src 'none'" in response.headers["Content-Security-Policy"]
        links = re.findall(r'<a href="(/[^"]*)"', await response.text())
        assert [f"/docs/{name}" for name in BY_NAME] == links[: len(BY_NAME)]
    else:
        told = await response.json()
        assert (told["service"], told["openapi"]) == ("tallystick", "/openapi.json")
        links = [told["docs"], told["openapi"], told["health"], told["ready"], *told["parts"].values()]
    # The payment page asks for a code, and there is none in its address.
    for link in {*links} - {"/pay"}:
        assert (await api.get(link)).status == 200, link
