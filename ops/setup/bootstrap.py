"""The script `./tallystick`: brings `.venv` to the state of the lock file, then becomes the command that was asked for.

The script runs on the standard library alone and imports nothing of the project but its neighbours. When nothing has
changed it reads a few files and is gone; help, and words that nobody knows, install nothing. Python's own pip installs
the packages; for a Python without pip, virtualenv or uv does. pip reads its own configuration (`PIP_INDEX_URL`,
`PIP_FIND_LINKS`, pip.conf), so that a mirror or a folder of wheels works as for any project.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(ROOT))

from ops.setup import words  # noqa: E402 - `-I` keeps the checkout from the path
from ops.setup.progress import Progress  # noqa: E402

VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
# The interpreter behind `.venv`, also when this process runs in `.venv`.
BASE: str = getattr(sys, "_base_executable", sys.executable)
# The stamp tells what was installed. Absent: another tool made .venv. Without "root": a set-up was cut off.
STAMP = VENV / "tallystick-setup.json"
GUARD = VENV / ".setup.lock"

PIP_OPTIONS = ("--no-input", "--no-warn-script-location", "--disable-pip-version-check", "--progress-bar=off")
# pip installs into another environment from its version 22.3 on. To ask pip itself takes it a second.
LENDS = "import pip, re, sys; sys.exit([int(n) for n in re.findall('[0-9]+', pip.__version__)[:2]] < [22, 3])"
# The settings of pip about indexes, as options of uv, which reads its own settings only.
UV_OPTIONS = {"INDEX_URL": "--default-index", "EXTRA_INDEX_URL": "--index", "FIND_LINKS": "--find-links"}
# The installers announce with these words that they begin to change packages.
FIRST_CHANGES = ("Installing collected packages", "Prepared ", "Uninstalled ", "error: Failed to install")

HELP = {"-h", "--help"}
# These need the tools of the dev lock; every other command runs on what is served.
DEV_COMMANDS = {"check", "drill", "gates", "load", "supply", "test"}
# Three processes with servers of their own, for two cores: a test often waits. A file stays whole, as its tests share
# parts, and files are taken in the order of tests/conftest.py. A test that is out of time ends its process and with it
# the run: a new process would hang at the same file.
SPREAD = ("-n", "3", "--dist", "loadfile", "--max-worker-restart", "0")
WHOLE_SUITE = (*SPREAD, "-m", "not drill")
DRILLS = (*SPREAD, "-m", "drill")

# The command in `.venv/bin`. The shell starts Python, for a path with spaces or over 127 bytes cannot stand after #!;
# Python takes the shell's line for a text.
COMMAND = """\
#!/bin/sh
'''exec' {python} "$0" "$@"
' '''
import sys

from ops.cli import main

sys.exit(main())
"""


class SetupError(Exception):
    """The set-up cannot go on; the message says what to do."""


class NothingInstalledError(SetupError):
    """The installation failed before it changed any package."""


def main(arguments: list[str]) -> None:
    """Set up what `arguments` need, then replace this process by the command they name."""
    if asks_for_help(arguments):
        show_help(arguments)
    command = arguments[0]
    if (known := words.known()) and command not in known and not command.startswith("-"):
        say(words.unknown(command))
        sys.exit(2)
    dev = command in DEV_COMMANDS or (command == "setup" and "--dev" in arguments)
    ensure("dev" if dev else "runtime")
    if command == "setup":
        say(f"ready: {VENV}")
    elif command == "test":
        os.chdir(ROOT)
        become(PYTHON, "-m", "pytest", *(arguments[1:] or WHOLE_SUITE))
    elif command == "drill":
        os.chdir(ROOT)
        become(PYTHON, "-m", "pytest", *DRILLS, *arguments[1:])
    elif command in words.SCRIPTS:
        os.chdir(ROOT)
        become(PYTHON, HERE / f"{command}.py", *arguments[1:])
    else:
        become(PYTHON, VENV / "bin" / "tallystick", *arguments)


def asks_for_help(arguments: list[str]) -> bool:
    """Whether help is all that is wanted. Arguments of the script's own words after the first go to other programs."""
    return not arguments or bool(HELP & set(arguments[:2] if arguments[0] in words.OWN else arguments))


def show_help(arguments: list[str]) -> NoReturn:
    """Show the help of a word and end; nothing is installed for that."""
    word = next((word for word in arguments if word not in HELP), "--help")
    if word in words.SCRIPTS:
        become(sys.executable, "-I", HERE / f"{word}.py", "--help")
    if word in words.OWN:
        print(words.OWN[word], end="")
    elif (stamp := read_stamp()) is None or not belongs_here(stamp):
        print(words.help_before_setup(word), end="")
    else:
        if word == "--help":
            print(words.CHECKOUT, flush=True)
        become(PYTHON, VENV / "bin" / "tallystick", *(arguments or ["--help"]))
    sys.stdout.flush()
    sys.exit(0)


