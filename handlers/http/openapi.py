"""The OpenAPI 3.1 document, made of the routes and of the very types that validate their requests."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from http import HTTPStatus
from itertools import groupby
from typing import Any

import msgspec
import pydantic

from core import __version__
from handlers.http.route import MAX_PATH_VALUE, Route
from handlers.http.surface import Json, Surface
from handlers.http.times import custom_schema

_REF = "#/components/schemas/"
# The pattern of a text without the characters that `decoding` refuses.
_NO_CONTROLS = r"^[^\u0000-\u001f\u007f-\u009f]*$"
_PATH_VALUE = {"type": "string", "minLength": 1, "maxLength": MAX_PATH_VALUE, "pattern": _NO_CONTROLS}

_ABOUT = """\
A durable double-entry ledger over HTTP.

* Amounts are integers in the minor unit of their currency. `5.0` is refused, although JSON Schema calls it an integer.
* JSON is read strictly: UTF-8, no key twice, no unknown field, no control character, at most 32 levels.
* A write carries an `Idempotency-Key`. The same key and body give the same answer, byte for byte; another body: 409.
* A refusal is a problem (RFC 9457) with a stable `error.code`; 429 and 503 say in `Retry-After` when to come again.
"""

_HEADERS: Json = {
    "X-Request-ID": {
        "description": "The id given by the caller, or a new one; log lines carry it.",
        "schema": {"type": "string"},
    },
    "RateLimit-Limit": {
        "description": "Requests that may come at once after a pause: the tighter of the API key's and the address's.",
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
    "description": "New for each request, the same for its repetition. Callers share no keys. A UUID does well.",
    "schema": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": r"^[!-~]([ -~]{0,253}[!-~])?$"},
    "example": "order-1042-capture",
}

_IF_MATCH: Json = {
    "name": "If-Match",
    "in": "header",
    "description": "The ETag that the object must still have, from a read of it. Without it any will do.",
    "schema": {"type": "string", "pattern": r'^(\*|"[0-9]{1,18}")$'},
    "example": '"17"',
}


def document(
    surfaces: Sequence[Surface],
    base_url: str = "",
    *,
    title: str = "Tallystick",
    version: str = __version__,
) -> Json:
    """Return the document of the surfaces' routes, without the hidden ones.

    Without a `base_url` the server is the one that shows the document.
    """
    shown = [(surface, route) for surface in surfaces for route in surface.routes if not route.hidden]
    schemas = _Schemas(shown)
    paths: Json = {}
    for surface, route in shown:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(surface, route, schemas)
    refusals = {name: schema for surface in surfaces for name, schema in surface.schemas.items()}
    examples = {
        code: example
        for surface, route in shown
        for code in _codes(surface, route)
        if (example := surface.example(code)) is not None
    }
    return {
        "openapi": "3.1.0",
        "info": {
            "title": title,
            "version": version,
            "summary": "A webhook and ledger core",
            "description": _ABOUT,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": base_url or "/"}],
        "tags": [{"name": tag} for tag in dict.fromkeys(route.tag for _, route in shown)],
        "paths": paths,
        "components": {
            "schemas": schemas.components | refusals,
            "examples": dict(sorted(examples.items())),
            "headers": _HEADERS,
            "parameters": {"IdempotencyKey": _IDEMPOTENCY_KEY, "IfMatch": _IF_MATCH},
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
    """The schemas of all types, by name, with the rules of the decoder beyond the types."""

    def __init__(self, shown: Sequence[tuple[Surface, Route]]) -> None:
        contract = [route for surface, route in shown if surface.pydantic]
        routes = [route for surface, route in shown if not surface.pydantic]
        answered = [kind for route in contract for kind in route.answers.values() if kind is not None]
        types = list(dict.fromkeys([*(kind for route in routes for kind in _types(route)), *answered]))
        schemas, components = msgspec.json.schema_components(
            types, ref_template=_REF + "{name}", schema_hook=custom_schema
        )
        self._of = dict(zip(types, schemas, strict=True))
        queries = {id(route.query) for route in routes}
        self._queries = {
            kind: components.pop(schema["$ref"].removeprefix(_REF))
            for kind, schema in self._of.items()
            if id(kind) in queries
        }
        asked = [kind for route in routes for kind in _asked(route)]
        _, reached = msgspec.json.schema_components(
            asked, ref_template=_REF + "{name}", schema_hook=custom_schema
        )
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
        """Add a pydantic model, or a type of a path value that pydantic reads."""
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
        """Return the parameters that a query Struct stands for. A query has no null, only absence."""
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


def _operation(surface: Surface, route: Route, schemas: _Schemas) -> Json:
    operation: Json = {
        "operationId": route.operation,
        "summary": route.summary,
        "tags": [route.tag],
        "responses": _responses(surface, route, schemas),
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
    operation["security"] = surface.security(route)
    if route.scope:
        operation["x-required-scope"] = route.scope
    return operation


def _parameters(route: Route, schemas: _Schemas) -> list[Json]:
    parameters = []
    for name in route.path_names:
        kind = route.parameters.get(name)
        schema = _PATH_VALUE if kind is None else schemas.of(kind)
        parameters.append({"name": name, "in": "path", "required": True, "schema": schema})
    if route.query is not None:
        parameters.extend(schemas.parameters(route.query))
    if route.idempotent:
        parameters.append({"$ref": "#/components/parameters/IdempotencyKey"})
    if route.conditional:
        parameters.append({"$ref": "#/components/parameters/IfMatch"})
    return parameters


def _responses(surface: Surface, route: Route, schemas: _Schemas) -> Json:
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

    def status_of(code: str) -> int:
        return surface.problem_types[code].status

    for status, group in groupby(sorted(_codes(surface, route), key=status_of), key=status_of):
        codes = sorted(group)
        headers = _headers(route)
        if status in (429, 503):
            headers["Retry-After"] = {"$ref": "#/components/headers/Retry-After"}
        problem: Json = {
            "description": ", ".join(f"`{code}`" for code in codes),
            "headers": headers,
            "content": surface.refusals(codes),
        }
        # A route may answer a status of its own with its own type, such as the 503 of /ready.
        if str(status) in responses:
            responses[str(status)].setdefault("content", {}).update(problem["content"])
        else:
            responses[str(status)] = problem
    return responses


def _headers(route: Route) -> Json:
    names = ("X-Request-ID", *(_RATE_HEADERS if route.limited else ()))
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names}


def _codes(surface: Surface, route: Route) -> set[str]:
    """Return the codes that a call of `route` can be refused with."""
    limited = ("rate_limited",) if route.limited else ()
    return {"internal_error", *limited, *surface.codes(route), *route.problems}


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
