"""The schemas of the OpenAPI document: of msgspec's and pydantic's types, under names that any language can use."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, get_args

import msgspec
import pydantic
from pydantic.json_schema import models_json_schema

from handlers.http.described import Described
from handlers.http.surface import Json, Surface
from handlers.http.times import custom_schema

if TYPE_CHECKING:
    from handlers.http.route import Route

REF = "#/components/schemas/"
# The pattern of a text without the characters that `decoding` refuses.
NO_CONTROLS = r"^[^\u0000-\u001f\u007f-\u009f]*$"
# The keywords of a schema that hold values and not schemas.
_VALUES = {"const", "enum", "examples", "required"}


class Schemas:
    """The schemas of all types of the shown routes, with the rules of the decoder beyond the types.

    A field that a caller may leave out has no default, since generators demand fields with one. A field that is always
    in an answer is required.
    """

    def __init__(self, shown: Sequence[tuple[Surface, Route]]) -> None:
        routes = [(surface.pydantic, route) for surface, route in shown]
        strict = _unique(kind for lenient, route in routes if not lenient for kind in _asked(route))
        lenient = _unique(kind for lenient, route in routes if lenient for kind in _asked(route))
        answered = _unique(kind for _, route in routes for kind in route.answers.values() if kind is not None)
        types = _unique([*strict, *answered])
        schemas, components = msgspec.json.schema_components(
            types, ref_template=REF + "{name}", schema_hook=custom_schema
        )
        self._of = dict(zip(types, schemas, strict=True))
        reached = msgspec.json.schema_components(
            strict, ref_template=REF + "{name}", schema_hook=custom_schema
        )[1]
        for part in (
            *(components[name] for name in reached if name in components),
            *map(self._of.get, strict),
        ):
            _refuse_control_characters(part)
        classes = _classes(types)
        told, more, models = _lenient(lenient)
        self._of |= {kind: schema for kind, schema in told.items() if kind not in self._of}
        components, classes = components | more, classes | models
        names = _names({name: classes[name] for name in components})
        self._of = {kind: _renamed(schema, names) for kind, schema in self._of.items()}
        self.components = {names[name]: _renamed(schema, names) for name, schema in components.items()}
        described = Described()
        for name in components:
            kind = classes[name]
            if name not in reached and not issubclass(kind, pydantic.BaseModel):
                _require_what_comes(self.components[names[name]], kind)
            described.fill(self.components[names[name]], kind)
        for schema in (*self.components.values(), *self._of.values()):
            finish(schema)
        queries = {route.query for _, route in routes if route.query is not None}
        self._queries = {query: self.components.pop(self._name(query)) for query in queries}

    def of(self, kind: Any) -> Json:
        """Return the schema of a body, an answer or a path value."""
        schema: Json = self._of[kind]
        return schema

    def is_needed(self, body: Any) -> bool:
        """Whether a body must be sent: one that may be empty may be absent."""
        name = self._name(body)
        return name in self.components and bool(self.components[name].get("required"))

    def parameters(self, query: Any) -> Iterator[Json]:
        """Return the parameters that a query type stands for. A query has no null, only absence."""
        schema = self._queries[query]
        for name, field in schema.get("properties", {}).items():
            told = dict(field)
            about = told.pop("description", None)
            kinds = [kind for kind in told.pop("anyOf", ()) if kind != {"type": "null"}]
            if len(kinds) == 1:
                told |= kinds[0]
                about = about or told.pop("description", None)
                told.pop("description", None)
            elif kinds:
                told["anyOf"] = kinds
            parameter = {
                "name": name,
                "in": "query",
                "required": name in schema.get("required", ()),
                "schema": told,
            }
            yield {**parameter, "description": about} if about else parameter

    def _name(self, kind: Any) -> str:
        return str(self._of[kind].get("$ref", "")).removeprefix(REF)


def finish(schema: Any) -> None:
    """Give every whole number its size, and take away what only confuses generators: titles and defaults.

    A default is told in the description.
    """
    if isinstance(schema, list):
        for part in schema:
            finish(part)
    elif isinstance(schema, dict):
        if schema.get("type") == "integer":
            schema.setdefault("format", "int64")
        schema.pop("title", None)
        if (told := _told(schema.pop("default", None))) and "absent" not in schema.get("description", ""):
            schema["description"] = f"{schema.get('description', '')} When absent: {told}.".strip()
        for name, part in schema.items():
            if name == "properties":
                finish(list(part.values()))
            elif name not in _VALUES:
                finish(part)


def _told(default: Any) -> str:
    """Return a default as a word; nothing for those that say nothing: null, and empty texts, lists and objects."""
    if default is None or isinstance(default, (dict, list)) or default == "":
        return ""
    return f"`{default}`" if isinstance(default, str) else f"`{msgspec.json.encode(default).decode()}`"


def _unique(kinds: Any) -> list[Any]:
    return list(dict.fromkeys(kinds))


def _asked(route: Route) -> list[Any]:
    return [kind for kind in (route.body, route.query, *route.parameters.values()) if kind is not None]


def _is_model(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, pydantic.BaseModel)


def _lenient(kinds: Sequence[Any]) -> tuple[dict[Any, Json], dict[str, Json], dict[str, type]]:
    """Return the schemas of the types that pydantic reads, its models' components, and their classes by name."""
    schemas = {kind: pydantic.TypeAdapter(kind).json_schema() for kind in kinds if not _is_model(kind)}
    models = _unique(model for kind in kinds if _is_model(kind) for model in _models_in(kind))
    if not models:
        return schemas, {}, {}
    template = f"{REF}pydantic.{{model}}"
    refs, whole = models_json_schema([(model, "validation") for model in models], ref_template=template)
    schemas |= {model: dict(schema) for (model, _), schema in refs.items()}
    classes = {str(schemas[model]["$ref"]).removeprefix(REF): model for model in models}
    return schemas, {f"pydantic.{name}": schema for name, schema in whole["$defs"].items()}, classes


