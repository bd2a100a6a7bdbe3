"""Panels and boards, and the documents in which Grafana keeps them."""

from __future__ import annotations

import json
from typing import Any, Final, NamedTuple

# Grafana's grid has so many columns.
COLUMNS: Final = 24
HEIGHT: Final = 8
# The version of the format that Grafana 10 writes; later ones read it.
SCHEMA_VERSION: Final = 39
DATASOURCE: Final = {"type": "prometheus", "uid": "${datasource}"}


class Panel(NamedTuple):
    """A panel: each of `queries` is an expression and the legend of its series. `kind` is Grafana's type."""

    title: str
    unit: str
    queries: tuple[tuple[str, str], ...]
    about: str = ""
    kind: str = "timeseries"
    # From this value on the panel is red.
    bad_from: float | None = None


class Board(NamedTuple):
    """A dashboard: rows with their titles."""

    name: str
    title: str
    rows: tuple[tuple[str, tuple[Panel, ...]], ...]


def quantiles(title: str, metric: str, by: str = "", where: str = "", unit: str = "s") -> Panel:
    """Return a panel of the median, the 95th and the 99th percentile of a histogram."""
    labels = f"le, {by}" if by else "le"
    legend = f" {{{{{by}}}}}" if by else ""
    return Panel(
        title,
        unit,
        tuple(
            (
                f"histogram_quantile({share}, sum by ({labels}) (rate({metric}_bucket{where}[$__rate_interval])))",
                f"{name}{legend}",
            )
            for share, name in ((0.5, "p50"), (0.95, "p95"), (0.99, "p99"))
        ),
    )


def rate(title: str, metric: str, by: str, where: str = "", unit: str = "ops") -> Panel:
    """Return a panel of a counter's rates by one label."""
    return Panel(
        title, unit, ((f"sum by ({by}) (rate({metric}{where}[$__rate_interval]))", f"{{{{{by}}}}}"),)
    )


def now(title: str, unit: str, query: str, bad_from: float, about: str = "") -> Panel:
    """Return a panel of one number as it is now, red from `bad_from` on."""
    return Panel(title, unit, ((query, ""),), about, kind="stat", bad_from=bad_from)


def lines(title: str, unit: str, *queries: tuple[str, str], about: str = "") -> Panel:
    """Return a panel of one line for each series."""
    return Panel(title, unit, queries, about)


def document(board: Board) -> dict[str, Any]:
    """Return a dashboard as Grafana keeps it."""
    panels: list[dict[str, Any]] = []
    top = 0
    for title, row in board.rows:
        panels.append(
            {
                "id": len(panels) + 1,
                "type": "row",
                "title": title,
                "collapsed": False,
                "panels": [],
                "gridPos": {"h": 1, "w": COLUMNS, "x": 0, "y": top},
            }
        )
        top += 1
        width, height = (3, 4) if row[0].kind == "stat" else (8, HEIGHT)
        across = COLUMNS // width
        for place, panel in enumerate(row):
            at = {"h": height, "w": width, "x": place % across * width, "y": top + place // across * height}
            panels.append(_panel(panel, len(panels) + 1, at))
        top += -(-len(row) // across) * height
    return {
        "uid": f"tallystick-{board.name}",
        "title": board.title,
        "tags": ["tallystick"],
        "schemaVersion": SCHEMA_VERSION,
        "version": 1,
        "editable": True,
        "graphTooltip": 1,
        "timezone": "utc",
        "refresh": "30s",
        "time": {"from": "now-3h", "to": "now"},
        "templating": {"list": [_DATASOURCE_VARIABLE]},
        "annotations": {"list": []},
        "links": [_LINKS],
        "panels": panels,
    }


_DATASOURCE_VARIABLE: Final = {
    "name": "datasource",
    "label": "Prometheus",
    "type": "datasource",
    "query": "prometheus",
    "current": {},
    "hide": 0,
    "includeAll": False,
    "multi": False,
    "options": [],
    "refresh": 1,
    "regex": "",
    "skipUrlSync": False,
}
_LINKS: Final = {
    "title": "Tallystick",
    "type": "dashboards",
    "tags": ["tallystick"],
    "asDropdown": True,
    "icon": "external link",
    "includeVars": True,
    "keepTime": True,
    "targetBlank": False,
    "tooltip": "",
    "url": "",
}


def _panel(panel: Panel, number: int, at: dict[str, int]) -> dict[str, Any]:
    steps: list[dict[str, Any]] = [{"color": "green", "value": None}]
    if panel.bad_from is not None:
        steps.append({"color": "red", "value": panel.bad_from})
    options: dict[str, Any] = (
        {
            "colorMode": "background",
            "graphMode": "area",
            "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
        }
        if panel.kind == "stat"
        else {
            "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True, "calcs": []},
            "tooltip": {"mode": "multi", "sort": "desc"},
        }
    )
    return {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.about,
        "gridPos": at,
        "datasource": DATASOURCE,
        "fieldConfig": {
            "defaults": {"unit": panel.unit, "thresholds": {"mode": "absolute", "steps": steps}},
            "overrides": [],
        },
        "options": options,
        "targets": [
            {"refId": chr(ord("A") + place), "datasource": DATASOURCE, "expr": query, "legendFormat": legend}
            for place, (query, legend) in enumerate(panel.queries)
        ],
    }


def text_of(board: Board) -> str:
    """Return the text of a dashboard's file."""
    return json.dumps(document(board), indent=1, ensure_ascii=False) + "\n"
