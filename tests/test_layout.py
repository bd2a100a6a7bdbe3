"""Layout: the way imports go, the modules that read the environment, the lengths of files."""

import ast
import functools
import re
import tomllib
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("core", "handlers", "jobs", "loadtests", "ops", "sql", "tests")

# Imports that are allowed. `tests` may import everything and nobody imports them.
MAY_IMPORT = {
    "sql": set[str](),
    "core": {"sql"},
    "handlers": {"core"},
    "jobs": {"core"},
    "loadtests": {"core", "ops"},
    "ops": {"core", "handlers", "jobs", "sql"},
}
# Everything comes together in the command line. Its subcommands are imported when they are run, so that the
# service never loads the benchmark.
BEYOND = {
    ("ops/commands/develop/bench.py", "loadtests"),
    ("ops/commands/develop/chaos.py", "loadtests"),
    ("ops/commands/develop/load.py", "loadtests"),
    # Chaos is a test that takes minutes: it runs in a checkout and asks what all tests ask.
    ("loadtests/chaos/audit.py", "tests"),
}

# The domain knows no HTTP server, no queue and no terminal; the surfaces know no queue; jobs know no HTTP server.
FOREIGN = {
    "core": ("aiohttp.web", "arq", "click", "gunicorn", "rich"),
    "handlers": ("arq", "click", "rich"),
    "jobs": ("aiohttp.web", "click", "rich"),
}

# The rooms of core, from the floor up: at run time a module imports from its own room and from those before it. Modules
# that stand directly in core are the floor, unless they are named here.
ROOMS = (
    "floor", "work", "partitions", "ledger", "audit", "closing", "access", "outbox", "inbox",
    "providers", "payments", "wallets", "identity", "payables", "recurring",
    "importing",
)  # fmt: skip
# Modules that put the rooms together in one process. No room imports them at run time.
ASSEMBLY = {"core.service", "core.platform", "core.identity.identity"}
# Surfaces stand beside each other on `http`; the payment page is a door to what wallets do.
SURFACES = {
    "http": set[str](),
    "ledger": {"http"},
    "webhooks": {"http"},
    "wallets": {"http", "webhooks"},
    "pay_page": {"http", "wallets"},
    "simulator": set(),
    "payments": {"http"},
}
# So many files a reader takes in at one look.
MOST_FILES = 22

# Settings are read once, into one object, by pydantic-settings. Other readers of the environment, with their reasons:
MAY_READ_ENVIRONMENT = {
    "ops/setup/*.py": "run before there is a settings object, and hand pip and the linters their environment",
    "core/metrics/instruments.py": "prometheus_client reads its folder there, and nowhere else",
    "ops/deploy/smoke.py": "hands Docker our environment, with the variables of the compose file",
    "ops/process.py": "hands a child process our environment as it is",
    "loadtests/bench/stand.py": "hands the measured processes PATH and the like, and keeps our settings from them",
}

LONGEST_FILE = 400

# A new entry in the root is a decision, since a newcomer reads the root first.
TOP_LEVEL = {
    ".ci",
    ".dockerignore",
    ".env.example",
    # GitHub reads workflows from nowhere else.
    ".github",
    ".gitignore",
    "CHANGELOG.md",
    "Dockerfile",
    "LICENSE",
    "Makefile",
    "README.md",
    "core",
    "docker-compose.yml",
    "docs",
    "examples",
    "handlers",
    "jobs",
    "loadtests",
    "ops",
    "pyproject.toml",
    "sql",
    "tallystick",
    "tests",
}


# Installers, archives, fonts and bundled front-end code are other people's: a package of a registry brings them.
FOREIGN_FILES = ("*.whl", "*.gz", "*.zip", "*.jar", "*.min.js", "*.min.css", "*.map", "*.woff", "*.woff2")
LARGEST_FILE_BYTES = 200_000
MAY_BE_LARGER = {
    "ops/lock/*.txt": "the hashes of all files of all packages",
    "loadtests/results/*.json": "the reports of benchmarks",
}


class Import(NamedTuple):
    """One imported name, as a dotted path from the root, and where it is imported."""

    file: str
    line: int
    name: str


@functools.cache
def nodes_of(path: Path) -> tuple[ast.AST, ...]:
    """Return the nodes of a file's tree; several tests look at all files, and to walk takes longer than to parse."""
    return tuple(ast.walk(ast.parse(path.read_text())))


def sources(*packages: str) -> Iterator[Path]:
    for package in packages:
        yield from sorted((ROOT / package).rglob("*.py"))


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@functools.cache
def imports(path: Path) -> tuple[Import, ...]:
    """Return every import of a file, those inside functions included; `from a import b` counts as `a.b`."""
    return tuple(_imports(path))


