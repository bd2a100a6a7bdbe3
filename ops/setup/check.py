"""The checks that a machine can make of the sources without running them: `./tallystick check [NAME ...]`.

All checks run, also after one has failed, so that one run tells every fault.
"""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def main(names: list[str]) -> int:
    """Run the named checks, or all; return 1 if one failed, 2 if a name is not known."""
    checks = commands()
    if {"-h", "--help"} & set(names):
        print(f"Usage: ./tallystick check [NAME ...]\n\n  Run the named checks, or all: {', '.join(checks)}.")
        return 0
    unknown = [name for name in names if name not in checks]
    if unknown:
        print(
            f"check: no check is named {', '.join(unknown)}; there are {', '.join(checks)}", file=sys.stderr
        )
        return 2
    failed = [name for name in (names or checks) if not passes(name, checks[name])]
    if failed:
        print(f"check: failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def commands() -> dict[str, list[str]]:
    """Return each check's name and command line, to be run in the checkout's root."""
    return {
        "format": ["ruff", "format", "--check", "."],
        "lint": ["ruff", "check", "."],
        "types": ["mypy"],
        "sql": ["sqlfluff", "lint", "--disable-progress-bar", "--processes", "0", "sql"],
        "shell": ["shellcheck", *shell_scripts()],
        "dockerfile": ["hadolint", "Dockerfile"],
        "workflow": [
            "check-jsonschema",
            "--builtin-schema",
            "vendor.github-workflows",
            ".github/workflows/ci.yml",
        ],
        "compose": ["check-jsonschema", "--builtin-schema", "vendor.compose-spec", *compose_files()],
    }


def compose_files() -> list[str]:
    """Return the checkout's compose files."""
    return [
        "docker-compose.yml",
        *sorted(str(path.relative_to(ROOT)) for path in ROOT.glob("ops/compose/*.yml")),
    ]


def shell_scripts() -> Iterator[str]:
    """Yield the checkout's scripts for sh and bash, told by their first line."""
    for pattern in ("*", ".ci/*", "ops/**/*", "docs/**/*", "examples/**/*"):
        for path in sorted(ROOT.glob(pattern)):
            if path.is_file() and path.suffix in {"", ".sh"}:
                with path.open("rb") as file:
                    first = file.readline(80)
                if first.startswith(b"#!") and first.split(b"#!")[1].split()[-1].endswith(b"sh"):
                    yield str(path.relative_to(ROOT))


def passes(name: str, command: list[str]) -> bool:
    """Run one check; its own output goes to the terminal."""
    # The tools of the lock file come before those that the machine happens to have.
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    tool = shutil.which(command[0], path=path)
    print(f"== {name}: {' '.join(command)}", flush=True)
    if tool is None:
        print(f"check: {command[0]} is neither in .venv nor on PATH", file=sys.stderr)
        return False
    started = time.monotonic()
    done = subprocess.run([tool, *command[1:]], cwd=ROOT, env={**os.environ, "PATH": path}, check=False)
    print(
        f"== {name}: {'failed' if done.returncode else 'ok'} ({time.monotonic() - started:.1f} s)", flush=True
    )
    return done.returncode == 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
