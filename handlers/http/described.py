"""The words of the OpenAPI document: tags, and each property by its own description, its docstring or its name.

A property is described by the first of: the description of its type; the text beneath it in its class, as for any
attribute; `Class.name` in descriptions.toml; the sentence of the class's docstring that names it in backticks; `name`
in descriptions.toml.
"""

from __future__ import annotations

import ast
import functools
import inspect
import re
import tomllib
from importlib import resources
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from handlers.http.surface import Json

_SENTENCE = re.compile(r"(?<=[.!?])\s+")


@functools.cache
def words() -> Mapping[str, Mapping[str, str]]:
    """Return the tables of descriptions.toml: `tags` in their order, `properties`, `path`."""
    file = resources.files("handlers.http").joinpath("descriptions.toml")
    found: Mapping[str, Mapping[str, str]] = tomllib.loads(file.read_text(encoding="utf-8"))
    return found


def tags(used: set[str]) -> list[Json]:
    """Return the tags that are used, in the order of descriptions.toml, each with its description."""
    known = words()["tags"]
    return [
        *({"name": tag, "description": known[tag]} for tag in known if tag in used),
        *({"name": tag} for tag in sorted(used - known.keys())),
    ]


def describe_by_hand(name: str, schema: Json) -> None:
    """Describe the properties of a schema that no class stands behind."""
    table = words()["properties"]
    for field, told in schema.get("properties", {}).items():
        if about := table.get(f"{name}.{field}") or table.get(field):
            told.setdefault("description", about)


class Described:
    """The describer of one document's properties, which reads each module's source once."""

    def __init__(self) -> None:
        self._modules: dict[str, dict[str, dict[str, str]]] = {}

    def fill(self, schema: Json, kind: type) -> None:
        """Describe the class and each of its properties where that is not done yet."""
        about = inspect.cleandoc(kind.__doc__ or "")
        if about:
            schema["description"] = about
        for name, field in schema.get("properties", {}).items():
            if "description" not in field and (found := self._of(kind, name, about, field)):
                field["description"] = found

    def _of(self, kind: type, name: str, about: str, field: Json) -> str | None:
        for part in field.get("anyOf", ()):  # the description of a type that may be null stands within
            if "description" in part:
                text: str = part.pop("description")
                return text
        own = next((docs[name] for base in kind.__mro__ if name in (docs := self._attributes(base))), None)
        table = words()["properties"]
        return own or table.get(f"{kind.__name__}.{name}") or _sentence_about(name, about) or table.get(name)

    def _attributes(self, kind: type) -> Mapping[str, str]:
        """Return the texts beneath the attributes of a class."""
        if kind.__module__ not in self._modules:
            self._modules[kind.__module__] = _attribute_docs(kind)
        return self._modules[kind.__module__].get(kind.__qualname__, {})


def _attribute_docs(kind: type) -> dict[str, dict[str, str]]:
    module = inspect.getmodule(kind)
    try:
        tree = ast.parse(inspect.getsource(module)) if module is not None else ast.Module([], [])
    except (OSError, TypeError):
        return {}
    found: dict[str, dict[str, str]] = {}
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            docs = found.setdefault(node.name, {})
            for attribute, text in zip(node.body, node.body[1:], strict=False):
                if (
                    isinstance(attribute, ast.AnnAssign)
                    and isinstance(attribute.target, ast.Name)
                    and isinstance(text, ast.Expr)
                    and isinstance(text.value, ast.Constant)
                    and isinstance(text.value.value, str)
                ):
                    docs[attribute.target.id] = inspect.cleandoc(text.value.value)
    return found


def _sentence_about(name: str, about: str) -> str | None:
    """Return the sentence of a docstring that names a property."""
    for sentence in _SENTENCE.split(about.replace("\n", " ")):
        if f"`{name}`" in sentence:
            return sentence
    return None


def operation_words(handler: Any, description: str) -> str:
    """Return the description of an operation: its own, or else the docstring of its handler."""
    return description or inspect.cleandoc(inspect.getdoc(handler) or "")
