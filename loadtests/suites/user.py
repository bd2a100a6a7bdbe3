"""The base of all simulated users: what they are given, how they take turns, how they call.

Never import this into another program than Locust: it replaces the sockets of its process with gevent's.
"""

import itertools
import random
import re
import uuid
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar

import gevent
import msgspec
from locust import FastHttpUser, between, task
from locust.exception import RescheduleTask, StopUser

from loadtests.suites.given import Given, Person

#: A service that takes longer has failed the request.
CONNECT_SECONDS, ANSWER_SECONDS = 5.0, 15.0
MOST_REASON = 80
#: Users begin one after the other, so the numbers tell them apart.
_numbers, _leavers = itertools.count(), itertools.count(1)

Action = Callable[["LoadUser"], None]


class LoadUser(FastHttpUser):
    """One client, which does the actions of its deck in an order drawn anew for each deal, with a pause after each."""

    abstract = True
    wait_time = between(0.01, 0.05)
    connection_timeout = CONNECT_SECONDS
    network_timeout = ANSWER_SECONDS
    #: Each action, and how often it is in a deal.
    deck: ClassVar[Mapping[Action, int]] = {}

    def on_start(self) -> None:
        """Take a number, and the person of that number."""
        self.given: Given = self.environment.given
        self.draw = random.Random()
        number = next(_numbers)
        if self.given.people:
            self.person: Person = self.given.people[number % len(self.given.people)]
        self._turns = _dealt(self.deck, self.draw, once=self.given.once)

    @task
    def act(self) -> None:
        """Do the next action. A user without one leaves, and the last one to leave ends the run."""
        action = next(self._turns, None)
        if action is None:
            runner = self.environment.runner
            if next(_leavers) == runner.target_user_count:
                gevent.spawn(runner.quit)
            raise StopUser
        action(self)

    def call(
        self,
        name: str,
        path: str = "",
        body: Any = None,
        *,
        token: str = "",
        headers: Mapping[str, str] | None = None,
        expect: str = "",
        times: int = 1,
        measured_as: str = "",
    ) -> Any:
        """Make one request, named `METHOD path`, and return its JSON; `path` is where the name has placeholders.

        A status from 400 on, an answer that is no JSON, or one that has the text `expect` fewer `times`, counts as
        failed, and ends the action.
        """
        method, _, template = name.partition(" (")[0].partition(" ")
        sent = {"Authorization": f"Bearer {token}"} if token else {}
        sent |= headers or {}
        data = None
        if body is not None:
            data = (body if isinstance(body, bytes) else msgspec.json.encode(body)).decode()
            sent.setdefault("Content-Type", "application/json")
        with self.client.request(
            method, path or template, name=measured_as or name, data=data, headers=sent, catch_response=True
        ) as response:
            if response.status_code >= 400 or response.status_code == 0:
                response.failure(f"status {response.status_code} {_reason(response.text)}".rstrip())
                raise RescheduleTask
            try:
                answer = msgspec.json.decode(response.content)
            except msgspec.DecodeError:
                response.failure("no JSON")
                raise RescheduleTask from None
            if expect and response.text.count(expect) < times:
                response.failure(f"not {times} times {expect} in the answer")
                raise RescheduleTask
            response.success()
            return answer

    def v1(self, name: str, path: str = "", body: Any = None, *, expect: str = "", times: int = 1) -> Any:
        """Make one request under /v1, a write under a key of its own."""
        headers = {} if body is None else {"Idempotency-Key": new_key()}
        return self.call(
            name, path, body, token=self.given.api_key, headers=headers, expect=expect, times=times
        )


def new_key() -> str:
    """Return an idempotency key that nobody has used."""
    return str(uuid.uuid4())


def _reason(text: str | None) -> str:
    """Return why a request was refused, without ids: failures are counted by their text."""
    try:
        told = msgspec.json.decode(text or "")
    except msgspec.DecodeError:
        return ""
    fields = told if isinstance(told, dict) else {}
    error = fields.get("error")
    code = error.get("code") if isinstance(error, dict) else error
    return re.sub(r"[0-9]+", "#", str(code or fields.get("code") or fields.get("detail") or ""))[:MOST_REASON]


def _dealt(deck: Mapping[Action, int], draw: random.Random, *, once: bool) -> Iterator[Action]:
    """Deal one of each action first, so that a short run makes every request, then the deck again and again."""
    yield from draw.sample(list(deck), len(deck))
    if once:
        return
    cards = [action for action, count in deck.items() for _ in range(count)]
    while True:
        yield from draw.sample(cards, len(cards))
