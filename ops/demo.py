"""`tallystick demo`: Stripe on one side and a merchant's server on the other, around a running service."""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import Any

import aiohttp
from aiohttp import web
from rich.console import Console
from rich.live import Live
from rich.table import Table

from ops.receiving import Delivery, Receiver, problem_of
from ops.stripe_events import payment_intent_succeeded

# The time from the last event sent to the last delivery verified, on a machine that is busy with other things.
DELIVERED_WITHIN_SECONDS = 15.0
POLL_SECONDS = 0.05
CURRENCY = "USD"

console = Console(highlight=False)


@dataclass(frozen=True, slots=True)
class Target:
    """The service that is shown, with a key and the secret of Stripe's side."""

    url: str
    api_key: str
    stripe_secret: str


@dataclass(slots=True)
class Sending:
    """One request to the webhook route: its event, the answer that is expected, and the answer that came."""

    label: str
    event: dict[str, Any]
    expected: tuple[int, str]
    paid: bool = False
    forged: bool = False
    answered: tuple[int, str] | None = None
    milliseconds: float = 0.0

    @property
    def intent(self) -> str:
        """Return the id of the payment that the event tells of."""
        identity: str = self.event["data"]["object"]["id"]
        return identity


@dataclass
class Merchant(Receiver):
    """The receiver. `verified` counts the deliveries of a payment by their event id, `refused` lists the mistakes."""

    verified: defaultdict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    refused: list[str] = field(default_factory=list)

    def respond(self, delivery: Delivery) -> web.Response:
        """Accept a delivery whose two signatures are right; nothing else in it is believed before."""
        problem = problem_of(self.secret, delivery.headers, delivery.body)
        if problem:
            self.refused.append(problem)
            return web.Response(status=400, text=problem)
        self.verified[delivery.event["data"]["id"]][delivery.headers["webhook-id"]] += 1
        return web.Response(status=204)


async def run_demo(target: Target, *, payments: int) -> bool:
    """Play the demo once and show it; say whether all was as it should be."""
    run = secrets.token_hex(3)
    accounts = [f"demo:{run}:{name}" for name in ("anna", "bert")]
    sendings = plan(run, accounts, payments)
    merchant = Merchant()
    async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {target.api_key}"}) as client:
        try:
            async with merchant.listening():
                for account in accounts:
                    await _call(
                        client, "POST", f"{target.url}/v1/accounts", {"code": account, "currency": CURRENCY}
                    )
                endpoint = await _call(
                    client,
                    "POST",
                    f"{target.url}/v1/webhook-endpoints",
                    {"url": merchant.url, "event_types": ["payment.succeeded"]},
                )
                merchant.secret = endpoint["secret"]
                with Live(console=console, refresh_per_second=10) as live:
                    await _send_all(client, target, sendings, merchant, live)
                    await _await_deliveries(sendings, merchant, live)
                balances = {
                    account: await _call(client, "GET", f"{target.url}/v1/accounts/{account}")
                    for account in accounts
                }
                await _call(client, "DELETE", f"{target.url}/v1/webhook-endpoints/{endpoint['id']}")
        except aiohttp.ClientError as error:
            console.print(
                f"The service at {target.url} cannot be reached: {error}", style="red", markup=False
            )
            return False
    return _report(sendings, merchant, {code: account["balance"] for code, account in balances.items()})


def plan(run: str, accounts: list[str], payments: int) -> list[Sending]:
    """Return the requests: paid intents for the accounts in turn, one event twice, one twin event, one forged."""
    sendings = []
    for number in range(payments):
        intent = f"pi_demo_{run}_{number}"
        account = accounts[number % len(accounts)]
        event = _paid(account, intent, 1_000 + 750 * number)
        sendings.append(Sending(f"payment {number + 1}", event, (200, "received"), paid=True))
    first, second = sendings[0].event, sendings[1].event
    sendings.append(Sending("payment 1, sent again", first, (200, "duplicate ignored")))
    twin = {**second, "id": f"{second['id']}_twin"}
    sendings.append(Sending("payment 2, another event", twin, (200, "received")))
    forged = _paid(accounts[0], f"pi_demo_{run}_forged", 1_000_000)
    sendings.append(Sending("forged", forged, (400, "Invalid signature"), forged=True))
    return sendings


def _paid(account: str, intent: str, amount: int) -> dict[str, Any]:
    event_id = intent.replace("pi_", "evt_", 1)
    return payment_intent_succeeded(
        account, event_id=event_id, intent=intent, amount=amount, currency=CURRENCY.lower()
    )


