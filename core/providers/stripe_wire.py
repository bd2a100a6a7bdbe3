"""Stripe's library over our bounded client. Importing it takes a fifth of a second, so it is done at the first call."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import stripe

if TYPE_CHECKING:
    from collections.abc import Mapping

    from core.providers.calling import Caller

# The library would tell Stripe how long our earlier calls took.
stripe.enable_telemetry = False


class _Wire(stripe.HTTPClient):
    """The library's way to the network. Our own refusals pass through the library as they are."""

    name = "tallystick"

    def __init__(self, caller: Caller) -> None:
        super().__init__()
        self._caller = caller

    async def request_async(
        self, method: str, url: str, headers: Mapping[str, str], post_data: Any = None
    ) -> tuple[bytes, int, Mapping[str, str]]:
        body = post_data.encode() if isinstance(post_data, str) else post_data
        path = url.removeprefix(self._caller.base_url)
        reply = await self._caller.call(method.upper(), path, headers=headers, body=body)
        return reply.body, reply.status, reply.headers


def client(secret_key: str, caller: Caller) -> stripe.StripeClient:
    """Return the library's client. It repeats nothing: a repetition is the engine's decision."""
    return stripe.StripeClient(
        secret_key,
        base_addresses={"api": caller.base_url},
        http_client=_Wire(caller),
        max_network_retries=0,
    )
