"""The plan of a migration: whether traffic goes on beside it, the locks it takes, and what makes others wait.

All of it is read from the file's text, so that `tallystick migrate --plan` writes nothing and locks nothing.
"""

from __future__ import annotations

import functools
import re
import tomllib
from importlib import resources
from typing import TYPE_CHECKING, Final, NamedTuple

from core.errors import Refusal

if TYPE_CHECKING:
    from collections.abc import Iterator

# Modes that PostgreSQL knows, from the weakest that is shown to the strongest. Readers wait for the last one alone.
MODES: Final = (
    "ROW EXCLUSIVE",
    "SHARE UPDATE EXCLUSIVE",
    "SHARE",
    "SHARE ROW EXCLUSIVE",
    "EXCLUSIVE",
    "ACCESS EXCLUSIVE",
)
# Tables with a row for each endpoint, source or currency, or with one row: to read them takes milliseconds.
SMALL: Final = frozenset(
    {
        "agents",
        "epochs",
        "feed_head",
        "inbox_sources",
        "kaspi_configs",
        "platform_settings",
        "webhook_endpoints",
    }
)
_STATEMENT = re.compile(r"^-- online: (yes|no), (\S.*)$", re.MULTILINE)

_NAME = r"(?:IF (?:NOT )?EXISTS )?(?:ONLY )?(\w+)"
_CREATED = re.compile(rf"\bCREATE (?:TEMPORARY |UNLOGGED )?TABLE {_NAME}")
_INDEX = re.compile(r"\bCREATE (?:UNIQUE )?INDEX (CONCURRENTLY )?(?:IF NOT EXISTS )?(\w+) ON (?:ONLY )?(\w+)")
_ALTER = re.compile(rf"\bALTER TABLE {_NAME} ([^;]+)")
_ROWS = re.compile(r"\b(?:UPDATE (?:ONLY )?(\w+)(?: AS \w+)? SET|DELETE[ ]FROM (\w+)|INSERT[ ]INTO (\w+))\b")
_OTHERS: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"\bREFERENCES (\w+)"), "SHARE ROW EXCLUSIVE"),
    (re.compile(r"\bCREATE (?:CONSTRAINT )?TRIGGER \w+ [^;]*? ON (\w+)"), "SHARE ROW EXCLUSIVE"),
    (re.compile(rf"\b(?:DROP TABLE|TRUNCATE(?: TABLE)?) {_NAME}"), "ACCESS EXCLUSIVE"),
    (re.compile(r"\bPARTITION OF (\w+)"), "ACCESS EXCLUSIVE"),
)
_DROPPED_INDEX = re.compile(rf"\bDROP INDEX (?:CONCURRENTLY )?{_NAME}")
# The forms of ALTER TABLE that let writers go on.
_GENTLE = re.compile(r"VALIDATE CONSTRAINT|SET \(|RESET \(|ALTER COLUMN \w+ SET STATISTICS|ATTACH PARTITION")
# The forms that read or rewrite each row while the table is locked.
_READS_ROWS = re.compile(
    r"\bCHECK \(|\bSET NOT NULL|\bREFERENCES\b|\bPRIMARY KEY|\bUNIQUE\b|\bTYPE\b|GENERATED ALWAYS|\bclock_timestamp\(|"
    r"\bgen_random_uuid\(|\bFOREIGN KEY"
)
_TAKES_AWAY = re.compile(r"\bDROP COLUMN|\bRENAME (?!TO |CONSTRAINT )")
_RENAMED = re.compile(r"\bALTER TABLE \w+ RENAME TO (\w+)")


class Online(NamedTuple):
    """The statement of a migration about itself: whether it may run beside traffic, and why, or why not."""

    yes: bool
    why: str


class Step(NamedTuple):
    """One outstanding file as `--plan` shows it: `locks` by table or index, `functions` that are made anew."""

    name: str
    online: Online
    locks: dict[str, str]
    functions: tuple[str, ...]


def online(name: str, text: str) -> Online:
    """Return what the migration `name` says of itself; raises Refusal `migration_unsaid` when it says nothing.

    The statement is the comment line `-- online: yes, why` or `-- online: no, why`. Files from before there was such a
    line may not change; `sql/migrations/online.toml` speaks for them.
    """
    said = _earlier().get(name.rpartition("/")[2].removesuffix(".sql"))
    found = _STATEMENT.findall(text) if said is None else _STATEMENT.findall(f"-- online: {said}")
    if len(found) != 1:
        raise Refusal("migration_unsaid", f"{name} has no line of the form `-- online: yes|no, why`.")
    return Online(found[0][0] == "yes", found[0][1].strip())


@functools.cache
def _earlier() -> dict[str, str]:
    text = resources.files("sql").joinpath("migrations", "online.toml").read_text()
    said: dict[str, str] = tomllib.loads(text)
    return said


def online_functions(text: str, there: list[tuple[str, str, str]]) -> Online:
    """Return whether the functions of a file can be called as before. `there` are those of the database.

    Each of them is its name, its parameters and its result, as PostgreSQL writes them.
    """
    known: dict[str, set[tuple[str, str]]] = {}
    for name, arguments, result in there:
        # The text names no result beside OUT parameters.
        told = "" if "OUT " in arguments else result
        known.setdefault(name, set()).add((_type_words(arguments), _type_words(told)))
    other = sorted(
        name for name, *called in _signatures(text) if known.get(name, {tuple(called)}) != {tuple(called)}
    )
    if other:
        return Online(yes=False, why=f"the version before calls {', '.join(other)} in another way")
    return Online(yes=True, why="each function is replaced at once, and called as before")


