"""Every gate in one run, with a summary: `./tallystick gates [NAME ...]`, which `make verify` calls.

All gates run, also after one has failed. Their output goes to the terminal as it comes.
"""

import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

GATES = {
    "check": "format, lint and types",
    "licenses": "licences of the packages",
    "sbom": "bill of materials",
    "audit": "known weaknesses of the packages",
    "test": "the suite",
    "drill": "the drills",
}
# A gate that ends with this could not find out, for want of a network for example.
UNKNOWN = 2

HELP = f"""\
Usage: ./tallystick gates [NAME ...]

  Run the named gates, or all, and print a summary. The exit code is 1 when one has failed. A gate that could not find
  out, since the network or a program is missing, is told and does not fail.

{"".join(f"  {name:<10}{about}{chr(10)}" for name, about in GATES.items())}"""


def main(names: list[str]) -> int:
    """Run the named gates, or all; return 1 if one failed, 2 for a name that is not known."""
    if {"-h", "--help"} & set(names):
        print(HELP, end="")
        return 0
    if unknown := [name for name in names if name not in GATES]:
        print(f"gates: no gate is named {', '.join(unknown)}; there are {', '.join(GATES)}", file=sys.stderr)
        return 2
    summary = []
    for name in names or GATES:
        print(f"== {name}: {GATES[name]}", flush=True)
        started = time.monotonic()
        code = subprocess.run(_command(name), cwd=ROOT, check=False).returncode
        summary.append((name, _word(name, code), time.monotonic() - started))
    print("\n".join(["", *(f"{name:<10}{word:<10}{seconds:7.0f} s" for name, word, seconds in summary)]))
    return int(any(word == "failed" for _, word, _ in summary))


def _command(name: str) -> list[str]:
    words = [name] if name in {"check", "drill", "test"} else ["supply", name]
    return [str(ROOT / "tallystick"), *words]


def _word(name: str, code: int) -> str:
    if code == 0:
        return "passed"
    return "unknown" if code == UNKNOWN and name == "audit" else "failed"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
