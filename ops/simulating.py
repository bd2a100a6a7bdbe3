"""The provider simulator beside `tallystick up`: its process, and the settings that the others find it by."""

from __future__ import annotations

import secrets
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from core.outbox.signing import new_secret
from ops.process import take_next_port
from ops.state import write_secret
from ops.supervisor import Program

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

    from core.settings import Settings

HOST = "127.0.0.1"
# The port of the old services' simulator.
PORT = 8002
WEBHOOK_PATH = "/webhooks/simulator"
# The route of the orders contract to which the provider of merchants' links tells that one was paid.
LINKS_WEBHOOK_PATH = "/api/v1/payments/webhook"
KEY_BYTES = 32


@dataclass(frozen=True, slots=True)
class Simulated:
    """The simulator of one instance: its port, the secret of its webhooks, and the key of its links' webhooks."""

    port: int
    webhook_secret: str
    links_key: str

    @property
    def url(self) -> str:
        """Its address on this machine."""
        return f"http://{HOST}:{self.port}"

    def handed(self, settings: Settings, api_url: str) -> dict[str, str]:
        """Return the settings by which all processes know of it. A setting that somebody has made stays as it is."""
        made = {
            "simulator_url": self.url,
            "simulator_webhook_url": f"{api_url}{WEBHOOK_PATH}",
            "simulator_webhook_secret": self.webhook_secret,
            "provider_url": self.url,
            "payment_url_base_webhook": f"{api_url}{LINKS_WEBHOOK_PATH}",
            "internal_webhook_secret": self.links_key,
            "pay_page_cards": "true",
        }
        return {name: value for name, value in made.items() if not getattr(settings, name)}

    def program(self, output: Path) -> Program:
        """Return its process. Its payments are in its memory, so it is not replaced as long as it lives."""
        command = (sys.executable, "-m", "ops.cli", "simulator", "--host", HOST, "--port", str(self.port))
        return Program("simulator", command, stop_within=2.0, log=output)


def simulate(settings: Settings, folder: Path, taken: Collection[int]) -> Simulated | None:
    """Return the simulator that runs beside the service in development, None where one is set or none is wanted.

    Its port moves on to the next free one that is none of `taken`.
    """
    if settings.env == "prod" or settings.simulator_url:
        return None
    port = take_next_port(HOST, PORT, taken)
    return Simulated(
        port,
        settings.simulator_webhook_secret or _kept(folder / "simulator_webhook_secret", new_secret()),
        next(iter(settings.internal_webhook_secret), "")
        or _kept(folder / "internal_webhook_secret", secrets.token_urlsafe(KEY_BYTES)),
    )


def _kept(path: Path, fresh: str) -> str:
    """Return the secret that is kept in a file; a fresh one where there is none."""
    if not path.exists():
        write_secret(path, fresh)
    return path.read_text()
