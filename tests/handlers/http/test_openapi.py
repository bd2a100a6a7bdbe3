"""The document describes what the service does: valid by its standard, and true under fuzzing."""

import functools
import inspect
import json
import os
import re
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import openapi_spec_validator
import pydantic
import pytest

from core.ledger.outcomes import OUTCOMES_BY_CODE
from handlers.app import LISTENERS, ROUTES, SURFACES
from handlers.http import openapi
from handlers.http.described import words
from handlers.http.dispatch import ApiSurface
from handlers.http.problems import PROBLEMS
from handlers.http.route import Route
from handlers.payments.kaspi.problems import KASPI_PROBLEMS
from handlers.payments.orchestration.surface import PROBLEM_TYPES
from handlers.payments.orders.problems import ORDER_PROBLEMS
from handlers.wallets.problems import CONTRACT_PROBLEMS
from handlers.wallets.routes import WALLETS
from handlers.wallets.surface import WalletSurface
from tests.handlers.fuzzer import fuzz

ROOT = Path(__file__).parents[3]
# Each operation is tried so many times: enough to meet each kind of input in the suite; more by hand (make fuzz).
EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "4"))
# Refusals outside HTTP: of the command line and at the start.
NOT_OVER_HTTP = {
    "migration_changed",
    "migration_locked",
    "not_migrated",
    "migration_unsaid",
    "migration_busy",
    "migration_unfit",
    # The archive of partitions, which commands alone ask for.
    "archive_not_set",
    "archive_damaged",
    "not_archived",
    "not_restored",
    "rows_in_the_way",
    "entries_disagree",
    "database_in_use",
    "event_too_large",
    # A database that `tallystick import` reads.
    "source_unreachable",
    "provider_key_missing",
    "provider_refused",
    # Ends of calls to payment providers, which are states of a payment.
    "provider_busy",
    "provider_cannot_tell",
    "provider_credentials",
    "provider_key_reused",
    "provider_payment_absent",
    "provider_unknown",
    # Payments through providers have no surface yet.
    "payment_not_paid",
    "refund_exceeds",
    "provider_unsupported",
}

# Left out: positive_data_acceptance, for a schema cannot say that legs must balance, nor that `5.0` is no integer
# to us; and the checks of sequences, for no links between our operations are described.
CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "negative_data_rejection",
    "missing_required_header",
    "unsupported_method",
    "allow_header_conformance",
    "ignored_auth",
)


# A feed with nothing in it waits as long as it is asked to.
CONFIG = """
[[operations]]
include-name = "GET /v1/feed"
parameters = { wait = 0 }
"""


@pytest.fixture
def document() -> dict[str, Any]:
    written: dict[str, Any] = json.loads(msgspec.json.encode(openapi.document(SURFACES)))
    return written


def test_document_is_valid(document: dict[str, Any]) -> None:
    assert document["openapi"] == "3.1.0"
    openapi_spec_validator.validate(document)


def test_every_route_is_in_it_once(document: dict[str, Any]) -> None:
    told = {
        (method.upper(), path): operation["operationId"]
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
    }
    assert told == {(route.method, route.path): route.operation for route in ROUTES if not route.hidden}
    assert len(set(told.values())) == len(told)


@functools.cache
def every_document() -> dict[str, dict[str, Any]]:
    """Return the document of the common port, and that of each contract's port."""
    surfaces = {"common": SURFACES, **{name: listener.surfaces for name, listener in LISTENERS.items()}}
    return {name: json.loads(msgspec.json.encode(openapi.document(each))) for name, each in surfaces.items()}


def parts_of(schema: Any) -> Iterator[dict[str, Any]]:
    """Yield a part of the document and all objects within it."""
    if isinstance(schema, dict):
        yield schema
    for part in schema.values() if isinstance(schema, dict) else schema if isinstance(schema, list) else ():
        yield from parts_of(part)


def test_generators_can_use_it() -> None:
    """Whole numbers are 64 bits wide, what may be left out has no default, names are words of any language."""
    for name, told in every_document().items():
        if name != "common":  # which the test above validates
            openapi_spec_validator.validate(told)
        for part in parts_of(told):
            if part.get("type") == "integer":
                assert part["format"] == "int64", (name, part)
            assert "default" not in part or isinstance(part["default"], dict), (name, part)
        schemas = told["components"]["schemas"]
        assert all(re.fullmatch("[A-Z][A-Za-z0-9]*", schema) for schema in schemas), name
        assert len({schema.lower() for schema in schemas}) == len(schemas)
        named = {part["$ref"] for part in parts_of(told) if "/schemas/" in str(part.get("$ref", ""))}
        assert {reference.rpartition("/")[2] for reference in named} <= schemas.keys()


