"""A checkout of its own for a test of `./tallystick`, with a package index that is a folder of two wheels."""

import base64
import hashlib
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
COMMAND = """\
import sys

import alpha


def main():
    print("alpha", alpha.VERSION, *sys.argv[1:])
    return 7 if "fail" in sys.argv else 0
"""


def wheel(folder: Path, version: str) -> str:
    """Write a package `alpha` of one line; return its line in a lock file."""
    files = {
        "alpha.py": f"VERSION = {version!r}\n",
        f"alpha-{version}.dist-info/METADATA": f"Metadata-Version: 2.1\nName: alpha\nVersion: {version}\n",
        f"alpha-{version}.dist-info/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = ""
    for name, text in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
        record += f"{name},sha256={digest},{len(text)}\n"
    files[f"alpha-{version}.dist-info/RECORD"] = f"{record}alpha-{version}.dist-info/RECORD,,\n"
    path = folder / f"alpha-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return f"alpha=={version} \\\n    --hash=sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}\n"


@dataclass
class Checkout:
    """A copy of what sets a checkout up, with a command line that prints what it was given."""

    root: Path
    bin: Path
    wheels: Path

    def environment(self, **extra: str) -> dict[str, str]:
        """Nothing of ours: no HOME, no proxy, no index."""
        return {"PATH": str(self.bin), "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(self.wheels)} | extra

    def start(self, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [self.root / "tallystick", *arguments],
            env=self.environment(**environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def run(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        with self.start(*arguments, **environment) as process:
            out, err = process.communicate(timeout=100)
        return subprocess.CompletedProcess(arguments, process.returncode, out, err)

    def lock(self, *lines: str, name: str = "runtime") -> None:
        (self.root / "ops" / "lock" / f"{name}.txt").write_text("".join(lines))


def make_checkout(tmp_path: Path) -> Checkout:
    made = Checkout(tmp_path / "it's a checkout", tmp_path / "bin", tmp_path / "wheels")
    for folder in (made.root / "ops" / "lock", made.bin, made.wheels):
        folder.mkdir(parents=True)
    shutil.copy(ROOT / "tallystick", made.root)
    shutil.copytree(ROOT / "ops" / "setup", made.root / "ops" / "setup")
    (made.root / "ops" / "cli.py").write_text(COMMAND)
    # Just what the script needs, so that no interpreter but the test's own is found.
    for tool in ("dirname", "readlink", "sh"):
        (made.bin / tool).symlink_to(shutil.which(tool) or pytest.fail(f"no {tool}"))
    (made.bin / "python3").symlink_to(Path(sys.executable).resolve())
    lines = wheel(made.wheels, "1.0")
    made.lock(lines)
    made.lock(lines, name="dev")
    return made


def strip_python(checkout: Checkout, *without: str) -> Path:
    """Give the checkout a Python of its own that lacks some modules; return the folder of its standard library."""
    base = Path(sys.executable).resolve()
    library = checkout.bin.with_name("python") / "lib" / base.name
    library.mkdir(parents=True)
    for entry in Path(sysconfig.get_path("stdlib")).iterdir():
        if entry.name not in {*without, "site-packages", "dist-packages", "__pycache__"}:
            (library / entry.name).symlink_to(entry)
    for shared in base.parents[1].glob("lib/libpython*"):
        (library.parent / shared.name).symlink_to(shared)
    # A copy, since Python looks for its library beside the file that a link leads to.
    stripped = library.parents[1] / "bin" / base.name
    stripped.parent.mkdir()
    shutil.copy(base, stripped)
    python = checkout.bin / "python3"
    python.unlink()
    python.write_text(f"#!/bin/sh\nexec '{stripped}' \"$@\"\n")
    python.chmod(0o755)
    return library