def become(*command: str | Path) -> NoReturn:
    """Replace this process, so that signals and the exit status are the command's own."""
    os.execv(command[0], [str(word) for word in command])  # noqa: S606 - no shell is the point


def say(text: str) -> None:
    """Write one line for the person who waits, on stderr: stdout belongs to the command."""
    print(f"tallystick: {text}", file=sys.stderr, flush=True)


def ensure(lock: str) -> None:
    """Install `lock` ("runtime" or "dev") unless it is; at most one process does, the others wait for it.

    Raises SetupError.
    """
    if installed(lock):
        return
    with alone():
        if not installed(lock):
            install(lock)


def installed(lock: str) -> bool:
    """Whether `.venv` is whole, was made here and for this Python, and holds what `lock` says now."""
    stamp = read_stamp()
    return stamp is not None and belongs_here(stamp) and stamp["locks"].get(lock) == digest(lock)


def belongs_here(stamp: dict[str, Any]) -> bool:
    """Scripts in `.venv/bin` name their interpreter by its full path, so a moved checkout needs a new one."""
    return stamp.get("root") == str(ROOT) and stamp.get("python") == python_version() and PYTHON.exists()


def read_stamp() -> dict[str, Any] | None:
    """Return the stamp; {} when a set-up was cut off; None when there is none."""
    try:
        stamp: dict[str, Any] = json.loads(STAMP.read_text())
    except FileNotFoundError:
        return None
    except ValueError:
        return {}
    return stamp


def write_stamp(stamp: dict[str, Any] | None) -> None:
    """Replace the stamp in one step (a reader sees the old or the new one), or remove it."""
    if stamp is None:
        STAMP.unlink()
        return
    scratch = STAMP.with_suffix(".new")
    scratch.write_text(json.dumps(stamp))
    scratch.replace(STAMP)


def digest(lock: str) -> str:
    """Identify an installation: by the lock file, and by this script, which decides what belongs to it."""
    return hashlib.sha256(lock_file(lock).read_bytes() + Path(__file__).read_bytes()).hexdigest()


def lock_file(lock: str) -> Path:
    """Return the path of a lock file."""
    return ROOT / "ops" / "lock" / f"{lock}.txt"


