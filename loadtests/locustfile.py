"""Locust suite: transfers and Stripe events against a running service, held to the budgets in budgets.toml.

    locust -f loadtests/locustfile.py --headless -u 50 -r 50 -t 30s --host http://127.0.0.1:8080 \
        --api-key tsk_... --stripe-secret whsec_...

Exits with 1 when a budget is breached. Never import this into another program: Locust replaces the sockets of its
process with gevent's. Each kind of client is a user class of its own; a new surface adds one, and its budget.
"""

import json
import random
import sys
import time
import uuid
from pathlib import Path
from typing import Any

from locust import FastHttpUser, between, events, task
from locust.runners import WorkerRunner
from rich.console import Console

# Locust is given a path and not a package, so the checkout is not where modules are looked for.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from loadtests.budgets import BUDGETS, Seen, breached, budgets_table, judge, load_budgets
from ops.stripe_events import payment_intent_succeeded, stripe_signature

CURRENCY = "KZT"
#: Where the money of all users comes from: an account without a floor.
SOURCE = "load-source"
#: The table fits into this width, where no terminal has one.
PIPED_WIDTH = 120
#: Accounts of one run's users, known to all of them, so that transfers cross between users.
WALLETS: list[str] = []


@events.init_command_line_parser.add_listener  # type: ignore[untyped-decorator]
def add_options(parser: Any) -> None:
    """Our own options; in the environment under the names of the service's settings where there is one."""
    parser.add_argument(
        "--api-key", env_var="TALLYSTICK_TOKEN", default="", is_secret=True, help="Key with all scopes"
    )
    parser.add_argument(
        "--stripe-secret",
        env_var="STRIPE_SIGNING_SECRET",
        default="",
        is_secret=True,
        help="What the service verifies Stripe's signatures with",
    )
    parser.add_argument("--budgets", default=str(BUDGETS), help="File of the budgets")


class ApiUser(FastHttpUser):
    """The base of all users of the ledger's API: a key, and an account of their own."""

    abstract = True
    wait_time = between(0.01, 0.05)

    def on_start(self) -> None:
        """Opens the source and the user's wallet. Opening an account again is no error."""
        self.headers = {"Authorization": f"Bearer {self.environment.parsed_options.api_key}"}
        self.wallet = f"load-{uuid.uuid4().hex[:12]}"
        self.post("/v1/accounts", {"code": SOURCE, "currency": CURRENCY, "limits": {"floor": None}})
        self.post("/v1/accounts", {"code": self.wallet, "currency": CURRENCY})
        WALLETS.append(self.wallet)

    def post(self, path: str, body: dict[str, Any]) -> None:
        """Posts with a key of its own; any status from 400 on is a failure."""
        headers = {**self.headers, "Idempotency-Key": str(uuid.uuid4())}
        self.client.post(path, name=f"POST {path}", json=body, headers=headers)


class Payer(ApiUser):
    """Pays single transfers from the source to anybody's wallet."""

    weight = 4

    @task
    def pay(self) -> None:
        """One two-leg transfer."""
        body = {
            "from": SOURCE,
            "to": random.choice(WALLETS),
            "amount": random.randint(1, 999),
            "kind": "payment",
        }
        self.post("/v1/transfers", body)


class StripeSender(ApiUser):
    """Sends events as Stripe does: each with an id and a signature of its own."""

    weight = 1

    @task
    def succeed(self) -> None:
        """One payment that succeeded, for this user's wallet."""
        intent, event_id = f"pi_{uuid.uuid4().hex}", f"evt_{uuid.uuid4().hex}"
        event = payment_intent_succeeded(
            self.wallet, event_id=event_id, intent=intent, currency=CURRENCY.lower()
        )
        body = json.dumps(event)
        signature = stripe_signature(
            body.encode(), self.environment.parsed_options.stripe_secret, int(time.time())
        )
        headers = {"Content-Type": "application/json", "Stripe-Signature": signature}
        self.client.post("/webhooks/stripe", name="POST /webhooks/stripe", data=body, headers=headers)


@events.quitting.add_listener  # type: ignore[untyped-decorator]
def hold_to_budgets(environment: Any, **_: object) -> None:
    """Prints the verdict at the end and sets the exit code. Locust's own workers leave that to their master."""
    if isinstance(environment.runner, WorkerRunner):
        return
    seen = {
        entry.name: Seen(entry.num_requests, entry.num_failures, entry.get_response_time_percentile(0.95))
        for entry in environment.stats.entries.values()
        if entry.num_requests
    }
    lines = judge(load_budgets(Path(environment.parsed_options.budgets)), seen)
    console = Console()
    console = console if console.is_terminal else Console(width=PIPED_WIDTH)
    console.print(budgets_table(lines))
    for line in lines:
        if line.breach:
            console.print(
                f"budget breached: {line.name}: {line.breach}", soft_wrap=True, markup=False, highlight=False
            )
    # Failed requests are the budgets' affair; an exception in a user's code is a fault of the suite.
    environment.process_exit_code = 1 if breached(lines) or environment.runner.exceptions else 0