async def _call(client: aiohttp.ClientSession, method: str, url: str, body: Any = None) -> Any:
    """Call the service as an operator would, and end the demo with the service's sentence if it refuses."""
    async with client.request(method, url, json=body) as response:
        answer = await response.json(content_type=None) if response.status != 204 else None
        if response.status >= 400:
            detail = answer.get("detail") if isinstance(answer, dict) else answer
            raise aiohttp.ClientError(f"{method} {url} was answered {response.status}: {detail}")
        return answer


async def _send_all(
    client: aiohttp.ClientSession, target: Target, sendings: list[Sending], merchant: Merchant, live: Live
) -> None:
    # Stripe's library is large, and only this command signs with it.
    import stripe

    for sending in sendings:
        payload = json.dumps(sending.event)
        secret = "whsec_somebody_elses" if sending.forged else target.stripe_secret
        header = stripe.WebhookSignature.generate_signature_header(payload, secret)
        started = time.perf_counter()
        async with client.post(
            f"{target.url}/webhooks/stripe", data=payload, headers={"Stripe-Signature": header}
        ) as response:
            answer = await response.json(content_type=None)
        sending.milliseconds = (time.perf_counter() - started) * 1000
        sending.answered = (response.status, str(answer.get("message") or answer.get("detail")))
        live.update(_table(sendings, merchant))


async def _await_deliveries(sendings: list[Sending], merchant: Merchant, live: Live) -> None:
    give_up_at = time.monotonic() + DELIVERED_WITHIN_SECONDS
    wanted = {sending.intent for sending in sendings if not sending.forged}
    while not wanted <= merchant.verified.keys() and time.monotonic() < give_up_at:
        await asyncio.sleep(POLL_SECONDS)
        live.update(_table(sendings, merchant))
    live.update(_table(sendings, merchant))


def _table(sendings: list[Sending], merchant: Merchant) -> Table:
    table = Table(title="Signed events in, verified deliveries out", title_justify="left")
    for column in ("sent as Stripe", "to", "amount", "answered", "delivered"):
        table.add_column(column, justify="right" if column == "amount" else "left")
    for sending in sendings:
        intent = sending.event["data"]["object"]
        table.add_row(
            sending.label,
            intent["metadata"]["account"].rpartition(":")[2],
            f"{intent['amount_received'] / 100:.2f}",
            _answer_cell(sending),
            _delivery_cell(sending, merchant),
        )
    return table


def _answer_cell(sending: Sending) -> str:
    if sending.answered is None:
        return "[dim]waiting[/]"
    status, message = sending.answered
    colour = "green" if sending.answered == sending.expected else "red"
    return f"[{colour}]{status} {message}[/] [dim]{sending.milliseconds:.0f} ms[/]"


def _delivery_cell(sending: Sending, merchant: Merchant) -> str:
    events = merchant.verified.get(sending.intent, Counter())
    if sending.forged:
        return "[red]delivered![/]" if events else "[dim]never[/]"
    if not sending.paid:
        return "[dim]no second time[/]"
    return "[green]verified[/]" if events else "[dim]waiting[/]"


def _report(sendings: list[Sending], merchant: Merchant, balances: dict[str, int]) -> bool:
    expected: Counter[str] = Counter()
    for sending in sendings:
        if sending.paid:
            intent = sending.event["data"]["object"]
            expected[intent["metadata"]["account"]] += intent["amount_received"]
    table = Table(title="Balances", title_justify="left")
    for column in ("account", "balance", "expected"):
        table.add_column(column, justify="left" if column == "account" else "right")
    for account, balance in balances.items():
        colour = "green" if balance == expected[account] else "red"
        table.add_row(
            account, f"[{colour}]{balance / 100:.2f}[/]", f"{expected[account] / 100:.2f} {CURRENCY}"
        )
    console.print()
    console.print(table)
    problems = _problems(sendings, merchant)
    problems += [
        f"{account} has {balance}" for account, balance in balances.items() if balance != expected[account]
    ]
    for problem in problems:
        console.print(f"Wrong: {problem}.", style="red", markup=False)
    if not problems:
        console.print(
            "Every event was answered, posted once and delivered once, with both signatures.", style="green"
        )
    return not problems


def _problems(sendings: list[Sending], merchant: Merchant) -> list[str]:
    problems = [f"a delivery was refused: {reason}" for reason in merchant.refused]
    for sending in sendings:
        if sending.answered != sending.expected:
            problems.append(f"{sending.label} was answered {sending.answered}")
        events = merchant.verified.get(sending.intent, Counter())
        if sending.paid and not events:
            problems.append(f"{sending.intent} was not delivered within {DELIVERED_WITHIN_SECONDS:g} s")
        if len(events) > 1:
            problems.append(f"{sending.intent} was delivered as {len(events)} events")
        if sending.forged and events:
            problems.append("a forged event was delivered")
    return problems
