"""The types of events: each that is told can be asked for and is in the documents, and nothing else is promised."""

import ast
import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.outbox.events import EVENT_TYPE_PATTERN, KNOWN_TYPES, encode
from core.payables.kinds import KINDS
from core.payments.telling import TYPES
from tests.core.outbox.office import Office

ROOT = Path(__file__).resolve().parents[3]
HOOK = "https://shop.example.com/hooks"
# The functions that tell an event of a type, and the records of payments that are told under their kind.
TELLING = {
    "announce",
    "create",
    "end",
    "new_event",
    "store",
    "tell",
    "tell_all",
    "_done",
    "_tell",
    "_tell_missed",
}
_TYPE = re.compile(rf"(?=[a-z_]+\.){EVENT_TYPE_PATTERN}")


def told_in(path: Path) -> set[str]:
    """Return the types that a module tells: those that it hands to a telling function, directly or by a name."""
    tree = ast.parse(path.read_text())
    named: dict[str, set[str]] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
            target = node.targets[0] if isinstance(node, ast.Assign) else node.target
            if isinstance(target, ast.Name):
                named.setdefault(target.id, set()).update(texts_of(node.value))
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if name in TELLING:
                for argument in node.args:
                    found |= texts_of(argument)
                    if isinstance(argument, ast.Name):
                        found |= named.get(argument.id, set())
    return found


def texts_of(node: ast.expr) -> set[str]:
    parts = [node.body, node.orelse] if isinstance(node, ast.IfExp) else [node]
    return {
        part.value
        for part in parts
        if isinstance(part, ast.Constant) and isinstance(part.value, str) and _TYPE.fullmatch(part.value)
    }


def test_every_told_type_is_known() -> None:
    told = set().union(*(told_in(path) for path in (ROOT / "core").rglob("*.py")))
    kinds = {rules.event for rules in KINDS.values()} | {
        rules.expired for rules in KINDS.values() if rules.expired
    }
    told |= TYPES
    assert told | kinds <= KNOWN_TYPES, (told | kinds) - KNOWN_TYPES
    # A type that nobody tells is not promised, either. Vouchers and refunds are told under the kind of their payment.
    assert KNOWN_TYPES - told - kinds == {"vouchers.create", "refunds.create"} - told


def test_every_known_type_is_in_the_documents() -> None:
    text = (ROOT / "docs/webhooks.md").read_text()
    assert [one for one in sorted(KNOWN_TYPES) if f"`{one}`" not in text] == []
    assert "transfer." not in text


@pytest.mark.shared
@pytest.mark.parametrize(
    ("pattern", "nearest"),
    [
        ("transfers.*", "transfer"),
        ("payment.suceeded", "payment.succeeded"),
        ("refund.created", "refunds.create"),
        ("request.accept", "requests.accept"),
        ("payments.qr_pay.*", "payments.qr_pay"),
        ("webhook", "webhook"),
        ("wallets.*", "wallet.*"),
        ("REQUESTS.*", "requests.*"),
    ],
)
async def test_a_pattern_that_matches_nothing_is_refused(
    office: Office, pattern: str, nearest: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("core.outbox.events.KNOWN_TYPES", KNOWN_TYPES)
    made = await office.endpoint(HOOK, event_types=["payment.*", "*"])
    for method, path, body in (
        ("POST", "/v1/webhook-endpoints", {"url": HOOK, "event_types": ["payment.succeeded", pattern]}),
        ("PATCH", f"/v1/webhook-endpoints/{made['id']}", {"event_types": [pattern]}),
        ("GET", f"/v1/events?types=requests.*,{pattern}", None),
        *(
            (
                ("GET", f"/v1/webhook-deliveries?type={pattern}", None),
                (
                    "POST",
                    "/v1/webhook-deliveries/replay",
                    {"from": "2026-01-01T00:00:00Z", "to": "2026-01-02T00:00:00Z", "types": [pattern]},
                ),
            )
            if "*" not in pattern
            else ()
        ),
    ):
        status, problem = await office.call(method, path, body)
        assert (status, problem["error"]["code"]) == (400, "invalid_request")
        assert f"No event has the type {pattern}." in problem["detail"]
        assert nearest in problem["detail"]


@given(
    st.dictionaries(
        st.text(max_size=5),
        st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.text() | st.lists(st.text(max_size=3)),
        max_size=4,
    )
)
def test_a_body_is_compact_json_in_ascii(data: dict[str, Any]) -> None:
    """The bytes are those of the standard library, whichever encoder made them."""
    expected = json.dumps({"type": "webhook.test", "data": data}, separators=(",", ":"))
    assert encode("webhook.test", data) == expected.encode("ascii")
