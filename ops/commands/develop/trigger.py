"""`tallystick trigger`: play a provider, and send one signed event."""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from typing import TYPE_CHECKING, Any, Final

import click

from ops.commands.develop.target import Target, find_target, options
from ops.commands.printing import print_json, printable

if TYPE_CHECKING:
    import aiohttp

CALL_SECONDS: Final = 15
# A worker applies an event within milliseconds; one that is down is not waited for.
FATE_SECONDS: Final = 10.0
LOOK_SECONDS: Final = 0.1
MOST_SHOWN: Final = 300
SUCCEEDED: Final = "payment_intent.succeeded"


@click.group()
def trigger() -> None:
    """Play a provider, and send one signed event to a service, as the provider would."""


@trigger.command()
@click.argument("event_type", metavar="TYPE")
@click.option(
    "--account", help="The account that is paid, in the payment's metadata; without it no money moves."
)
@click.option(
    "--amount", type=click.IntRange(1, 2**53), default=1500, show_default=True, help="In the minor unit."
)
@click.option("--currency", default="usd", show_default=True, help="The currency, as Stripe writes it.")
@click.option("--event-id", help="The event's id; the same one again is a repetition.  [default: a new one]")
@click.option("--wait/--no-wait", default=True, help="Wait for the event's fate.  [default: wait]")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")
@options
def stripe(
    event_type: str,
    *,
    account: str | None,
    amount: int,
    currency: str,
    event_id: str | None,
    wait: bool,
    as_json: bool,
    **where: Any,
) -> None:
    """Send an event of TYPE, such as payment_intent.succeeded, signed with the service's secret of Stripe.

    The event is one of Stripe's test mode (`livemode` is false), which production stores and ignores. Exit code 1: the
    service refused the event, or did not answer.

    \b
    Examples:
      tallystick trigger stripe payment_intent.succeeded --account customer:1
      tallystick trigger stripe charge.refunded --no-wait
    """  # noqa: D301 - `\b` is how click is told not to wrap
    target = find_target(**where, needs_token=False)
    event = event_of(event_type, account, amount, currency, event_id or f"evt_{secrets.token_hex(8)}")
    status, answer, told = asyncio.run(_send(target, event, wait=wait and bool(target.token)))
    if as_json:
        print_json({"event_id": event["id"], "status": status, "answer": answer, "story": told})
    else:
        _print(event, status, answer, told)
    if status != 200:
        raise click.exceptions.Exit(1)


def event_of(
    event_type: str, account: str | None, amount: int, currency: str, event_id: str
) -> dict[str, Any]:
    """Return an event of Stripe's form about a new payment; of another type than a paid one it has the same object."""
    from ops.stripe_events import payment_intent_succeeded

    intent = f"pi_{secrets.token_hex(8)}"
    event = payment_intent_succeeded(
        account or "", event_id=event_id, intent=intent, amount=amount, currency=currency
    )
    event["type"] = event_type
    if account is None:
        event["data"]["object"]["metadata"] = {}
    return event


async def _send(target: Target, event: dict[str, Any], *, wait: bool) -> tuple[int, Any, Any]:
    """Return the status, the answer, and the event's story where it is waited for."""
    import aiohttp

    from ops.stripe_events import stripe_signature

    body = json.dumps(event).encode()
    headers = {
        "Content-Type": "application/json",
        "Stripe-Signature": stripe_signature(body, target.stripe_secret, int(time.time())),
    }
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=CALL_SECONDS)) as session:
        try:
            address = f"{target.url}/webhooks/stripe"
            async with session.post(address, data=body, headers=headers, allow_redirects=False) as response:
                status, text = response.status, await response.text()
            told = await _story(session, target, event["id"]) if wait and status == 200 else None
        except (aiohttp.ClientError, TimeoutError) as error:
            raise click.ClickException(
                f"{target.url} does not answer: {str(error) or type(error).__name__}."
            ) from None
    try:
        return status, json.loads(text), told
    except ValueError:
        return status, text[:MOST_SHOWN], told


async def _story(session: aiohttp.ClientSession, target: Target, event_id: str) -> Any:
    """Return the story of an event once it is finished or was tried, as it stands after ten seconds, or None."""
    give_up_at = time.monotonic() + FATE_SECONDS
    headers = {"Authorization": f"Bearer {target.token}"}
    told = None
    while time.monotonic() < give_up_at:
        async with session.get(
            f"{target.url}/events/{event_id}?provider=stripe", headers=headers, allow_redirects=False
        ) as response:
            if response.status != 200:
                return told
            told = await response.json(content_type=None)
        if told["processing"]["state"] in {"done", "dead"} or told["processing"]["last_error"]:
            return told
        await asyncio.sleep(LOOK_SECONDS)
    return told


def _outcome(work: Any) -> str:
    return str(work["outcome"] or ("to be tried again" if work["last_error"] else "waiting for a worker"))


def _print(event: dict[str, Any], status: int, answer: Any, told: Any) -> None:
    said = answer.get("message") or answer.get("detail") if isinstance(answer, dict) else answer
    click.echo(f"{event['id']}  {printable(event['type'])}  {status} {printable(str(said))}")
    if told is not None:
        work = told["processing"]
        why = f": {printable(work['last_error'])}" if work["last_error"] else ""
        click.echo(f"{event['id']}  {_outcome(work)}{why}")
        for transfer in told["transfers"]:
            legs = ", ".join(f"{leg['account']} {leg['amount']:+d}" for leg in transfer["entries"])
            click.echo(f"  transfer {transfer['id']}: {printable(legs)}")
    if status == 200:
        click.echo(f"The whole story: tallystick events show {event['id']}", err=True)
