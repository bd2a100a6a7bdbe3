"""The providers that the settings name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from core.providers import cloudpayments, kaspi_words, links, paypal_objects, simulator, stripe_objects
from core.providers.cloudpayments import CloudPayments
from core.providers.kaspi import Kaspi
from core.providers.kaspi_bank import KaspiBank
from core.providers.links import Links
from core.providers.paypal import PayPal
from core.providers.simulator import Simulator
from core.providers.stripe import Stripe

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from core.providers.protocol import Notice, Provider
    from core.settings import Settings


def providers_of(settings: Settings) -> dict[str, Provider]:
    """Return each provider that the settings have an address and credentials for, by its name.

    Nothing is opened before the first call. Raises OSError if the roots of PayPal, or the files of
    KASPI_API_CERT_FILE and its neighbours, cannot be read.
    """
    made: list[Provider | None] = [
        Stripe.of(settings),
        PayPal.of(settings),
        CloudPayments.of(settings),
        KaspiBank.of(settings) or Kaspi.of(settings),
        Links.of(settings),
        Simulator.of(settings),
    ]
    return {provider.name: provider for provider in made if provider is not None}


EVENT_READERS: Final[Mapping[str, Callable[[str, bytes], Notice | None]]] = {
    stripe_objects.NAME: stripe_objects.read_event,
    paypal_objects.NAME: paypal_objects.read_event,
    cloudpayments.NAME: cloudpayments.read_event,
    links.NAME: links.read_event,
    simulator.NAME: simulator.read_event,
}
"""The readers of the events of each provider that sends some, set up or not; each raises ValueError."""
NAMES: Final = frozenset({*EVENT_READERS, kaspi_words.NAME})
"""The names of all providers, set up or not."""
