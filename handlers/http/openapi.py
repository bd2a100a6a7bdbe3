"""The OpenAPI 3.1 document, made of the routes and of the very types that validate their requests."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from http import HTTPStatus
from itertools import groupby

from core import __version__
from handlers.http.described import describe_by_hand, operation_words, tags, words
from handlers.http.route import MAX_PATH_VALUE, Route
from handlers.http.schemas import NO_CONTROLS, Schemas, finish
from handlers.http.surface import Json, Surface

_PATH_VALUE = {"type": "string", "minLength": 1, "maxLength": MAX_PATH_VALUE, "pattern": NO_CONTROLS}

_ABOUT = """\
A durable double-entry ledger over HTTP.

* Amounts are integers in the minor unit of their currency. `5.0` is refused, although JSON Schema calls it an integer.
* JSON is read strictly: UTF-8, no key twice, no unknown field, no control character, at most 32 levels.
* Numbers are 64 bits wide. A reader whose numbers are floating-point asks with `Accept: application/json;
  numbers=string`, and each whole number of an answer under /v1 comes as a text of digits.
* A write carries an `Idempotency-Key`. The same key and body give the same answer, byte for byte; another body: 409.
  Blanks around a key do not count, and a key in the quotes of RFC 9651 is the text between them.
* A list answers with `data` and `next`, which is null on the last page.
* A refusal is a problem (RFC 9457) with a stable `error.code`; 429 and 503 say in `Retry-After` when to come again.
"""

_WHOLE: Json = {"type": "integer", "format": "int64"}
_HEADERS: Json = {
    "X-Request-ID": {
        "description": "The id given by the caller, or a new one; log lines carry it.",
        "schema": {"type": "string"},
    },
    "RateLimit-Limit": {
        "description": "Requests that may come at once after a pause: the tighter of the API key's and the address's.",
        "schema": _WHOLE,
    },
    "RateLimit-Remaining": {"description": "Requests left at the moment.", "schema": _WHOLE},
    "RateLimit-Reset": {"description": "Seconds until all of them are back.", "schema": _WHOLE},
    "Retry-After": {
        "description": "Seconds after which to repeat the request.",
        "schema": _WHOLE,
    },
    "Idempotent-Replayed": {
        "description": "`true` when this is the stored answer of an earlier request with the same key and body.",
        "schema": {"type": "string", "enum": ["true"]},
    },
}
_RATE_HEADERS = ("RateLimit-Limit", "RateLimit-Remaining", "RateLimit-Reset")

_ABOUT_KEYS = (
    "New for each request, the same for its repetition. Callers share no keys. A UUID does well. Blanks around it do "
    'not count, and the quoted form `"K"` is the key K.'
)
# A key that a route takes without asking for it.
_OPTIONAL_KEY: Json = {
    "in": "header",
    "required": False,
    "description": _ABOUT_KEYS,
    "schema": {"type": "string", "maxLength": 255},
    "example": "order-1042-refund",
}
_IDEMPOTENCY_KEY: Json = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": True,
    "description": _ABOUT_KEYS,
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
    schemas = Schemas(shown)
    paths: Json = {}
    for surface, route in shown:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(surface, route, schemas)
    refusals = {name: deepcopy(schema) for surface in surfaces for name, schema in surface.schemas.items()}
    for name, schema in refusals.items():
        describe_by_hand(name, schema)
        finish(schema)
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
        "tags": tags({route.tag for _, route in shown}),
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
                "merchant_id": {
                    "type": "apiKey",
                    "in": "header",
                    "name": "X-Merchant-Id",
                    "description": "From TRUSTED_NETWORKS alone.",
                },
                "order_signature": {"type": "apiKey", "in": "header", "name": "X-Internal-Signature"},
                "internal_signature": {"type": "apiKey", "in": "header", "name": "X-Internal-Sign"},
                "internal_secret": {"type": "apiKey", "in": "header", "name": "X-Internal-Secret"},
                "internal_key": {
                    "type": "apiKey",
                    "in": "header",
                    "name": "X-API-Key",
                    "description": "The key of an internal service: `tallystick keys create --caller NAME`",
                },
                "merchant_signature": {"type": "apiKey", "in": "header", "name": "X-API-Sign"},
                "admin_bearer": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "The admin token: ADMIN_TOKEN",
                },
            },
        },
    }


def _operation(surface: Surface, route: Route, schemas: Schemas) -> Json:
    operation: Json = {
        "operationId": route.operation,
        "summary": route.summary,
        "tags": [route.tag],
        "responses": _responses(surface, route, schemas),
    }
    if description := operation_words(route.handler, route.description):
        operation["description"] = description
    if parameters := [*_parameters(route, schemas), *surface.parameters(route)]:
        operation["parameters"] = parameters
    if route.body is not None:
        content: Json = {"schema": schemas.of(route.body)}
        if route.example is not None:
            content["example"] = route.example
        operation["requestBody"] = {
            "required": schemas.is_needed(route.body),
            "content": {"application/json": content},
        }
    elif route.raw and route.method != "GET":
        operation["requestBody"] = {"required": True, "content": {"application/json": {"schema": {}}}}
    operation["security"] = surface.security(route)
    if route.scope:
        operation["x-required-scope"] = route.scope
    return operation


def _parameters(route: Route, schemas: Schemas) -> list[Json]:
    parameters = []
    for name in route.path_names:
        kind = route.parameters.get(name)
        schema = _PATH_VALUE if kind is None else schemas.of(kind)
        parameter = {"name": name, "in": "path", "required": True, "schema": schema}
        if about := words()["path"].get(name):
            parameter["description"] = about
        parameters.append(parameter)
    if route.query is not None:
        parameters.extend(schemas.parameters(route.query))
    if route.idempotent:
        parameters.append({"$ref": "#/components/parameters/IdempotencyKey"})
    elif route.key_header:
        parameters.append({"name": route.key_header, **_OPTIONAL_KEY})
    if route.conditional:
        parameters.append({"$ref": "#/components/parameters/IfMatch"})
    return parameters


def _responses(surface: Surface, route: Route, schemas: Schemas) -> Json:
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
