"""Documents and comments: words are defined, journeys name functions that exist, sentences begin with a subject."""

from __future__ import annotations

import ast
import importlib
import io
import re
import tokenize
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from ops.catalogue import catalogue

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[1]
GLOSSARY = (ROOT / "docs" / "glossary.md").read_text()
CONTRIBUTING = (ROOT / "docs" / "contributing.md").read_text()

WORDS: dict[str, str] = dict(re.findall(r"^- \*\*(.+?)\*\*: (.+)$", GLOSSARY, re.MULTILINE))
# Hops that a journey may have: a newcomer can follow so many in one sitting.
JOURNEYS = {"POST /v1/transfers": 14, "Paying a QR code": 12}

FOLDERS = ("core", "handlers", "jobs", "loadtests", "ops", "sql/functions", "sql/queries")
# A sentence that begins so has no noun as its subject. A question, which ends in `?`, may.
_PRONOUN = re.compile(r"(What|Whatever|Of|Who|Whoever|Whose)\b")
_SENTENCE = re.compile(r"(?<=[.!?])\s+")
# Directives to tools, which are no prose.
_DIRECTIVE = re.compile(r"#\s*(noqa|type:|fmt:|pragma|!)")


def joined(lines: list[tuple[int, str]]) -> Iterator[tuple[int, str]]:
    """Yield the blocks of neighbouring comment lines, each with the number of its first line."""
    start, previous, block = 0, -1, list[str]()
    for number, text in lines:
        if number != previous + 1 and block:
            yield start, " ".join(block)
            block = []
        if not block:
            start = number
        block.append(text)
        previous = number
    if block:
        yield start, " ".join(block)


def python_prose(text: str) -> Iterator[tuple[int, str]]:
    """Yield every docstring and every block of comments of a Python file, with its line."""
    lines = []
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT and not _DIRECTIVE.match(token.string):
            comment = token.string.lstrip("#: ").removeprefix("--- ")
            if token.line.lstrip().startswith("#"):
                lines.append((token.start[0], comment))
            else:
                yield token.start[0], comment
    yield from joined(lines)
    for node in documented(ast.parse(text)):
        for paragraph in (ast.get_docstring(node) or "").split("\n\n"):
            yield getattr(node, "lineno", 1), " ".join(paragraph.split())


def documented(node: ast.AST) -> Iterator[ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef]:
    """Yield what may have a docstring. Statements alone are walked through: expressions are nine tenths of a tree."""
    if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        yield node
    for name in ("body", "orelse", "handlers", "finalbody", "cases"):
        for one in getattr(node, name, ()):
            yield from documented(one)


def other_prose(text: str, sign: str) -> Iterator[tuple[int, str]]:
    """Yield every block of comments of a file whose comments begin with `sign`."""
    lines = []
    for number, line in enumerate(text.splitlines(), 1):
        before, found, comment = line.partition(sign)
        if found and not before.strip() and not comment.startswith(" name: "):
            lines.append((number, comment.strip()))
        elif found and before.strip():
            yield number, comment.strip()
    yield from joined(lines)


def prose(path: Path) -> Iterator[tuple[int, str]]:
    text = path.read_text()
    return python_prose(text) if path.suffix == ".py" else other_prose(text, "--")


def faults(folder: str) -> list[str]:
    """Return the sentences below `folder`, a folder or a file, that begin with a pronoun or a preposition."""
    top = ROOT / folder
    paths = [top] if top.is_file() else sorted(top.rglob("*"))
    return [
        f"{path.relative_to(ROOT)}:{line}: {sentence[:80]}"
        for path in paths
        if path.suffix in {".py", ".sql", ".lua"}
        for line, block in prose(path)
        for sentence in _SENTENCE.split(block)
        if is_fault(sentence)
    ]


def is_fault(sentence: str) -> bool:
    """Whether a sentence begins with a pronoun or a preposition and is no question."""
    return _PRONOUN.match(sentence) is not None and not sentence.endswith("?")


def is_known(name: str) -> bool:
    """Whether `name` is a function of core or handlers by its dotted path, or a function of the database."""
    if "." not in name:
        functions = "".join(path.read_text() for path in (ROOT / "sql" / "functions").glob("*.sql"))
        return f"FUNCTION {name}(" in functions
    parts = name.split(".")
    for length in range(len(parts) - 1, 0, -1):
        if (ROOT / "/".join(parts[:length])).with_suffix(".py").exists():
            found: object = importlib.import_module(".".join(parts[:length]))
            for part in parts[length:]:
                found = getattr(found, part, None)
            return callable(found)
    return False


