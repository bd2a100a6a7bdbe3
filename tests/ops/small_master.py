"""A master of the small service: `small_master.py <port file> <workers> <metrics> <silence> <drain>`."""

import json
import signal
import sys
from pathlib import Path

from ops.listening import Listeners
from ops.supervisor import Program, Supervisor


def be_the_master(port_file: Path, workers: int, folder: str, silence_limit: float, drain: float) -> None:
    listeners = Listeners("127.0.0.1", 0)
    command = (sys.executable, str(Path(__file__).with_name("small_service.py")))
    program = Program(
        "small",
        command,
        workers,
        serves=True,
        stop_within=5,
        silence_limit=silence_limit,
        death_signal=signal.SIGTERM,
    )
    supervisor = Supervisor(
        [program],
        [listeners],
        report=_report,
        environment={"PROMETHEUS_MULTIPROC_DIR": folder},
        drain_seconds=drain,
        on_ready=lambda: port_file.write_text(str(listeners.port)),
    )
    supervisor.run()


def _report(event: str, **fields: object) -> None:
    sys.stdout.write(json.dumps({"event": event, **fields}) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    be_the_master(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3], float(sys.argv[4]), float(sys.argv[5]))
