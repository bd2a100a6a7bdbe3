"""The supply chain: `./tallystick supply sbom|audit|licenses`, about the packages of ops/lock/runtime.txt.

Each is a gate: it ends with 1 for a finding, and with 2 where it could not find out. Reports go to `build/`.
"""

import json
import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
LOCK = ROOT / "ops" / "lock" / "runtime.txt"
BUILD = ROOT / "build"
BIN = Path(sys.executable).parent

# A package whose licence has none of these words wants a person's look. Files under the MPL may be served as they are;
# a change in one of them would have to be published.
ALLOWED = (
    "Apache",
    "BSD",
    "ISC",
    "MIT",
    "MPL",
    "Mozilla Public License 2.0",
    "PSF",
    "Python Software Foundation",
)
DENIED = ("AGPL", "GPL", "SSPL", "BUSL", "Commons Clause")

HELP = """\
Usage: ./tallystick supply sbom|audit|licenses

  sbom      write build/sbom.json: the packages that are served with, their versions and the hashes of files (CycloneDX)
  audit     ask the advisory database about each of them; build/audit.json has the answers
  licenses  list their licences, and refuse any that is not known to be harmless

  The exit code is 1 for a finding and 2 where it could not find out.
"""


def main(arguments: list[str]) -> int:
    """Run what is asked for; return the exit code."""
    gates = {"sbom": sbom, "audit": audit, "licenses": licenses}
    if {"-h", "--help"} & set(arguments):
        print(HELP, end="")
        return 0
    if len(arguments) != 1 or arguments[0] not in gates:
        print(HELP, end="", file=sys.stderr)
        return 2
    BUILD.mkdir(exist_ok=True)
    return gates[arguments[0]]()


def sbom() -> int:
    """Write the bill of materials; the tool checks it against the schema of CycloneDX."""
    written = BUILD / "sbom.json"
    ran = _run(
        "cyclonedx-py", "requirements", str(LOCK), "--pyproject", "pyproject.toml", "--output-reproducible",
        "--output-format", "JSON", "--output-file", str(written),
    )  # fmt: skip
    if ran.returncode:
        print(ran.stderr, end="", file=sys.stderr)
        return 2
    found = {part["name"].casefold() for part in json.loads(written.read_text())["components"]}
    if missing := sorted(name for name in locked() if name not in found):
        print(f"sbom: not in it: {', '.join(missing)}", file=sys.stderr)
        return 1
    print(f"sbom: {len(found)} packages in {written.relative_to(ROOT)}")
    return 0


def audit() -> int:
    """Ask about known weaknesses. A package about which nobody answered is told, and is no all-clear."""
    report = BUILD / "audit.json"
    ran = _run(
        "pip-audit", "--requirement", str(LOCK), "--require-hashes", "--disable-pip", "--progress-spinner=off",
        "--format=json", "--output", str(report),
    )  # fmt: skip
    if ran.returncode not in {0, 1} or not report.exists():
        print(ran.stderr, end="", file=sys.stderr)
        print("audit: the advisory database could not be asked", file=sys.stderr)
        return 2
    return judged(json.loads(report.read_text())["dependencies"])


def judged(dependencies: Iterable[dict[str, Any]]) -> int:
    """Print the weaknesses of a report of pip-audit; return the exit code."""
    weak = [(each["name"], each["version"], flaw) for each in dependencies for flaw in each.get("vulns", ())]
    for name, version, flaw in weak:
        fixed = ", ".join(flaw["fix_versions"]) or "no version yet"
        print(f"audit: {name} {version}: {flaw['id']}, mended in {fixed}")
    unknown = [each["name"] for each in dependencies if "skip_reason" in each]
    if unknown:
        print(
            f"audit: nothing was learned about {len(unknown)} packages: {', '.join(unknown)}", file=sys.stderr
        )
    if weak:
        return 1
    print(f"audit: no weakness is known of {sum('vulns' in each for each in dependencies)} packages")
    return 2 if unknown else 0


def licenses() -> int:
    """List the licences by package."""
    ran = _run("pip-licenses", "--from=mixed", "--format=json")
    if ran.returncode:
        print(ran.stderr, end="", file=sys.stderr)
        return 2
    installed = {normal(each["Name"]): each["License"] for each in json.loads(ran.stdout)}
    wanted = locked()
    found = {name: installed[name] for name in sorted(wanted & installed.keys())}
    for name, license_ in found.items():
        print(f"{name:<46}{license_}")
    refused = [name for name, license_ in found.items() if not harmless(license_)]
    if refused:
        print(f"licenses: to be looked at: {', '.join(refused)}", file=sys.stderr)
        return 1
    # The lock is for all systems: packages of another one are not here.
    if elsewhere := sorted(wanted - found.keys()):
        print(f"licenses: not installed on this system: {', '.join(elsewhere)}", file=sys.stderr)
    return 0


def harmless(license_: str) -> bool:
    """Whether a licence is one of those that may be served with."""
    # One licence of a choice is enough; of several that hold together, each counts.
    return any(
        all(_allowed(part) for part in re.split(r"\bAND\b|;", choice.strip("() ")))
        for choice in re.split(r"\bOR\b", license_)
    )


def locked() -> set[str]:
    """Return the names of the packages of the lock file."""
    return {normal(name) for name in re.findall(r"^([A-Za-z0-9._-]+)==", LOCK.read_text(), re.MULTILINE)}


def normal(name: str) -> str:
    """Return the one form of a package's name."""
    return re.sub(r"[-_.]+", "-", name).casefold()


def _allowed(license_: str) -> bool:
    return not any(word in license_ for word in DENIED) and any(word in license_ for word in ALLOWED)


def _run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [BIN / command[0], *command[1:]], cwd=ROOT, check=False, capture_output=True, text=True
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
