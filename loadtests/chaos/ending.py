"""The early end of a run: the first signal asks for one in good order, the second one for an end at once."""

import asyncio
import signal
from collections.abc import Callable
from dataclasses import dataclass

#: The reason of a run whose time is up.
TIME_IS_UP = "--seconds"


@dataclass
class Ending:
    """Why a run ends before its script does; empty while nobody asks for it."""

    reason: str = ""
    state: str = ""
    """The state folder that stays if the run is stopped before its last audit."""

    @property
    def by_signal(self) -> bool:
        """Whether somebody outside has asked for it."""
        return self.reason not in {"", TIME_IS_UP}


def stop_on_signals(ending: Ending | None, say: Callable[[str], None]) -> None:
    """Let SIGTERM and Ctrl-C end this task: in good order where the run can do that, else, or the second time, at once.

    A shell lets what it starts with `&` ignore SIGINT, and it stays ignored.
    """
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    left = [] if task is None else [task]

    def told(number: signal.Signals) -> None:
        if ending is None or ending.by_signal:
            # A third signal must not cut off the end of the parts.
            while left:
                left.pop().cancel()
            return
        ending.reason = number.name
        say(f"{number.name}: the step is finished, then comes the audit; the next signal stops all at once")

    for number in (signal.SIGTERM, signal.SIGINT):
        if signal.getsignal(number) is not signal.SIG_IGN:
            loop.add_signal_handler(number, told, number)
