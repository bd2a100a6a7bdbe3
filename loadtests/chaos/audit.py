"""The audit of a run, drawn up from outside: from the answers, the tables, and the receiver's notes."""

import asyncio
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import asyncpg
import msgspec

from loadtests.bench.stand import child_environment
from loadtests.bench.subject import Connection
from loadtests.chaos.provider import CURRENCY, Journal, shop_account
from loadtests.chaos.receiver import Line
from tests.invariants import faults

#: Whole tables are compared, whose sizes a server that was killed has forgotten: it would go through one of them for
#: each row of another, for minutes.
WHOLE_TABLES = {"enable_nestloop": "off", "work_mem": "64MB"}
#: So many cases of each finding are named.
EXAMPLES = 5

#: The possible findings, each the opposite of a promise.
CHECKS = {
    "not_acknowledged": "an event that was sent again and again was never acknowledged",
    "unexpected_answer": "an answer was neither an acknowledgement nor a temporary refusal",
    "new_twice": "an event was acknowledged as new more than once",
    "forged_accepted": "an event with a wrong signature was acknowledged or stored",
    "lost_at_the_door": "an acknowledged event is not in the inbox",
    "not_processed": "an acknowledged event was not applied",
    "not_posted": "an acknowledged event has no transfer in the ledger",
    "posted_twice": "an event has more than one transfer in the ledger",
    "posted_wrongly": "a transfer is not what the event said",
    "posted_unasked": "a transfer belongs to no event that was sent",
    "wrong_balance": "a balance is not the sum of what was acknowledged",
    "not_emitted": "a posted event was not told of",
    "emitted_twice": "a posted event was told of more than once",
    "not_delivered": "an emitted event never reached its receiver",
    "delivered_under_two_ids": "an event reached its receiver under more than one id",
    "delivered_changed": "an event reached its receiver with other bytes another time",
    "delivered_unasked": "a delivery belongs to no event that was sent",
    "signature_wrong": "the receiver found a signature wrong",
    "ledger": "`tallystick verify` found a fault",
    "books": "the books do not agree",
    "no_comeback": "the service did not come back after a fault",
}


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """A promise that was broken, how often, and the first cases."""

    check: str
    count: int
    examples: list[str]


class Posted(NamedTuple):
    """One leg of a transfer that was made of an event."""

    transfer: int
    intent: str
    account: str
    amount: int


@dataclass
class Evidence:
    """The evidence of a run, from which the findings are drawn."""

    journal: Journal
    inbox: Mapping[str, tuple[str, str | None]]
    """Of each event in the inbox: its state and outcome."""
    posted: Sequence[Posted]
    emitted: Sequence[str]
    """The intent of each event that was emitted."""
    received: Sequence[Line]
    balances: Mapping[str, int]
    ledger: Sequence[str] = ()
    books: Sequence[str] = ()
    no_comeback: Sequence[str] = field(default_factory=list)


_INBOX = "SELECT event_id, state, outcome FROM inbox_events"
_POSTED = """
    SELECT t.no, t.reference, a.code, e.amount FROM transfers AS t
    JOIN entries AS e ON (e.no >> 12) << 12 = t.no
    JOIN accounts AS a ON a.id = e.account_id
    WHERE t.kind = 'stripe.payment'
"""
_EMITTED = "SELECT object_id FROM outbox_events WHERE event_type = 'payment.succeeded'"
_UNDONE = "SELECT count(*) FROM inbox_events WHERE state = 'pending'"


async def undone(connection: Connection) -> int:
    """Return the number of events in the inbox that are not finished."""
    return int(await connection.fetchval(_UNDONE))


async def collect(
    connection: Connection,
    database_url: str,
    journal: Journal,
    received: Sequence[Line],
    balances: Mapping[str, int],
) -> Evidence:
    """Read the tables and let the ledger be verified."""
    return Evidence(
        journal=journal,
        inbox={row["event_id"]: (row["state"], row["outcome"]) for row in await connection.fetch(_INBOX)},
        posted=[
            Posted(row["no"], row["reference"], row["code"], row["amount"])
            for row in await connection.fetch(_POSTED)
        ],
        emitted=[row["object_id"] for row in await connection.fetch(_EMITTED)],
        received=received,
        balances=balances,
        ledger=await verified(database_url),
        books=await disagreements(database_url),
    )


async def disagreements(database_url: str) -> list[str]:
    """Return the questions about the books that have an answer, each with its first row."""
    connection = await asyncpg.connect(database_url, server_settings=WHOLE_TABLES)
    try:
        return [f"{question}: {rows[0]}" for question, rows in (await faults(connection)).items()]
    finally:
        await connection.close()


