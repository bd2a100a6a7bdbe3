"""Every route as every kind of caller: a new route without a row here fails."""

from typing import Final

import pytest

from handlers.payments.orchestration.routes import ORCHESTRATION
from tests.handlers.payments.orchestration.conftest import SERVICE, Contract

pytestmark = pytest.mark.shared

CALLERS: Final = ("nobody", "forged", "without_access", "stranger", "owner", "office")
# By the route: the statuses of the callers, in their order. The stranger has a key of its own, the office sees all.
TABLE: Final = {
    "POST /payments": (401, 401, 403, 409, 201, 201),
    "GET /payments": (401, 401, 403, 200, 200, 200),
    "GET /payments/{id}": (401, 401, 403, 404, 200, 200),
    "POST /payments/{id}/cancel": (401, 401, 403, 404, 200, 200),
    # Without a signature that holds, which is asked for after the key.
    "POST /webhooks/providers/{provider}/{hash}": (401, 401, 403, 400, 400, 400),
}


def test_every_route_has_a_row() -> None:
    assert {f"{route.method} {route.path}" for route in ORCHESTRATION.routes} == TABLE.keys()


@pytest.mark.parametrize("common", [False, True])
async def test_each_caller_gets_what_the_table_says(contract: Contract, *, common: bool) -> None:
    asked = contract.order()
    payment = (await contract.ask("POST", "/payments", asked, caller="owner")).payment
    await contract.key("office", SERVICE, f"{SERVICE}:all")
    await contract.key("without_access", "others")
    for route, statuses in TABLE.items():
        method, _, path = route.partition(" ")
        path = path.format(id=payment["id"], provider="stripe", hash=payment["provider_callback_hash"])
        for caller, status in zip(CALLERS, statuses, strict=True):
            headers = {"forged": {"X-API-Key": f"{await contract.key('owner')}x"}}.get(caller, {})
            key = None if caller in {"nobody", "forged"} else caller
            body = asked if route == "POST /payments" else None
            said = await contract.ask(method, path, body, caller=key, headers=headers, common=common)
            assert said.status == status, (route, caller, said)