def _imports(path: Path) -> Iterator[Import]:
    file = relative(path)
    for node in nodes_of(path):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(file, node.lineno, alias.name)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                package = path.parent.relative_to(ROOT).parts
                base = ".".join((*package[: len(package) - node.level + 1], *filter(None, [base])))
            for alias in node.names:
                yield Import(file, node.lineno, f"{base}.{alias.name}")


@functools.cache
def run_time_imports(path: Path) -> tuple[Import, ...]:
    """Return every import of a file that is made when the program runs, so not those under TYPE_CHECKING."""
    typing_only = {
        node.lineno
        for block in nodes_of(path)
        if isinstance(block, ast.If) and isinstance(block.test, ast.Name) and block.test.id == "TYPE_CHECKING"
        for node in ast.walk(block)
        if isinstance(node, ast.ImportFrom | ast.Import)
    }
    return tuple(found for found in imports(path) if found.line not in typing_only)


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def room_of(name: str) -> str:
    """Return the room of core that a dotted name is in."""
    parts = name.split(".")
    return parts[1] if len(parts) > 1 and parts[1] in ROOMS else "floor"


def is_within(name: str, module: str) -> bool:
    return name == module or name.startswith(f"{module}.")


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_imports_go_one_way(package: str) -> None:
    forbidden = [
        found
        for path in sources(package)
        for found in imports(path)
        if (target := found.name.partition(".")[0]) in PACKAGES
        and target not in MAY_IMPORT[package] | {package}
        and (found.file, target) not in BEYOND
    ]
    assert forbidden == []


def test_rooms_of_core_stand_on_those_below() -> None:
    upwards = []
    for path in sources("core"):
        module = module_of(path)
        for found in run_time_imports(path):
            if not is_within(found.name, "core") or module in ASSEMBLY:
                continue
            assembly = any(is_within(found.name, part) for part in ASSEMBLY)
            if assembly or ROOMS.index(room_of(found.name)) > ROOMS.index(room_of(module)):
                upwards.append(found)

    assert upwards == []


def test_rooms_of_core_hold_no_circle() -> None:
    modules = {module_of(path): path for path in sources("core")}
    needs = {
        module: {
            target
            for found in run_time_imports(path)
            for target in (found.name, found.name.rpartition(".")[0])
            if target in modules and target != module and modules[target].name != "__init__.py"
        }
        for module, path in modules.items()
    }
    while free := [module for module, targets in needs.items() if not targets]:
        for module in free:
            del needs[module]
        for targets in needs.values():
            targets.difference_update(free)

    assert needs == {}


def test_surfaces_stand_beside_each_other() -> None:
    crossing = []
    for path in sources("handlers"):
        parts = module_of(path).split(".")
        if len(parts) < 3:  # the application puts them together
            continue
        for found in run_time_imports(path):
            target = found.name.split(".")
            if target[0] == "handlers" and target[1] not in SURFACES[parts[1]] | {parts[1]}:
                crossing.append(found)

    assert crossing == []


def test_no_folder_is_a_drawer() -> None:
    folders: dict[str, int] = {}
    for path in sources(*PACKAGES[:-1]):
        if path.name != "__init__.py":
            folders[relative(path.parent)] = folders.get(relative(path.parent), 0) + 1

    assert {folder: count for folder, count in folders.items() if count > MOST_FILES} == {}


def test_every_file_of_queries_has_its_module() -> None:
    asking = {
        module_of(path).removeprefix("core.").replace(".", "/")
        for path in sources("core")
        if "queries(__name__)" in path.read_text()
    }
    files = {
        path.relative_to(ROOT / "sql" / "queries").with_suffix("").as_posix()
        for path in (ROOT / "sql" / "queries").rglob("*.sql")
    }

    assert files == asking


@pytest.mark.parametrize("package", FOREIGN)
def test_a_layer_does_not_know_what_is_not_its_concern(package: str) -> None:
    forbidden = [
        found
        for path in sources(package)
        for found in imports(path)
        if any(is_within(found.name, module) for module in FOREIGN[package])
    ]

    assert forbidden == []


def test_every_folder_of_sources_is_a_package() -> None:
    """A folder without `__init__.py` would import all the same, but stay out of a built distribution."""
    folders = {path.parent for path in sources(*PACKAGES[:-1])}

    assert [relative(folder) for folder in sorted(folders) if not (folder / "__init__.py").exists()] == []