async def verified(database_url: str) -> list[str]:
    """Return the findings of `tallystick verify`, run as a program of its own."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "ops.cli", "verify", "--json"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=child_environment({"ENV": "test", "DATABASE_URL": database_url}),
        # A Ctrl-C that ends the run must not look like a fault of the ledger.
        start_new_session=True,
    )
    output, said = await process.communicate()
    try:
        found = msgspec.json.decode(output)["findings"]
    except msgspec.DecodeError:
        return [f"exit code {process.returncode}: {said.decode(errors='replace')[-1000:]}"]
    return [f"{finding['check']}: {finding['subject']}: {finding['detail']}" for finding in found]


def judge(evidence: Evidence) -> list[Finding]:
    """Hold the evidence against every promise; nothing is found where all were kept."""
    broken: dict[str, list[str]] = {
        **_at_the_door(evidence),
        **_in_the_ledger(evidence),
        **_at_the_receiver(evidence),
        "ledger": list(evidence.ledger),
        "books": list(evidence.books),
        "no_comeback": list(evidence.no_comeback),
    }
    return [
        Finding(check=check, count=len(broken[check]), examples=sorted(broken[check])[:EXAMPLES])
        for check in CHECKS
        if broken[check]
    ]


def _at_the_door(evidence: Evidence) -> dict[str, list[str]]:
    journal, inbox = evidence.journal, evidence.inbox
    acknowledged = [event_id for event_id in journal.sent if event_id in journal.acknowledged]
    finished = ("done", "applied")
    return {
        "not_acknowledged": [event_id for event_id in journal.sent if event_id not in journal.acknowledged],
        "unexpected_answer": list(journal.unexpected),
        "new_twice": [
            event_id for event_id, messages in journal.acknowledged.items() if messages.count("received") > 1
        ],
        "forged_accepted": [
            event_id for event_id in journal.forged if event_id in journal.acknowledged or event_id in inbox
        ],
        "lost_at_the_door": [event_id for event_id in acknowledged if event_id not in inbox],
        "not_processed": [
            f"{event_id}: {inbox[event_id]}"
            for event_id in acknowledged
            if event_id in inbox and inbox[event_id] != finished
        ],
    }


def _in_the_ledger(evidence: Evidence) -> dict[str, list[str]]:
    journal = evidence.journal
    events = journal.genuine()
    clearing = f"provider:stripe:clearing:{CURRENCY}"
    legs: defaultdict[str, defaultdict[int, list[tuple[str, int]]]] = defaultdict(lambda: defaultdict(list))
    for leg in evidence.posted:
        legs[leg.intent][leg.transfer].append((leg.account, leg.amount))
    expected: Counter[str] = Counter()
    wrong = []
    for intent, event in events.items():
        account = shop_account(event.shop)
        if event.id in journal.acknowledged:
            expected[account] += event.amount
            expected[clearing] -= event.amount
        right = sorted([(account, event.amount), (clearing, -event.amount)])
        wrong += [f"{intent}: {found}" for found in legs.get(intent, {}).values() if sorted(found) != right]
    told = Counter(evidence.emitted)
    return {
        "not_posted": [
            event.id
            for intent, event in events.items()
            if event.id in journal.acknowledged and not legs.get(intent)
        ],
        "posted_twice": [f"{intent}: {len(found)} times" for intent, found in legs.items() if len(found) > 1],
        "posted_wrongly": wrong,
        "posted_unasked": [intent for intent in legs if intent not in events],
        "wrong_balance": [
            f"{account} has {balance}, {balance - expected[account]:+} of what it should have"
            for account, balance in evidence.balances.items()
            if balance != expected[account]
        ],
        "not_emitted": [intent for intent in legs if not told[intent]],
        "emitted_twice": _repeated(told),
    }


def _at_the_receiver(evidence: Evidence) -> dict[str, list[str]]:
    events = evidence.journal.genuine()
    ids: defaultdict[str, set[str]] = defaultdict(set)
    bodies: defaultdict[str, set[str]] = defaultdict(set)
    for line in evidence.received:
        if not line.problem:
            ids[line.intent].add(line.id)
            bodies[line.intent].add(line.digest)
    # An event that the receiver only refused, hung up on or never answered has not been delivered.
    taken = delivered(evidence.received)
    return {
        "not_delivered": sorted({intent for intent in evidence.emitted if intent not in taken}),
        "delivered_under_two_ids": [
            f"{intent}: {sorted(found)}" for intent, found in ids.items() if len(found) > 1
        ],
        "delivered_changed": [intent for intent, found in bodies.items() if len(found) > 1],
        "delivered_unasked": [intent for intent in ids if intent not in events],
        "signature_wrong": [f"{line.id}: {line.problem}" for line in evidence.received if line.problem],
    }


def delivered(received: Iterable[Line]) -> set[str]:
    """Return the intents whose events the receiver took."""
    return {line.intent for line in received if 200 <= line.answer < 300}


def _repeated(counts: Counter[str]) -> list[str]:
    return [f"{name}: {count} times" for name, count in counts.items() if count > 1]
