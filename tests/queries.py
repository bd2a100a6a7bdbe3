"""Every query of the product, by the module that owns it."""

from pathlib import Path

from core.database import Query, queries

FOLDER = Path(__file__).resolve().parents[1] / "sql" / "queries"
MODULES = sorted(
    ".".join(("core", *file.relative_to(FOLDER).with_suffix("").parts)) for file in FOLDER.rglob("*.sql")
)
QUERIES: dict[str, Query] = {query.name: query for module in MODULES for query in queries(module)}

# Statements for databases of the services before, whose tables and dialects are not ours.
OF_SOURCES = frozenset(
    query.name
    for module in MODULES
    for query in queries(module)
    if module == "core.importing.sources" or query.name.startswith(("old_", "after_"))
)
# Statements that make the temporary tables of a comparison, which others read.
TEMPORARY = tuple(query for query in QUERIES.values() if "CREATE TEMPORARY TABLE" in query.text)