def test_no_model_is_lost(document: dict[str, Any]) -> None:
    """Two types of one name would be one schema: each body and answer has the fields of its own type."""
    for route in ROUTES:
        if route.hidden:
            continue
        operation = document["paths"][route.path][route.method.lower()]
        told = {None: operation.get("requestBody"), **operation["responses"]}
        for status, kind in (
            (None, route.body),
            *((str(status), kind) for status, kind in route.answers.items()),
        ):
            fields = field_names(kind)
            if fields:
                reference = told[status]["content"]["application/json"]["schema"]["$ref"]
                schema = document["components"]["schemas"][reference.rpartition("/")[2]]
                assert schema["properties"].keys() == fields, (route.operation, status)


def field_names(kind: Any) -> set[str]:
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return {field.encode_name for field in msgspec.structs.fields(kind)}
    if isinstance(kind, type) and issubclass(kind, pydantic.BaseModel):
        return {field.alias or name for name, field in kind.model_fields.items()}
    return set()


def test_two_types_of_one_name_are_two_schemas() -> None:
    twins = [
        msgspec.defstruct("Twin", [(name, int)], module=f"some.{name}_part") for name in ("left", "right")
    ]
    twins.append(pydantic.create_model("Twin", below=(int | None, None), __module__="some.third"))  # type: ignore[arg-type]

    async def nothing(_call: Any) -> Any:
        """Do nothing."""

    routes = [
        Route("POST", f"/{n}", nothing, f"op_{n}", "s", "Service", body=twin, answers={200: twins[0]})
        for n, twin in enumerate(twins)
    ]
    told = openapi.document([ApiSurface("strict", tuple(routes[:2])), WalletSurface("lenient", (routes[2],))])
    schemas = told["components"]["schemas"]
    assert {"LeftPartTwin", "RightPartTwin", "ThirdTwin"} <= schemas.keys()
    assert [*schemas["ThirdTwin"]["properties"]] == ["below"]
    assert "default" not in schemas["ThirdTwin"]["properties"]["below"]


def test_everything_is_described() -> None:
    """A new field needs a description: in its type, beneath it, in the class's docstring or in descriptions.toml."""
    for told in every_document().values():
        missing = [
            f"{name}.{field}"
            for name, schema in told["components"]["schemas"].items()
            for field, property_ in schema.get("properties", {}).items()
            if not property_.get("description")
        ]
        for path, operations in told["paths"].items():
            for method, operation in operations.items():
                missing += [f"{method} {path}"] * (not operation.get("description"))
                missing += [
                    f"{method} {path} {parameter['name']}"
                    for parameter in operation.get("parameters", ())
                    if "$ref" not in parameter and not parameter.get("description")
                ]
        missing += [tag["name"] for tag in told["tags"] if not tag.get("description")]
        assert not missing


def test_words_are_used() -> None:
    """A word for a field that is gone goes, too."""
    (common,) = (told for name, told in every_document().items() if name == "common")
    fields = {
        field for schema in common["components"]["schemas"].values() for field in schema.get("properties", {})
    }
    parameters = {part["name"] for part in parts_of(common) if "in" in part and "name" in part}
    table = words()
    unused = {name.rpartition(".")[2] for name in table["properties"]} - fields - parameters
    assert (
        not unused
        | (table["path"].keys() - parameters)
        | (table["tags"].keys() - {t["name"] for t in common["tags"]})
    )


def test_tags_come_in_the_order_of_readers(document: dict[str, Any]) -> None:
    names = [tag["name"] for tag in document["tags"]]
    assert names[:4] == ["Accounts", "Transfers", "Holds", "Feed"]
    assert names[-2:] == ["administration", "Service"]
    used = [
        operation["tags"] for operations in document["paths"].values() for operation in operations.values()
    ]
    assert {tag for each in used for tag in each} == set(names)