def _models_in(kind: Any) -> Iterator[type[pydantic.BaseModel]]:
    """Yield a model and the models of its fields."""
    if _is_model(kind):
        yield kind
        for field in kind.model_fields.values():
            yield from _models_in(field.annotation)
    for part in get_args(kind):
        yield from _models_in(part)


def _classes(types: Sequence[Any]) -> dict[str, type]:
    """Return the classes behind msgspec's components by the names that msgspec gives them."""
    found: dict[type, None] = {}

    def walk(info: Any) -> None:
        if isinstance(info, (tuple, list)):
            for part in info:
                walk(part)
        elif isinstance(info, msgspec.inspect.Type):
            kind = getattr(info, "cls", None)
            if kind in found:
                return
            if isinstance(info, msgspec.inspect.StructType):
                found[info.cls] = None
                for field in info.fields:
                    walk(field.type)
            else:
                for name in info.__struct_fields__:
                    walk(getattr(info, name))

    walk(msgspec.inspect.multi_type_info(types))
    named = defaultdict(list)
    for kind in found:
        named[kind.__name__].append(kind)
    return {
        kind.__name__ if len(kinds) == 1 else f"{kind.__module__}.{kind.__qualname__}": kind
        for kinds in named.values()
        for kind in kinds
    }


def _names(classes: Mapping[str, type]) -> dict[str, str]:
    """Return a name for each component: its class's, with that of the module before it where two classes share one."""
    sharing = defaultdict(list)
    for component, kind in classes.items():
        sharing[kind.__name__].append(component)
    names: dict[str, str] = {}
    for name, components in sharing.items():
        for component in components:
            stem = classes[component].__module__.rpartition(".")[2]
            prefix = "" if len(components) == 1 else "".join(part.title() for part in stem.split("_"))
            names[component] = re.sub(r"\W", "", prefix + name)
    if len(set(names.values())) < len(names):
        raise ValueError(f"two schemas have one name: {sorted(names.values())}")
    return names


def _renamed(schema: Any, names: Mapping[str, str]) -> Any:
    """Return a copy of a schema with its references by the new names."""
    if isinstance(schema, list):
        return [_renamed(part, names) for part in schema]
    if not isinstance(schema, dict):
        return schema
    found = {name: _renamed(part, names) for name, part in schema.items()}
    if isinstance(reference := found.get("$ref"), str):
        found["$ref"] = REF + names[reference.removeprefix(REF)]
    return found


def _require_what_comes(schema: Json, kind: type) -> None:
    """Mark as required what is in each answer: all but what is left out when it is unset or has its default."""
    if not issubclass(kind, msgspec.Struct) or kind.__struct_config__.omit_defaults:
        return
    schema["required"] = [
        field.encode_name for field in msgspec.structs.fields(kind) if field.default is not msgspec.UNSET
    ]


def _refuse_control_characters(schema: Any) -> None:
    """Add to every free text, keys included, that it holds no control characters."""
    if isinstance(schema, Mapping):
        if schema.get("type") == "string" and not schema.keys() & {"pattern", "format", "enum", "const"}:
            schema["pattern"] = NO_CONTROLS  # type: ignore[index]
        if schema.get("additionalProperties", False) is not False:
            schema.setdefault("propertyNames", {}).setdefault("pattern", NO_CONTROLS)  # type: ignore[attr-defined]
        for value in schema.values():
            _refuse_control_characters(value)
    elif isinstance(schema, list):
        for value in schema:
            _refuse_control_characters(value)