def python_version() -> str:
    """Return this interpreter's "3.x": packages are installed for it."""
    return f"{sys.version_info.major}.{sys.version_info.minor}"


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Hold the set-up's lock, which ends with the process, whatever ends it. Raises SetupError."""
    target = VENV if VENV.exists() else ROOT
    if not os.access(target, os.W_OK):
        raise SetupError(
            f"you may not write to {target}, and the packages have to go into {VENV.name} there.\n"
            "Run `./tallystick setup --dev` once as its owner, or take a checkout of your own."
        )
    VENV.mkdir(exist_ok=True)
    with GUARD.open("a") as guard:
        try:
            fcntl.flock(guard, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("another set-up of this checkout is running; waiting for it")
            fcntl.flock(guard, fcntl.LOCK_EX)
        yield


def install(lock: str) -> None:
    """Make or renew `.venv`, install the lock file's packages into it and make the project importable.

    Raises SetupError.
    """
    started = time.monotonic()
    before = read_stamp()
    if not (before and belongs_here(before)) and not adoptable(before):
        create()
        before = {"root": str(ROOT), "python": python_version(), "locks": {}}
    # From here to the last line `.venv` counts as cut off, and the next set-up would make it anew.
    write_stamp({})
    try:
        install_packages(lock_file(lock))
    except NothingInstalledError:
        write_stamp(before)
        raise
    link_project()
    covered = ("runtime", "dev") if lock == "dev" else ("runtime",)
    write_stamp(
        {"root": str(ROOT), "python": python_version(), "locks": {name: digest(name) for name in covered}}
    )
    say(f"set up in {time.monotonic() - started:.0f} s")


def adoptable(stamp: dict[str, Any] | None) -> bool:
    """Whether another tool made `.venv` and this process runs in it, so that it can be used as it is.

    Raises SetupError when another tool made it and it does not work: then it is not ours to remove.
    """
    if stamp is not None or all(entry == GUARD for entry in VENV.iterdir()):
        return False
    if sys.prefix == str(VENV):
        return True
    raise SetupError(
        f"{VENV} was made by another tool and is no working environment of Python {python_version()}.\n"
        f"Remove it (rm -r {shlex.quote(str(VENV))}) and run this again."
    )


def create() -> None:
    """Make `.venv` anew, without pip. Raises SetupError."""
    write_stamp({})
    for entry in VENV.iterdir():
        if entry in {GUARD, STAMP}:
            continue
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()
    say(f"making {VENV} with Python {sys.version.split()[0]}")
    made = subprocess.run(
        [BASE, "-I", "-m", "venv", "--without-pip", VENV],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if made.returncode:
        raise SetupError(f"`{BASE} -m venv` failed:\n{made.stdout.strip()}")


def installer() -> list[str]:
    """Return the command that installs into `.venv`, and put pip there if need be. Raises SetupError."""
    own = [str(PYTHON), "-I", "-m", "pip"]
    if succeeds(*own, "--version"):
        return [*own, "install", *PIP_OPTIONS]
    if succeeds(BASE, "-I", "-c", LENDS):
        return [BASE, "-I", "-m", "pip", "--python", str(PYTHON), "install", *PIP_OPTIONS]
    around = ["--python", BASE, str(VENV)]
    seeds = (
        [str(PYTHON), "-I", "-m", "ensurepip"],
        ["virtualenv", *around],
        [BASE, "-I", "-m", "virtualenv", *around],
    )
    if any(succeeds(*seed) for seed in seeds):
        return [*own, "install", *PIP_OPTIONS]
    if uv := shutil.which("uv"):
        return [uv, "pip", "install", *uv_options()]
    raise NothingInstalledError(
        f"Python {sys.version.split()[0]} ({BASE}) has neither pip nor ensurepip to install the packages with.\n"
        f"Install what it lacks (Debian, Ubuntu: apt-get install python{python_version()}-venv), virtualenv or uv,"
        " and run this again."
    )


def succeeds(*command: str) -> bool:
    """Run a command without showing its output; return whether it exists and succeeds."""
    try:
        return not subprocess.run(command, env=environment(), capture_output=True, check=False).returncode
    except OSError:
        return False


def install_packages(lock: Path) -> None:
    """Install the lock file's packages, each only if its hash is in the file. Raises SetupError."""
    total = sum(line[0].isalnum() for line in lock.read_text().splitlines() if line)
    command = installer()
    say(f"installing up to {total} packages")
    output: list[str] = []
    with (
        Progress(total) as progress,
        subprocess.Popen(
            [*command, "--requirement", str(lock), "--require-hashes", "--only-binary=:all:"],
            env=environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        ) as process,
    ):
        for line in process.stdout or ():
            output.append(line)
            progress.read(line)
    if process.returncode == 0:
        return
    begun = any(line.startswith(FIRST_CHANGES) for line in output)
    raise (SetupError if begun else NothingInstalledError)(
        f"the packages could not be installed; the installer's last words:\n\n{''.join(output[-15:])}\n"
        "PIP_INDEX_URL (a mirror), PIP_FIND_LINKS with PIP_NO_INDEX=1 (a folder of wheels), HTTPS_PROXY and pip.conf\n"
        "are read. Run this again when the cause is gone: it goes on from here."
    )


def environment() -> dict[str, str]:
    """Return the caller's environment without settings that would make pip install elsewhere or other packages."""
    redirecting = ("CONSTRAINT", "DRY_RUN", "PREFIX", "PYTHON", "REQUIREMENT", "ROOT", "TARGET")
    names = {f"PIP_{name}" for name in redirecting}
    kept = {key: value for key, value in os.environ.items() if key not in names}
    kept["PIP_USER"] = "0"
    home = Path(os.path.expanduser("~"))  # noqa: PTH111 - Path.home() raises for a user without an entry
    if not (home.is_absolute() and os.access(home, os.W_OK)):
        kept.setdefault("PIP_NO_CACHE_DIR", "1")
        kept.setdefault("UV_NO_CACHE", "1")
    return kept


def uv_options() -> list[str]:
    """Return options that make uv install into `.venv`, and pip's settings of indexes, which uv does not read."""
    options = ["--python", str(PYTHON), "--no-progress"]
    if os.environ.get("PIP_NO_INDEX", "0").lower() in {"1", "true", "yes", "on"}:
        options.append("--no-index")
    for name, option in UV_OPTIONS.items():
        options += [f"{option}={value}" for value in os.environ.get(f"PIP_{name}", "").split()]
    return options


def link_project() -> None:
    """Make the checkout importable in `.venv` and write its `tallystick` command.

    A path file is better than an editable install: it needs no build tool, may come before or after the sources, and
    a new top-level package is there at once.
    """
    packages = VENV / "lib" / f"python{python_version()}" / "site-packages"
    (packages / "tallystick.pth").write_text(f"{ROOT}\n")
    command = VENV / "bin" / "tallystick"
    command.write_text(COMMAND.format(python=shlex.quote(str(PYTHON))))
    command.chmod(0o755)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except SetupError as error:
        say(str(error))
        sys.exit(1)
    except KeyboardInterrupt:
        say("interrupted; the next run starts the set-up again")
        sys.exit(130)