def hops(journey: str) -> list[str]:
    """Return the functions of a journey: the first name in backticks of each item of its numbered list."""
    section = CONTRIBUTING.partition(f"### {journey}\n")[2].partition("\n#")[0]
    return re.findall(r"^\d+\. `([\w.]+)`", section, re.MULTILINE)


def test_the_glossary_has_one_sentence_for_each_word_in_the_order_of_the_alphabet() -> None:
    assert len(WORDS) == len(re.findall(r"^- ", GLOSSARY, re.MULTILINE)) >= 30
    assert list(WORDS) == sorted(WORDS)
    assert [word for word, says in WORDS.items() if not re.fullmatch(r"[^.]+(\.\d[^.]*)*\.", says)] == []


def test_the_catalogue_of_refusals_is_that_of_the_tables() -> None:
    written = (ROOT / "docs" / "errors.md").read_text()

    assert written == catalogue(), "python -m ops.catalogue > docs/errors.md"


def test_every_word_of_the_glossary_is_used() -> None:
    files = [*(ROOT / "core").rglob("*.py"), *(ROOT / "docs").glob("[!g]*.md")]
    used = " ".join(path.read_text() for path in files).lower()

    assert [word for word in WORDS if not re.search(rf"\b{word}", used)] == []


@pytest.mark.parametrize("document", ["README.md", "CHANGELOG.md", "docs"])
def test_sentences_of_documents_begin_with_a_subject(document: str) -> None:
    top = ROOT / document
    found = []
    for path in [top] if top.is_file() else sorted(top.rglob("*.md")):
        text = re.sub(r"^```.*?^```", "", path.read_text(), flags=re.DOTALL | re.MULTILINE)
        for block in re.split(r"\n\s*\n|\n(?=\s*[-|#\d])|\|", text):
            sentences = _SENTENCE.split(" ".join(block.split()).lstrip("-|#*`_. 0123456789"))
            found += [f"{path.name}: {each[:80]}" for each in sentences if is_fault(each)]

    assert found == []


def test_sentences_begin_with_a_subject() -> None:
    assert [fault for folder in FOLDERS for fault in faults(folder)] == []


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("# What is gone is gone.\n", False),
        ("# The row is gone. Of\n# course it is.\n", False),
        ("# The row is gone.\n# Whoever took it has it.\n", False),
        ('"""A row.\n\nWho may read it.\n"""\n', False),
        ("x = 1  # Who knows.\n", False),
        (
            "# Who may call? The caller with a key, and what it\n# What is in the middle of a sentence.\n",
            True,
        ),
        ("# Often, and whatever else it is: a row.\n", True),
    ],
)
def test_a_sentence_without_a_subject_is_found(text: str, *, clean: bool) -> None:
    found = [
        sentence
        for _, block in python_prose(text)
        for sentence in _SENTENCE.split(block)
        if is_fault(sentence)
    ]

    assert (found == []) is clean


@pytest.mark.parametrize(("journey", "most"), JOURNEYS.items())
def test_a_journey_is_short_and_names_functions_that_exist(journey: str, most: int) -> None:
    named = hops(journey)

    assert 3 <= len(named) <= most
    assert [name for name in named if not is_known(name)] == []


@pytest.mark.parametrize(
    "document",
    sorted(str(path.relative_to(ROOT / "docs")) for path in (ROOT / "docs").glob("[!a]*/*.md"))
    + sorted(path.name for path in (ROOT / "docs").glob("*.md")),
)
def test_paths_that_a_document_names_exist(document: str) -> None:
    text = (ROOT / "docs" / document).read_text()
    top = r"(?:core|handlers|jobs|ops|sql|tests|docs|examples|loadtests)"
    named = set(re.findall(rf"`({top}/[\w./-]*\w)`", text)) | set(re.findall(r"\]\(([\w./-]+)[)#]", text))

    assert [
        path
        for path in sorted(named)
        if not (ROOT / path).exists()
        and not (ROOT / "docs" / document).parent.joinpath(path).exists()
        and "results/" not in path
    ] == []
