"""Every route of the wallet surface as every kind of caller, against the table in authorisation.toml."""

import re
import tomllib
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from core import ids
from core.settings import Settings
from handlers.api import Route
from handlers.app import ROUTES
from tests.handlers.wallets.conftest import ADMIN, INTERNAL, ApiClient, MakePerson, Person

TABLE = tomllib.loads(Path(__file__).with_name("authorisation.toml").read_text())
CALLERS: tuple[str, ...] = tuple(TABLE["callers"]["anyone"]["allowed"])
WALLET_ROUTES = {f"{route.method} {route.path}": route for route in ROUTES if route.surface == "wallet"}
BALANCE = 1_000

People = Mapping[str, Person]


async def _endpoint(owner: Any, people: People) -> str:
    endpoint_id = ids.new_uuid()
    await owner.execute(
        "INSERT INTO webhook_endpoints (id, principal_id, url, event_types, secrets)"
        " VALUES ($1, $2, 'https://example.org', '{}', '{whsec_x}')",
        endpoint_id,
        people["owner"].user.principal_id,
    )
    return str(endpoint_id)


async def _payable(owner: Any, kind: str, payee: Person, payer: Person | None) -> Any:
    return await owner.fetchrow(
        "INSERT INTO payables (id, kind, code, payee_id, payer_id, amount, currency, due_at)"
        " VALUES ($1, $2, $3, $4, $5, 5, 'SYP', now()) RETURNING id, code",
        ids.new_uuid(),
        kind,
        uuid4().hex,
        payee.user.id,
        None if payer is None else payer.user.id,
    )


async def _request(owner: Any, people: People) -> str:
    return str((await _payable(owner, "request", people["other"], people["owner"]))["id"])


async def _invoice(owner: Any, people: People) -> str:
    return str((await _payable(owner, "invoice", people["merchant"], people["owner"]))["id"])


async def _link(owner: Any, people: People) -> str:
    return str((await _payable(owner, "link", people["merchant"], None))["code"])


async def _mandate(owner: Any, people: People) -> str:
    made = await owner.fetchval(
        "INSERT INTO mandates (id, payer_id, issuer_id, autopay) VALUES ($1, $2, $3, TRUE)"
        " ON CONFLICT (payer_id, issuer_id) DO UPDATE SET state = 'active' RETURNING id",
        ids.new_uuid(),
        people["owner"].user.id,
        people["merchant"].user.id,
    )
    return str(made)


async def _subscription(owner: Any, people: People) -> str:
    subscription_id = ids.new_uuid()
    await owner.execute(
        "INSERT INTO subscriptions"
        " (id, payer_id, merchant_id, amount, currency, interval_days, next_charge_at, try_at)"
        " VALUES ($1, $2, $3, 5, 'SYP', 30, now(), now())",
        subscription_id,
        people["owner"].user.id,
        people["merchant"].user.id,
    )
    return str(subscription_id)


# What a row calls `object`: made by or for the owner; its id, or whatever fills {object}. The first argument is the
# database's owner.
MAKERS: dict[str, Callable[[Any, People], Awaitable[str]]] = {
    "endpoint": _endpoint,
    "request": _request,
    "invoice": _invoice,
    "link": _link,
    "mandate": _mandate,
    "subscription": _subscription,
}


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """Without rate limits, and with the plain secret for internal callers, so that only authorisation is tried."""
    changes = {"rate_limit_enabled": False, "internal_require_hmac": False}
    return Settings.model_validate(settings.model_dump() | changes)


async def _people(person: MakePerson) -> dict[str, Person]:
    owner, other = await person(balance=BALANCE, kyc=1), await person(balance=BALANCE, kyc=1)
    return {
        "owner": owner,
        "other": other,
        "merchant": await person(balance=BALANCE, kyc=1, merchant=True),
        "agent": await person(balance=BALANCE, kyc=1, agent=True),
        "false_admin": owner,
        "user_admin": owner,
    }