def test_answers_tell_what_is_always_there(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    assert set(schemas["TransferOut"]["required"]) == schemas["TransferOut"]["properties"].keys()
    assert set(schemas["Limits"]["required"]) == schemas["Limits"]["properties"].keys()
    assert "transfer" not in schemas["BatchResult"]["required"]  # an item has either a transfer or an error
    assert schemas["TransferBody"].get("required", []) == []


def test_each_route_that_reads_a_key_tells_it(document: dict[str, Any]) -> None:
    for route in ROUTES:
        if route.hidden or route.method == "GET":
            continue
        parameters = document["paths"][route.path][route.method.lower()].get("parameters", ())
        told = {parameter.get("name") for parameter in parameters}
        reads = names_used_by(route.handler, set())
        if reads & {"required_key", "header_key", "ignorable_key"}:
            assert "Idempotency-Key" in told, route.operation
        elif "INTERNAL_KEY" in reads:
            assert "X-Idempotency-Key" in told, route.operation
        else:
            assert not route.key_header, route.operation


def names_used_by(function: Any, seen: set[str]) -> set[str]:
    """Return the names that a function uses, and those of the functions of its module that it calls."""
    for name in set(function.__code__.co_names) - seen:
        seen.add(name)
        below = function.__globals__.get(name)
        if inspect.isfunction(below) and below.__module__ == function.__module__:
            names_used_by(below, seen)
    return seen


def test_writes_of_the_ledger_ask_for_a_key(document: dict[str, Any]) -> None:
    parameters = document["paths"]["/v1/transfers"]["post"]["parameters"]
    assert {"$ref": "#/components/parameters/IdempotencyKey"} in parameters


def test_examples_of_bodies_are_valid(document: dict[str, Any]) -> None:
    from jsonschema import Draft202012Validator  # noqa: PLC0415

    for route in ROUTES:
        if route.example is None:
            continue
        schema = document["paths"][route.path][route.method.lower()]["requestBody"]["content"][
            "application/json"
        ]["schema"]
        Draft202012Validator({**schema, "components": document["components"]}).validate(route.example)


def test_every_code_has_a_form() -> None:
    raised = set(OUTCOMES_BY_CODE) - {"posted"}
    for folder in ("core", "handlers"):
        for file in (ROOT / folder).rglob("*.py"):
            raised |= set(
                re.findall(r'(?:Refusal\(\s*|code(?:: str)? ?= ?)"([a-z][a-z_]+)"', file.read_text())
            )
    known = {*PROBLEMS, *CONTRACT_PROBLEMS, *ORDER_PROBLEMS, *KASPI_PROBLEMS, *PROBLEM_TYPES}
    assert raised - NOT_OVER_HTTP <= known
    for surface in SURFACES:
        for route in surface.routes:
            assert set(route.problems) <= set(surface.problem_types), route


async def test_document_is_served_with_an_etag(api: Any) -> None:
    response = await api.get("/openapi.json")
    assert (response.status, response.content_type) == (200, "application/json")
    assert (await response.json())["info"]["title"] == "Tallystick"
    again = await api.get("/openapi.json", headers={"If-None-Match": response.headers["ETag"]})
    assert (again.status, await again.read()) == (304, b"")


async def test_page_loads_from_ourselves_only(api: Any) -> None:
    response = await api.get("/docs")
    page = await response.text()
    policy = response.headers["Content-Security-Policy"]
    assert "script-src 'self';" in policy
    assert "connect-src 'self';" in policy
    assert not re.search(r"<script(?! src=)|https?:|//", page)
    links = re.findall(r'(?:src|href)="(/[^"]+)"', page)
    assert len(links) == 4
    for link in links:
        file = await api.get(link)
        assert file.status == 200
        assert file.content_type in ("text/css", "text/javascript")
    for name in ("LICENSE", "..%2F..%2Fapp.py", "x"):
        assert (await api.get(f"/docs/{name}")).status == 404


async def test_problem_types_lead_somewhere(api: Any) -> None:
    response = await api.get("/problems/insufficient_funds")
    assert await response.json() == {
        "code": "insufficient_funds",
        "status": 422,
        "title": "Insufficient funds",
    }
    assert (await api.get("/problems/nothing")).status == 404


@pytest.mark.drill
@pytest.mark.timeout(300 + 10 * EXAMPLES)
async def test_answers_conform_whatever_comes(
    api: Any, api_key: Callable[..., Awaitable[str]], tmp_path: Path
) -> None:
    """Examples, boundaries and random input, good and bad: no 5xx, and each answer is one that the document names."""
    config = tmp_path / "schemathesis.toml"
    config.write_text(CONFIG)
    fuzzed = await fuzz(
        str(api.make_url("/")), config,
        "--header", f"Authorization: Bearer {await api_key()}",
        # The wallet surface has callers of its own: tests/handlers/wallets/test_fuzz.py. Kaspi's has its leniency.
        *(f"--exclude-tag={tag}" for tag in {"kaspi", *(route.tag for route in WALLETS.routes)}),
        "--checks", ",".join(CHECKS),
        "--phases", "examples,coverage,fuzzing",
        "--max-examples", str(EXAMPLES),
    )  # fmt: skip
    assert fuzzed.returncode == 0, fuzzed.stdout
