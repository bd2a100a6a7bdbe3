"""The OpenAPI 3.1 document, made of the routes and of the very types that validate their requests."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from http import HTTPStatus
from itertools import groupby
from typing import Any

import msgspec
import pydantic

from core import __version__
from handlers.http.dispatch import MAX_PATH_VALUE, STRICT, WALLETS
from handlers.http.problems import MEDIA_TYPE, PROBLEMS, problem_details, problem_of
from handlers.http.route import Route
from handlers.wallets.forms import form_of

Json = dict[str, Any]

_REF = "#/components/schemas/"
# What `decoding` refuses in every text, said in the schema, too.
_NO_CONTROLS = r"^[^\u0000-\u001f\u007f-\u009f]*$"
_PATH_VALUE = {"type": "string", "minLength": 1, "maxLength": MAX_PATH_VALUE, "pattern": _NO_CONTROLS}

_ABOUT = """\
A durable double-entry ledger over HTTP.

* Amounts are integers in the minor unit of their currency. `5.0` is refused, although JSON Schema calls it an integer.
* JSON is read strictly: UTF-8, no key twice, no unknown field, no control character, at most 32 levels.
* A write carries an `Idempotency-Key`. The same key and body give the same answer, byte for byte; another body: 409.
* A refusal is a problem (RFC 9457) with a stable `error.code`; 429 and 503 say in `Retry-After` when to come again.
"""

_PROBLEM: Json = {
    "type": "object",
    "description": "Problem details (RFC 9457). Some codes add members of their own.",
    "required": ["type", "title", "status", "detail", "error"],
    "properties": {
        "type": {"type": "string", "format": "uri-reference", "description": "Leads to what the code means."},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string", "description": "A sentence for a person, about this occurrence."},
        "error": {
            "type": "object",
            "required": ["code", "message"],
            "properties": {
                "code": {"type": "string", "description": "A stable word for a machine."},
                "message": {"type": "string", "description": "The same as `detail`."},
            },
        },
    },
}

_HEADERS: Json = {
    "X-Request-ID": {
        "description": "The id given by the caller, or a new one; log lines carry it.",
        "schema": {"type": "string"},
    },
    "RateLimit-Limit": {
        "description": "Requests that may come at once after a pause: of the API key or the address, what is tighter.",
        "schema": {"type": "integer"},
    },
    "RateLimit-Remaining": {"description": "Requests left at the moment.", "schema": {"type": "integer"}},
    "RateLimit-Reset": {"description": "Seconds until all of them are back.", "schema": {"type": "integer"}},
    "Retry-After": {
        "description": "Seconds after which to repeat the request.",
        "schema": {"type": "integer"},
    },
    "Idempotent-Replayed": {
        "description": "`true` when this is the stored answer of an earlier request with the same key and body.",
        "schema": {"type": "string", "enum": ["true"]},
    },
}
_RATE_HEADERS = ("RateLimit-Limit", "RateLimit-Remaining", "RateLimit-Reset")

_IDEMPOTENCY_KEY: Json = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": True,
    "description": "New for each new request, the same when it is repeated; belongs to the caller. A UUID does well.",
    "schema": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": r"^[!-~]([ -~]{0,253}[!-~])?$"},
    "example": "order-1042-capture",
}


# What the wallet surface refuses with: problem details, and what its clients read beside them.
_WALLET_PROBLEM: Json = {
    "type": "object",
    "required": ["type", "title", "status", "detail", "code", "error"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {
            "anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "object"}}],
            "description": "A sentence; with `validation_failed` a list of what is wrong, each with its place.",
        },
        "code": {"type": "string", "description": "A stable word."},
        "error": {
            "type": "object",
            "required": ["code", "message"],
            "properties": {"code": {"type": "string"}, "message": {"type": "string"}},
        },
    },
}
_SECURITY: dict[str, list[Json]] = {
    "anyone": [],
    "user": [{"user_token": []}],
    "user+admin": [{"user_token": [], "admin_token": []}],
    "admin": [{"admin_token": []}, {"admin_bearer": []}],
    "internal": [{"internal_signature": []}, {"internal_secret": []}],
    "merchant_key": [{"merchant_signature": []}],
}


def document(routes: Sequence[Route], base_url: str) -> Json:
    """Return the document of `routes`, with those left out that are hidden."""
    shown = [route for route in routes if not route.hidden]
    schemas = _Schemas(shown)
    paths: Json = {}
    for route in shown:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, schemas)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Tallystick",
            "version": __version__,
            "summary": "A webhook and ledger core",
            "description": _ABOUT,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": base_url or "/"}],
        "tags": [{"name": tag} for tag in dict.fromkeys(route.tag for route in shown)],
        "paths": paths,
        "components": {
            "schemas": {**schemas.components, "Problem": _PROBLEM, "WalletProblem": _WALLET_PROBLEM},
            "examples": {
                code: _example(code) for code in _codes(route for route in shown if route.surface != WALLETS)
            },
            "headers": _HEADERS,
            "parameters": {"IdempotencyKey": _IDEMPOTENCY_KEY},
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer", "description": "An API key: `tsk_...`"},
                "api_key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
                "admin_token": {"type": "apiKey", "in": "header", "name": "X-Admin-Token"},
                "user_token": {"type": "http", "scheme": "bearer", "description": "A user's token"},
                "internal_signature": {"type": "apiKey", "in": "header", "name": "X-Internal-Sign"},
                "internal_secret": {"type": "apiKey", "in": "header", "name": "X-Internal-Secret"},
                "merchant_signature": {"type": "apiKey", "in": "header", "name": "X-API-Sign"},
                "admin_bearer": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "The admin token: ADMIN_TOKEN",
                },
            },
        },
    }


class _Schemas:
    """The schemas of all types, by name, with what the decoder asks for beyond the types."""

    def __init__(self, routes: Sequence[Route]) -> None:
        contract = [route for route in routes if route.surface == WALLETS]
        routes = [route for route in routes if route.surface != WALLETS]
        answered = [kind for route in contract for kind in route.answers.values() if kind is not None]
        types = list(dict.fromkeys([*(kind for route in routes for kind in _types(route)), *answered]))
        schemas, components = msgspec.json.schema_components(types, ref_template=_REF + "{name}")
        self._of = dict(zip(types, schemas, strict=True))
        queries = {id(route.query) for route in routes}
        self._queries = {
            kind: components.pop(schema["$ref"].removeprefix(_REF))
            for kind, schema in self._of.items()
            if id(kind) in queries
        }
        asked = [kind for route in routes for kind in _asked(route)]
        _, reached = msgspec.json.schema_components(asked, ref_template=_REF + "{name}")
        for schema in (
            *(components[name] for name in reached if name in components),
            *self._queries.values(),
            *(self._of[kind] for kind in asked),
        ):
            _refuse_control_characters(schema)
        self.components = components
        for kind in dict.fromkeys(kind for route in contract for kind in _asked(route)):
            self._add_lenient(kind, is_query=kind in {route.query for route in contract})

    def _add_lenient(self, kind: Any, *, is_query: bool) -> None:
        """Add a pydantic model, or a type of a path value, of the wallet surface."""
        schema = pydantic.TypeAdapter(kind).json_schema(ref_template=_REF + "{model}")
        self.components.update(schema.pop("$defs", {}))
        if is_query:
            self._queries[kind] = schema
        elif isinstance(kind, type) and issubclass(kind, pydantic.BaseModel):
            self.components[kind.__name__] = schema
            self._of[kind] = {"$ref": _REF + kind.__name__}
        else:
            self._of[kind] = schema

    def of(self, kind: Any) -> Json:
        """Return the schema of a body or of a path value."""
        schema: Json = self._of[kind]
        return schema

    def parameters(self, query: Any) -> Iterator[Json]:
        """Return the parameters that a query Struct stands for. In a query there is no null: it is the absence."""
        schema = self._queries[query]
        for name, field in schema.get("properties", {}).items():
            told = dict(field)
            about = told.pop("description", None)
            kinds = [kind for kind in told.pop("anyOf", ()) if kind != {"type": "null"}]
            if len(kinds) == 1:
                told |= kinds[0]
            elif kinds:
                told["anyOf"] = kinds
            if told.get("default", ...) is None:
                del told["default"]
            parameter = {
                "name": name,
                "in": "query",
                "required": name in schema.get("required", ()),
                "schema": told,
            }
            yield {**parameter, "description": about} if about else parameter


def _asked(route: Route) -> list[Any]:
    return [kind for kind in (route.body, route.query, *route.parameters.values()) if kind is not None]


def _types(route: Route) -> list[Any]:
    return [*_asked(route), *(kind for kind in route.answers.values() if kind is not None)]


def _operation(route: Route, schemas: _Schemas) -> Json:
    operation: Json = {
        "operationId": route.operation,
        "summary": route.summary,
        "tags": [route.tag],
        "responses": _responses(route, schemas),
    }
    if route.description:
        operation["description"] = route.description
    if parameters := _parameters(route, schemas):
        operation["parameters"] = parameters
    if route.body is not None:
        content: Json = {"schema": schemas.of(route.body)}
        if route.example is not None:
            content["example"] = route.example
        required = bool(schemas.components.get(route.body.__name__, {}).get("required"))
        operation["requestBody"] = {"required": required, "content": {"application/json": content}}
    elif route.raw and route.method != "GET":
        operation["requestBody"] = {"required": True, "content": {"application/json": {"schema": {}}}}
    if route.caller is not None:
        operation["security"] = _SECURITY[route.caller]
        return operation
    operation["security"] = [
        *([{"admin_token": []}, {"admin_bearer": []}] if route.admin else ()),
        *([{"bearer": []}, {"api_key": []}] if route.scope else ()),
    ]
    if route.scope:
        operation["x-required-scope"] = route.scope
    return operation


def _parameters(route: Route, schemas: _Schemas) -> list[Json]:
    parameters = []
    for name in re.findall(r"\{(\w+)", route.path):
        kind = route.parameters.get(name)
        schema = _PATH_VALUE if kind is None else schemas.of(kind)
        parameters.append({"name": name, "in": "path", "required": True, "schema": schema})
    if route.query is not None:
        parameters.extend(schemas.parameters(route.query))
    if route.idempotent:
        parameters.append({"$ref": "#/components/parameters/IdempotencyKey"})
    return parameters


def _responses(route: Route, schemas: _Schemas) -> Json:
    responses: Json = {}
    for status, kind in route.answers.items():
        answer: Json = {"description": HTTPStatus(status).phrase, "headers": _headers(route)}
        content: Json = {} if kind is None else {"application/json": {"schema": schemas.of(kind)}}
        content.update(
            {media_type: {"schema": {"type": "string"}} for media_type in route.media if status < 300}
        )
        if content:
            answer["content"] = content
        if route.idempotent:
            answer["headers"]["Idempotent-Replayed"] = {"$ref": "#/components/headers/Idempotent-Replayed"}
        responses[str(status)] = answer
    status_of = _status_here if route.surface == WALLETS else _status_elsewhere
    codes = sorted(_codes([route]), key=status_of)
    for status, group in groupby(codes, key=status_of):
        problem = _problem(status, sorted(group), _headers(route), lenient=route.surface == WALLETS)
        # A route may answer a status of its own with its own type, such as the 503 of /ready.
        if str(status) in responses:
            responses[str(status)].setdefault("content", {}).update(problem["content"])
        else:
            responses[str(status)] = problem
    return responses


def _status_elsewhere(code: str) -> int:
    return PROBLEMS[code].status


def _status_here(code: str) -> int:
    return form_of(code).status


def _problem(status: int, codes: Sequence[str], headers: Json, *, lenient: bool) -> Json:
    if status in (429, 503):
        headers = headers | {"Retry-After": {"$ref": "#/components/headers/Retry-After"}}
    if lenient:
        schema = {"$ref": _REF + "WalletProblem"}
        return {
            "description": ", ".join(f"`{code}`" for code in codes),
            "headers": headers,
            "content": {"application/json": {"schema": schema}},
        }
    examples = {code: {"$ref": f"#/components/examples/{code}"} for code in codes}
    return {
        "description": ", ".join(f"`{code}`" for code in codes),
        "headers": headers,
        "content": {MEDIA_TYPE: {"schema": {"$ref": _REF + "Problem"}, "examples": examples}},
    }


def _example(code: str) -> Json:
    body = problem_details(problem_of(code, f"{PROBLEMS[code].title}."))
    return {"summary": PROBLEMS[code].title, "value": msgspec.json.decode(body)}


def _headers(route: Route) -> Json:
    names = ("X-Request-ID", *(_RATE_HEADERS if route.limited else ()))
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names}


def _codes(routes: Iterable[Route]) -> list[str]:
    return sorted({code for route in routes for code in (*_common_codes(route), *route.problems)})


def _common_codes(route: Route) -> Iterator[str]:
    """Return the codes that the dispatcher may refuse with before the handler is called, and `internal_error`."""
    yield "internal_error"
    if route.limited:
        yield "rate_limited"
    if route.surface == WALLETS:
        yield from _wallet_codes(route)
        return
    if route.scope is not None:
        yield "forbidden"
    if route.admin or route.scope is not None:
        yield from ("unauthorized", "database_unavailable", "busy", "overloaded", "shutting_down")
    if "{" in route.path or (route.surface == STRICT and not route.raw) or route.body is not None:
        yield "invalid_request"
    if route.body is not None:
        yield from ("malformed_json", "duplicate_json_key")
    if route.body is not None or (route.raw and route.method != "GET") or route.surface == STRICT:
        yield from ("unsupported_media_type", "payload_too_large", "request_timeout")
    if route.idempotent:
        yield from ("idempotency_key_required", "idempotency_key_invalid", "idempotency_conflict")


def _wallet_codes(route: Route) -> Iterator[str]:
    yield from ("database_unavailable", "busy", "overloaded", "shutting_down", "invalid_request", "not_found")
    yield from ("payload_too_large", "unsupported_media_type", "request_timeout")
    if route.caller in {"user", "user+admin"}:
        yield from ("not_authenticated", "bad_credentials", "token_expired", "token_invalid")
        yield from ("token_issuer_invalid", "user_not_found_for_token")
    if route.caller in {"admin", "user+admin"}:
        yield "admin_token_invalid"
    if route.body is not None or route.query is not None or "{" in route.path:
        yield "validation_failed"


def _refuse_control_characters(schema: Any) -> None:
    """Add to every free text, keys included, that it holds no control characters."""
    if isinstance(schema, Mapping):
        if schema.get("type") == "string" and not schema.keys() & {"pattern", "format", "enum", "const"}:
            schema["pattern"] = _NO_CONTROLS  # type: ignore[index]
        if schema.get("additionalProperties", False) is not False:
            schema.setdefault("propertyNames", {}).setdefault("pattern", _NO_CONTROLS)  # type: ignore[attr-defined]
        for value in schema.values():
            _refuse_control_characters(value)
    elif isinstance(schema, list):
        for value in schema:
            _refuse_control_characters(value)