def test_only_what_starts_processes_reads_the_environment() -> None:
    readers = set()
    for path in sources(*PACKAGES[:-1]):
        for node in nodes_of(path):
            if (
                isinstance(node, ast.Attribute)
                and isinstance(node.value, ast.Name)
                and node.value.id == "os"
                and node.attr in {"environ", "environb", "getenv", "getenvb", "putenv"}
            ):
                readers.add(relative(path))
        if any(
            is_within(found.name, f"os.{name}") for found in imports(path) for name in ("environ", "getenv")
        ):
            readers.add(relative(path))

    assert {
        file for file in readers if not any(fnmatch(file, known) for known in MAY_READ_ENVIRONMENT)
    } == set()
    assert {
        known for known in MAY_READ_ENVIRONMENT if not any(fnmatch(file, known) for file in readers)
    } == set()


def test_no_file_is_longer_than_one_sitting() -> None:
    lengths = {relative(path): len(path.read_text().splitlines()) for path in sources(*PACKAGES)}

    assert {file: length for file, length in lengths.items() if length > LONGEST_FILE} == {}


def test_sql_stands_only_in_its_folder() -> None:
    """A statement in a string is found by its shape: an upper-case verb followed by the word that belongs to it."""
    statement = re.compile(r"\b(SELECT\b.*\bFROM|INSERT INTO|UPDATE \w+ SET|DELETE FROM)\b", re.DOTALL)
    # Migrations keep their book before the first file is applied; the embedded server makes the database itself; the
    # trial of the containers asks a server by psql.
    elsewhere = {"core/migrations/__init__.py", "ops/embedded/postgres.py", "ops/deploy/smoke.py"}
    found = set()
    for path in sources("core", "handlers", "jobs", "ops"):
        nodes = nodes_of(path)
        docstrings = {id(node.value) for node in nodes if isinstance(node, ast.Expr)}
        for node in nodes:
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
                found |= {relative(path)} if statement.search(node.value) else set()

    assert found - elsewhere == set()


@pytest.mark.parametrize("lock", ["runtime", "dev"])
def test_lock_files_pin_by_hash_and_name_no_address(lock: str) -> None:
    text = (ROOT / "ops" / "lock" / f"{lock}.txt").read_text()
    requirements = re.sub(r" *\\\n +", " ", text).splitlines()

    assert not re.search(r"://|--(extra-)?index-url|--find-links|--trusted-host|^-e", text)
    assert [
        line
        for line in requirements
        if not re.match(r"[a-z0-9.-]+(\[[a-z,]+\])?==\S+ .*--hash=sha256:", line)
    ] == []


def test_tests_run_on_the_versions_that_are_served() -> None:
    runtime, dev = (
        set(
            re.findall(
                r"^[a-z0-9.-]+==\S+", (ROOT / "ops" / "lock" / f"{lock}.txt").read_text(), re.MULTILINE
            )
        )
        for lock in ("runtime", "dev")
    )

    assert runtime <= dev


@pytest.mark.parametrize(("lock", "extra"), [("runtime", None), ("dev", "dev")])
def test_lock_files_know_every_dependency(lock: str, extra: str | None) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = project["dependencies"] + (project["optional-dependencies"][extra] if extra else [])
    names = {re.split(r"[^A-Za-z0-9._-]", requirement)[0].lower() for requirement in wanted} - {"tallystick"}
    locked = set(
        re.findall(r"^([a-z0-9.-]+)", (ROOT / "ops" / "lock" / f"{lock}.txt").read_text(), re.MULTILINE)
    )

    assert names - locked == set()


def test_the_root_holds_only_what_belongs_there() -> None:
    ignored = [
        line.rstrip("/") for line in (ROOT / ".gitignore").read_text().split() if not line.startswith("#")
    ]
    entries = {
        entry.name for entry in ROOT.iterdir() if not any(fnmatch(entry.name, known) for known in ignored)
    }

    assert entries - TOP_LEVEL - {".git"} == set()


def test_the_repository_holds_no_file_of_other_people() -> None:
    files = [
        path
        for entry in TOP_LEVEL
        for path in (ROOT / entry, *(ROOT / entry).rglob("*"))
        if path.is_file() and "__pycache__" not in path.parts
    ]
    foreign = [relative(path) for path in files if any(fnmatch(path.name, kind) for kind in FOREIGN_FILES)]
    large = {relative(path) for path in files if path.stat().st_size > LARGEST_FILE_BYTES}

    assert foreign == []
    assert {file for file in large if not any(fnmatch(file, known) for known in MAY_BE_LARGER)} == set()
