"""The user of an embedded server. PostgreSQL refuses to run as root, so root starts it as a user without rights.

Nothing outside the state directory changes for that: no user is created, no parent directory is opened up. The first
way is to change to the user `postgres` or `nobody`, with a copy of the programs where that user cannot reach them. The
second, where changing users is forbidden or the state lies under a closed directory, is a user namespace in which
root's files look like nobody's.
"""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
from typing import TYPE_CHECKING

from ops import launch
from ops.process import OURSELVES, Account, StartError, spawn

if TYPE_CHECKING:
    from pathlib import Path

    from ops.embedded.programs import Program

# `nobody` on every Linux; initdb wants a user that has an entry in the list of users.
OVERFLOW_ID = 65534


def choose_account(program: Program, data: Path) -> tuple[Account, Program]:
    """Return the user who runs `program` on the directory `data` (its parent exists), and a program that user can run.

    The owner of a directory that exists stays its owner. Raises StartError, naming what to change, if no way works.
    """
    owner = data.stat().st_uid if data.exists() else None
    if os.geteuid() != 0:
        if owner not in (None, os.geteuid()):
            raise StartError(f"{data} belongs to {_name(owner)}. Set STATE_DIR to a directory of your own.")
        return OURSELVES, program
    reasons = []
    if owner != 0:
        user = _unprivileged_user(owner)
        account = Account(user.pw_uid, user.pw_gid)
        code, reason = _try(program, account, data.parent)
        if code == launch.CANNOT_EXECUTE and program.folders:
            # The copy lies next to the data and not in a temporary directory, because the next start uses it again.
            program = program.copied_to(data.parent.parent / "programs")
            code, reason = _try(program, account, data.parent)
        if code == 0:
            return account, program
        reasons.append(reason)
    if (unshare := shutil.which("unshare")) is not None and owner in (None, 0):
        mapping = (f"--map-user={OVERFLOW_ID}", f"--map-group={OVERFLOW_ID}")
        account = Account(prefix=(unshare, "--user", *mapping))
        code, reason = _try(program, account, data.parent)
        if code == 0:
            return account, program
        reasons.append(reason)
    raise StartError(
        f"The embedded {program.name} server cannot run as root and no other user can run it here "
        f"({'; '.join(reasons)}). Start as an ordinary user, or set STATE_DIR to a directory that others can enter."
    )


def _unprivileged_user(owner: int | None) -> pwd.struct_passwd:
    try:
        return pwd.getpwuid(owner) if owner is not None else pwd.getpwnam("postgres")
    except KeyError:
        return pwd.getpwnam("nobody")


def _try(program: Program, account: Account, directory: Path) -> tuple[int, str]:
    """Run the program for its version in the way it will be run; return the exit code and its complaints."""
    command = [str(program.path), "--version"]
    child = spawn(command, output=subprocess.PIPE, account=account, directory=directory, environment={})
    try:
        output, _ = child.communicate(timeout=20)
    except subprocess.TimeoutExpired:
        child.kill()
        output, _ = child.communicate()
    return child.returncode, output.decode(errors="replace").strip()


def _name(uid: int | None) -> str:
    try:
        return pwd.getpwuid(uid or 0).pw_name
    except KeyError:
        return f"user {uid}"
