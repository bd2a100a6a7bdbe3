"""Every query of the product, by the module that owns it."""

from pathlib import Path

from core.database import Query, queries

FOLDER = Path(__file__).resolve().parents[1] / "sql" / "queries"
MODULES = sorted(
    ".".join(("core", *file.relative_to(FOLDER).with_suffix("").parts)) for file in FOLDER.rglob("*.sql")
)
QUERIES: dict[str, Query] = {query.name: query for module in MODULES for query in queries(module)}
