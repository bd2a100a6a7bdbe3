"""The words of `./tallystick`: their help, which installs nothing, and the nearest ones to a word that nobody knows."""

import difflib
import runpy
from collections.abc import Mapping
from pathlib import Path

TABLE = Path(__file__).resolve().parents[1] / "commands" / "table.py"

CHECKOUT = """\
In a checkout, besides the commands below:
  setup [--dev]   install the packages of the lock file, and do nothing else
  test [ARGS]     run the tests (ARGS go to pytest)
  drill [ARGS]    run the drills: the tests that drive browsers, load generators, fuzzers and installers
  check           format, lint and types
  supply          bill of materials, known weaknesses and licences of the packages
  gates           all of these, with a summary
"""

# Scripts beside this one, each with a help of its own.
SCRIPTS = ("check", "gates", "supply")

# The words that are the script's own, with their help.
OWN = {
    "setup": """\
Usage: ./tallystick setup [--dev]

  Install the packages of ops/lock/runtime.txt into .venv; with --dev also the tools of ops/lock/dev.txt. Every other
  command does the same first, but only when something has changed.
""",
    "test": """\
Usage: ./tallystick test [ARGS]

  Run the tests, on servers of their own. ARGS go to pytest; without any, the whole suite runs in three processes.

  Examples:
    ./tallystick test tests/core -x
    ./tallystick test tests/ops/test_cli.py -k version

  pytest's own options: .venv/bin/python -m pytest --help
""",
    "drill": """\
Usage: ./tallystick drill [ARGS]

  Run the drills in three processes: tests that drive whole tools, such as a browser, the benchmark, the chaos runner,
  Locust, generators of clients and a fuzzer. They take minutes, and CI runs them after the suite. ARGS go to pytest.

  Example:
    ./tallystick drill tests/loadtests -x
""",
} | dict.fromkeys(SCRIPTS, "")


def groups() -> Mapping[str, Mapping[str, tuple[str, str]]]:
    """Return the commands by group, as the command line lists them; none where its table is not there."""
    if not TABLE.exists():
        return {}
    found: Mapping[str, Mapping[str, tuple[str, str]]] = runpy.run_path(str(TABLE))["GROUPS"]
    return found


def known() -> dict[str, str]:
    """Return every word with its line; empty where the table is not there, and any word may be one."""
    told = {name: about for group in groups().values() for name, (_, about) in group.items()}
    return told | dict.fromkeys(OWN, "") if told else {}


def unknown(word: str) -> str:
    """Return the sentence about a word that no command has, with the nearest ones."""
    near = difflib.get_close_matches(word, known())
    hint = f" Did you mean {' or '.join(repr(name) for name in near)}?" if near else ""
    return f"No such command {word!r}.{hint} `./tallystick --help` lists them all."


def help_before_setup(word: str) -> str:
    """Return the help that can be given while nothing is installed: the overview, or the line of one command."""
    later = "Nothing is installed yet. Options and examples are shown after ./tallystick setup.\n"
    if word in known():
        return f"Usage: ./tallystick {word} [OPTIONS]\n\n  {known()[word]}\n\n{later}"
    text = f"Usage: ./tallystick [OPTIONS] COMMAND [ARGS]...\n\n{CHECKOUT}"
    for title, group in groups().items():
        text += f"\n{title}:\n" + "".join(f"  {name:<12}{about}\n" for name, (_, about) in group.items())
    return f"{text}\n{later}"
