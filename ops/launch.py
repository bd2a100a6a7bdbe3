"""Change the user if asked to, ask the kernel to die with the parent, and become another program.

The launcher is a script of its own, run as `python -I -S launch.py ...`. A `preexec_fn` would do the same between fork
and exec, where a parent with threads may deadlock (Python 3.12 warns about it). It is started as root where there is a
user to change to, so that the interpreter may lie where that user cannot reach.
"""

from __future__ import annotations

import ctypes
import os
import sys
from typing import NoReturn

# The launcher's failures, as exit codes that no program of ours uses; 126 is the shell's code for the last one.
CANNOT_CHANGE_USER = 121
CANNOT_ENTER_DIRECTORY = 122
CANNOT_EXECUTE = 126
# prctl's option number, from <linux/prctl.h>.
PR_SET_PDEATHSIG = 1


def _give_up(code: int, what: str, error: OSError) -> NoReturn:
    sys.stderr.write(f"{what}: {error.strerror}\n")
    sys.stderr.flush()
    os._exit(code)


def main(parent: str, death_signal: str, user: str, group: str, directory: str, *command: str) -> NoReturn:
    """Run `command` (an absolute path and its arguments); `-` leaves the user or the directory as it is."""
    if user != "-":
        try:
            os.setgroups([])
            os.setgid(int(group))
            os.setuid(int(user))
        except OSError as error:
            _give_up(CANNOT_CHANGE_USER, f"cannot become user {user}", error)
    if directory != "-":
        try:
            os.chdir(directory)
        except OSError as error:
            _give_up(CANNOT_ENTER_DIRECTORY, f"user {os.getuid()} cannot enter {directory}", error)
    if sys.platform == "linux":
        # The signal is set after the change of user, which clears it. Other systems find an orphan at the next start.
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(death_signal), 0, 0, 0)
    if os.getppid() != int(parent):
        os._exit(0)  # the parent died before the line above, so nobody would tell us
    try:
        os.execv(command[0], command)  # noqa: S606 - no shell is the point
    except OSError as error:
        _give_up(CANNOT_EXECUTE, f"user {os.getuid()} cannot run {command[0]}", error)


if __name__ == "__main__":
    main(*sys.argv[1:])
