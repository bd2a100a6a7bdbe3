"""A Postman collection (format 2.1) of the OpenAPI document: a folder for each tag, a request for each operation.

The collection has two variables, `url` and `token`. Bodies are the document's own examples, or made of its schemas.
"""

from __future__ import annotations

import json
from typing import Any, Final

SCHEMA: Final = "https://schema.getpostman.com/json/collection/v2.1.0/collection.json"
# A schema within a schema is shown so deep; some lead to themselves.
DEEPEST: Final = 6
_METHODS: Final = ("get", "post", "put", "patch", "delete")
_VALUES: Final = {"string": "", "integer": 1, "number": 1, "boolean": True, "null": None}

Json = dict[str, Any]


def collection(document: Json, url: str = "http://127.0.0.1:8080") -> Json:
    """Return the collection; `url` is the value of its variable."""
    folders: dict[str, list[Json]] = {}
    for path, operations in document["paths"].items():
        for method in _METHODS:
            if (operation := operations.get(method)) is not None:
                folders.setdefault(operation["tags"][0], []).append(
                    _item(document, path, method.upper(), operation)
                )
    about = {tag["name"]: tag.get("description", "") for tag in document["tags"]}
    info = document["info"]
    return {
        "info": {
            "name": info["title"],
            "description": info["summary"],
            "version": info["version"],
            "schema": SCHEMA,
        },
        "auth": {"type": "bearer", "bearer": [{"key": "token", "value": "{{token}}", "type": "string"}]},
        "variable": [{"key": "url", "value": url}, {"key": "token", "value": ""}],
        "item": [
            {"name": tag, "description": about.get(tag, ""), "item": items} for tag, items in folders.items()
        ],
    }


def _item(document: Json, path: str, method: str, operation: Json) -> Json:
    parameters = [_resolved(document, each) for each in operation.get("parameters", ())]
    places: dict[str, list[Json]] = {"path": [], "query": [], "header": []}
    for each in parameters:
        shown = {
            "key": each["name"],
            "value": str(_example(document, each.get("schema", {}) | each)),
            "description": each.get("description", ""),
        }
        if not each.get("required"):
            shown["disabled"] = True
        places.setdefault(each["in"], []).append(shown)
    # A key that repeats itself would give an old answer for a new request.
    for header in places["header"]:
        if header["key"] == "Idempotency-Key":
            header["value"] = "{{$guid}}"
    request: Json = {
        "method": method,
        "header": places["header"],
        "description": operation.get("description", ""),
        "url": {
            "raw": "{{url}}" + path.replace("{", ":").replace("}", ""),
            "host": ["{{url}}"],
            "path": [part.replace("{", ":").replace("}", "") for part in path.strip("/").split("/")],
            "variable": places["path"],
            "query": places["query"],
        },
    }
    content = _resolved(document, operation.get("requestBody", {})).get("content", {})
    if (body := content.get("application/json")) is not None:
        request["header"] = [{"key": "Content-Type", "value": "application/json"}, *request["header"]]
        request["body"] = {"mode": "raw", "raw": _text(_example(document, body.get("schema", {}) | body))}
    return {"name": operation.get("summary", f"{method} {path}"), "request": request, "response": []}


def _example(document: Json, schema: Json, depth: int = 0) -> Any:
    """Return the example of a schema, or one made of its fields."""
    schema = _resolved(document, schema)
    for word in ("example", "default", "const"):
        if word in schema:
            return schema[word]
    if examples := schema.get("examples"):
        return _first(document, examples)
    if choices := schema.get("enum"):
        return choices[0]
    for word in ("anyOf", "oneOf", "allOf"):
        if word in schema:
            return _example(document, schema[word][0], depth + 1)
    kind = schema.get("type")
    kind = kind[0] if isinstance(kind, list) else kind
    if depth > DEEPEST:
        return None
    if kind == "object" or "properties" in schema:
        required = set(schema.get("required", ()))
        fields = schema.get("properties", {})
        return {
            name: _example(document, field, depth + 1)
            for name, field in fields.items()
            if name in required or not required
        }
    if kind == "array":
        return [_example(document, schema.get("items", {}), depth + 1)]
    return _VALUES.get(kind or "", "")


def _first(document: Json, examples: Any) -> Any:
    if isinstance(examples, list):
        return examples[0]
    return _resolved(document, next(iter(examples.values()))).get("value")


def _resolved(document: Json, value: Json) -> Json:
    while "$ref" in value:
        target: Any = document
        for part in value["$ref"].removeprefix("#/").split("/"):
            target = target[part]
        value = target | {name: more for name, more in value.items() if name != "$ref"}
    return value


def _text(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False)
