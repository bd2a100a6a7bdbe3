"""The metrics that rules and dashboards ask Prometheus for, with the labels that an expression names."""

import json
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import yaml

ROOT = Path(__file__).resolve().parents[3]
PROMETHEUS = ROOT / "ops" / "prometheus"
DASHBOARDS = ROOT / "ops" / "grafana" / "dashboards"

_WORDS = {"and", "or", "unless", "bool", "offset"}
_GROUPING = re.compile(r"\b(?:by|on|without|ignoring|group_left|group_right)\s*\(([^)]*)\)")
_METRIC = re.compile(r"([a-zA-Z_:][a-zA-Z0-9_:]*)\s*(?:\{([^}]*)\})?(?!\s*\(|[a-zA-Z0-9_:])")
_LABEL = re.compile(r"\s*([a-zA-Z_]\w*)\s*(?:=~|!~|!=|=)")


class Asked(NamedTuple):
    """One expression: where it stands, the metrics with the labels of their matchers, the labels of groupings."""

    where: str
    metrics: dict[str, set[str]]
    groupings: set[str]


def parse(where: str, expression: str) -> Asked:
    """Read an expression as far as the names in it go."""
    expression = re.sub(r"\"[^\"]*\"", '""', expression)
    groupings = {
        label.strip()
        for found in _GROUPING.findall(expression)
        for label in found.split(",")
        if label.strip()
    }
    text = _GROUPING.sub(" ", expression)
    text = re.sub(r"\[[^\]]*\]", "", text)
    metrics: dict[str, set[str]] = {}
    for name, matchers in _METRIC.findall(text):
        if name not in _WORDS:
            metrics.setdefault(name, set()).update(_LABEL.findall(matchers))
    return Asked(where, metrics, groupings)


@cache
def rules() -> tuple[dict[str, Any], ...]:
    """Return every rule of ops/prometheus/rules."""
    files = [yaml.safe_load(path.read_text()) for path in sorted((PROMETHEUS / "rules").glob("*.yml"))]
    return tuple(rule for file in files for group in file["groups"] for rule in group["rules"])


@cache
def alerts() -> dict[str, dict[str, Any]]:
    """Return every alert by its name."""
    return {rule["alert"]: rule for rule in rules() if "alert" in rule}


def boards() -> dict[str, dict[str, Any]]:
    """Return every dashboard by the name of its file."""
    return {path.stem: json.loads(path.read_text()) for path in sorted(DASHBOARDS.glob("*.json"))}


def all_asked() -> Iterator[Asked]:
    """Yield every expression of rules and panels."""
    for rule in rules():
        yield parse(rule.get("alert") or rule["record"], rule["expr"])
    for name, board in boards().items():
        for panel in board["panels"]:
            for target in panel.get("targets", ()):
                yield parse(f"{name}: {panel['title']}", target["expr"])