def _filled(value: Any, texts: Mapping[str, str]) -> Any:
    if isinstance(value, str):
        for name, text in texts.items():
            value = value.replace(f"{{{name}}}", text)
        return value
    if isinstance(value, dict):
        return {name: _filled(part, texts) for name, part in value.items()}
    return value


async def _observed(
    client: ApiClient, route: Route, row: Mapping[str, Any], person: MakePerson, owner: Any
) -> dict[str, int]:
    """What each caller gets: all are people of this route alone, and each finds an object that nobody has touched."""
    found = {}
    people = await _people(person)
    texts = {
        f"{name}.{part}": str(getattr(people[name].user, part))
        for name in ("owner", "other", "merchant", "agent")
        for part in ("id", "phone", "wallet_id")
    }
    for caller in CALLERS:
        if "object" in row:
            texts["object"] = await MAKERS[row["object"]](owner, people)
        given = {"user_id": texts["owner.id"], **_filled(row.get("path", {}), texts)}
        path = re.sub(r"{(\w+)}", lambda match: given.get(match[1], str(uuid4())), route.path)  # noqa: B023
        somebody = people.get(caller, Person(client, None, None))
        found[caller] = (
            await somebody.ask(
                route.method,
                path,
                _filled(row.get("body"), texts),
                params=_filled(row.get("query", {}), texts),
                headers=_headers(caller),
            )
        ).status
    return found


def _headers(caller: str) -> dict[str, str]:
    match caller:
        case "forged":
            return {"Authorization": "Bearer forged"}
        case "internal":
            return {"X-Internal-Secret": INTERNAL}
        case "admin" | "user_admin":
            return {"X-Admin-Token": ADMIN}
        case "false_admin":
            return {"X-Admin-Token": "false"}
        case _:
            return {}


def _expected(route: Route, row: Mapping[str, Any]) -> dict[str, int]:
    by_kind = TABLE["callers"][route.caller]
    allowed = by_kind["allowed"]
    return {
        caller: row.get(caller, row["allowed"] if caller in allowed else by_kind.get(caller))
        for caller in CALLERS
    }


def _as_row(name: str, route: Route, observed: Mapping[str, int]) -> str:
    """Return the row that says what was observed: a proposal for somebody who then thinks about it."""
    by_kind = TABLE["callers"][route.caller]
    let_in = [observed[caller] for caller in by_kind["allowed"]]
    allowed = max(set(let_in), key=let_in.count, default=200)
    lines = [f'[routes."{name}"]', f"allowed = {allowed}"]
    for caller, status in observed.items():
        usual = allowed if caller in by_kind["allowed"] else by_kind[caller]
        lines += [f"{caller} = {status}"] if status != usual else []
    return "\n".join(lines)


async def test_every_route_has_a_row(wallets: ApiClient, person: MakePerson, owner: Any) -> None:
    missing = [name for name in WALLET_ROUTES if name not in TABLE["routes"]]
    proposals = []
    for name in missing:
        route = WALLET_ROUTES[name]
        proposals.append(_as_row(name, route, await _observed(wallets, route, {"body": {}}, person, owner)))
    assert not missing, "not in authorisation.toml; as it is now:\n\n" + "\n\n".join(proposals)
    assert set(TABLE["routes"]) <= set(WALLET_ROUTES), "rows of routes that are gone"


def test_rows_name_only_what_there_is() -> None:
    words = {"allowed", "body", "query", "path", "object", *CALLERS}
    assert {name: set(row) - words for name, row in TABLE["routes"].items() if set(row) - words} == {}
    for kind, row in TABLE["callers"].items():
        assert {*row["allowed"], *row} - {"allowed"} == set(CALLERS), kind


@pytest.mark.timeout(300)
async def test_everybody_gets_what_the_table_says(wallets: ApiClient, person: MakePerson, owner: Any) -> None:
    wrong = {}
    for name, row in TABLE["routes"].items():
        route = WALLET_ROUTES[name]
        expected, observed = _expected(route, row), await _observed(wallets, route, row, person, owner)
        differing = {who: (expected[who], observed[who]) for who in CALLERS if expected[who] != observed[who]}
        if differing:
            wrong[name] = differing
    assert wrong == {}, "expected, observed"
