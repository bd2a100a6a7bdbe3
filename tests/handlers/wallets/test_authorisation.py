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
from handlers.http.route import Route
from handlers.wallets.routes import WALLETS
from tests.handlers.wallets.conftest import ADMIN, INTERNAL, ApiClient, MakePerson, Person, new_key

TABLE = tomllib.loads(Path(__file__).with_name("authorisation.toml").read_text())
CALLERS: tuple[str, ...] = tuple(TABLE["callers"]["anyone"]["allowed"])
WALLET_ROUTES = {f"{route.method} {route.path}": route for route in WALLETS.routes}
BALANCE = 1_000

People = Mapping[str, Person]


async def _endpoint(owner: Any, people: People) -> str:
    endpoint_id = ids.new_uuid()
    await owner.execute(
        "INSERT INTO webhook_endpoints (id, principal_id, url, event_types, secrets)"
        " VALUES ($1, $2, 'https://example.org', '{}', '{whsec_x}')",
        endpoint_id,
        people["merchant"].user.principal_id,
    )
    return str(endpoint_id)


async def _delivery(owner: Any, people: People) -> str:
    event_id, delivery_id = ids.new_uuid(), ids.new_uuid()
    await owner.execute(
        "INSERT INTO outbox_events (id, principal_id, event_type, body, fanned_out_at)"
        " VALUES ($1, $2, 'a.b', '{}', now())",
        event_id,
        people["merchant"].user.principal_id,
    )
    await owner.execute(
        "INSERT INTO webhook_deliveries (id, event_id, endpoint_id) VALUES ($1, $2, $3)",
        delivery_id,
        event_id,
        await _endpoint(owner, people),
    )
    return str(delivery_id)


def _posted(
    maker: str, path: str, body: Mapping[str, Any], field: str = "id"
) -> Callable[[Any, People], Awaitable[str]]:
    """Make an object by a request of one of the people: a field of the answer."""

    async def make(_owner: Any, people: People) -> str:
        said = await people[maker].post(path, _filled(body, _texts(people)))
        assert said.status == 200, (path, said)
        return str(said.json[field])

    return make


async def _made(who: Person, path: str, body: Any, name: str) -> str:
    said = await who.post(path, body)
    assert said.status == 200, said
    made: str = said.json[name]
    return made


async def _payment(_owner: Any, people: People) -> str:
    """A payment that the owner received."""
    body = {"to_phone": people["owner"].phone, "amount_cents": 1, "idempotency_key": new_key()}
    return await _made(people["other"], "/wallet/transfer", body, "transfer_id")


async def _refund(owner: Any, people: People) -> str:
    body = {"original_transfer_id": await _payment(owner, people), "amount_cents": 1}
    return await _made(people["owner"], "/refunds", body, "refund_id")


async def _cash_request(_owner: Any, people: People) -> str:
    return await _made(people["owner"], "/cash/cashin/request", {"amount_cents": 1}, "id")


async def _voucher(_owner: Any, people: People) -> str:
    await people["owner"].top_up(100)
    return await _made(people["owner"], "/vouchers", {"amount_syp": 1}, "code")


# What a row calls `object`: its id, or whatever fills {object}. The first argument is the database's owner. A new one:
# whoever may see it is among the people, and at least one of them is a stranger to it.
MAKERS: dict[str, Callable[[Any, People], Awaitable[str]]] = {
    # the merchant's
    "endpoint": _endpoint,
    "delivery": _delivery,
    "qr": _posted("merchant", "/payments/merchant/qr", {"amount_cents": 5}, "code"),
    "merchant_key": _posted("merchant", "/merchant/api/keys", {}, "key_id"),
    # from the owner, to the other
    "request": _posted("owner", "/requests", {"to_phone": "{other.phone}", "amount_cents": 5}),
    "link": _posted("owner", "/payments/links", {"amount_cents": 5}, "code"),
    # issued by the merchant, to be paid by the owner
    "invoice": _posted("merchant", "/invoices", {"payer_phone": "{owner.phone}", "amount_cents": 5}),
    "mandate": _posted("owner", "/invoices/mandates", {"issuer_phone": "{merchant.phone}", "autopay": True}),
    "subscription": _posted(
        "owner", "/subscriptions", {"merchant_phone": "{merchant.phone}", "amount_cents": 5}
    ),
    # received by the owner
    "payment": _payment,
    "refund": _refund,
    "cash_request": _cash_request,
    "voucher": _voucher,
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


def _texts(people: People) -> dict[str, str]:
    """Return what fills a row's texts."""
    return {
        f"{name}.{part}": str(getattr(people[name].user, part))
        for name in ("owner", "other", "merchant", "agent")
        for part in ("id", "phone", "wallet_id")
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
    texts = _texts(people)
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
    found = {caller: row["allowed"] if caller in allowed else by_kind[caller] for caller in CALLERS}
    if route.caller == "user" and "owner" in row:
        # Who sends an admin token beside their own, a good one or not, is no more and no less than who they are.
        found |= dict.fromkeys(("owner", "false_admin", "user_admin"), row["owner"])
    return found | {caller: row[caller] for caller in CALLERS if caller in row}


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


async def test_everybody_gets_what_the_table_says(wallets: ApiClient, person: MakePerson, owner: Any) -> None:
    wrong = {}
    for name, row in TABLE["routes"].items():
        route = WALLET_ROUTES[name]
        expected, observed = _expected(route, row), await _observed(wallets, route, row, person, owner)
        differing = {who: (expected[who], observed[who]) for who in CALLERS if expected[who] != observed[who]}
        if differing:
            wrong[name] = differing
    assert wrong == {}, "expected, observed"