def locks(text: str) -> dict[str, str]:
    """Return the strongest lock that the text takes on each table that it does not make itself.

    A dropped index stands as `index <name>`: its table, which the text does not name, is locked with it.
    """
    found: dict[str, str] = {}
    for statement, made in _statements(text):
        for table, mode in _taken(statement):
            if table not in made and MODES.index(mode) >= MODES.index(found.get(table, MODES[0])):
                found[table] = mode
    return found


def is_gentle(text: str) -> bool:
    """Whether readers and writers of all tables that were there before go on while the text runs, however long."""
    return all(mode in MODES[:2] for mode in locks(text).values())


def blocking(text: str) -> list[str]:
    """Return why others wait for longer than a moment, or miss something, while the text runs: a sentence each.

    Statements about tables that the text makes itself, or that have a few rows, hold nobody up.
    """
    successors = set(_CREATED.findall(_plain(text)))
    return [
        why
        for statement, made in _statements(text)
        for why in (*_waits(statement, made | SMALL), *_misses(statement, successors))
    ]


def _waits(statement: str, free: set[str]) -> Iterator[str]:
    """Yield why others wait for a statement; nobody does for tables that are `free`."""
    for concurrently, index, table in _INDEX.findall(statement):
        if table not in free and not concurrently:
            yield f"writes to {table} wait while the index {index} is built"
    for table, change in _ALTER.findall(statement):
        gentle = _GENTLE.match(change) or "NOT VALID" in change
        if table not in free and not gentle and _READS_ROWS.search(change):
            yield f"{table} is read as a whole while nobody else may use it"
    for updated, deleted, _ in _ROWS.findall(statement):
        if (table := updated or deleted) and table not in free:
            yield f"rows of {table} are changed in one transaction, and stay locked until its end"


def _misses(statement: str, successors: set[str]) -> Iterator[str]:
    """Yield the losses of the version before; a table that makes room for a successor of its name is none."""
    for table, change in _ALTER.findall(statement):
        renamed = change.startswith("RENAME TO ") and table not in successors
        if renamed or _TAKES_AWAY.search(change):
            yield f"the version before misses what is gone from {table}"
    for table in re.findall(rf"\bDROP TABLE {_NAME}", statement):
        yield f"the version before misses {table}"


def _statements(text: str) -> Iterator[tuple[str, set[str]]]:
    """Yield each statement with the tables that the text has made by then, the statement's own among them."""
    made: set[str] = set()
    for statement in _plain(text).split(";"):
        made |= set(_CREATED.findall(statement))
        yield statement, made
        made |= set(_RENAMED.findall(statement))


def is_concurrent(text: str) -> bool:
    """Whether the file is one statement that PostgreSQL runs outside of a transaction: an index made CONCURRENTLY."""
    return _INDEX.search(_plain(text)) is not None and " CONCURRENTLY " in _plain(text)


def concurrent_index(text: str) -> str:
    """Return the index that such a file makes."""
    found = _INDEX.search(_plain(text))
    return found[2] if found is not None else ""


def function_names(text: str) -> tuple[str, ...]:
    """Return the functions that the text creates."""
    return tuple(re.findall(r"^CREATE OR REPLACE FUNCTION (\w+)", text, flags=re.MULTILINE))


def _signatures(text: str) -> Iterator[tuple[str, str, str]]:
    """Return name, parameters and result of each function that the text creates, in comparable words."""
    for found in re.finditer(r"\bCREATE OR REPLACE FUNCTION (\w+)", text):
        rest = text[found.end() :]
        depth, end = 0, 0
        for end, sign in enumerate(rest):  # noqa: B007 - the place of the parenthesis that closes the first one
            depth += (sign == "(") - (sign == ")")
            if depth == 0:
                break
        result = re.match(r"\s*RETURNS (.*?)\s+LANGUAGE\b", rest[end + 1 :], re.DOTALL)
        yield found[1], _type_words(rest[1:end]), _type_words(result[1] if result is not None else "")


def _type_words(text: str) -> str:
    text = re.sub(r"\s+DEFAULT [^,]+", "", _plain(text), flags=re.IGNORECASE).lower()
    text = text.replace("timestamptz", "timestamp with time zone")
    return re.sub(r"\s*([(),\[\]])\s*", r"\1", text).strip()


def _taken(text: str) -> Iterator[tuple[str, str]]:
    for concurrently, _, table in _INDEX.findall(text):
        yield table, "SHARE UPDATE EXCLUSIVE" if concurrently else "SHARE"
    for table, change in _ALTER.findall(text):
        yield table, "SHARE UPDATE EXCLUSIVE" if _GENTLE.match(change) else "ACCESS EXCLUSIVE"
    for tables in _ROWS.findall(text):
        yield next(table for table in tables if table), "ROW EXCLUSIVE"
    for pattern, mode in _OTHERS:
        for table in pattern.findall(text):
            yield table, mode
    for index in _DROPPED_INDEX.findall(text):
        yield f"index {index}", "ACCESS EXCLUSIVE"


def _plain(text: str) -> str:
    """Return the text without comments, with one space for each run of white space."""
    return " ".join(re.sub(r"--[^\n]*", "", text).split())
