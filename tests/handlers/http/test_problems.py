"""Refusals over HTTP: a body that is kept is the body that would be made, and no answer changes the next one."""

from collections.abc import Callable

import msgspec
import pytest

from core.errors import Refusal
from handlers.http.problems import MAX_KEPT_SENTENCE, Problem, problem_details, problem_of, refused
from handlers.webhooks.routes import webhook_problem


def shouted(problem: Problem) -> bytes:
    return problem_details(problem).upper()


@pytest.mark.parametrize("write", [problem_details, webhook_problem, shouted])
@pytest.mark.parametrize(
    "refusal",
    [
        Refusal("invalid_signature", "Invalid signature"),
        Refusal("invalid_signature", "Another sentence"),
        Refusal("unauthorized", "Who is it?"),
        Refusal("database_unavailable", "Not now.", retry_after=2.5),
        Refusal("forbidden", "No.", scope="admin"),
        Refusal("forbidden", "No.", scope="feed:read"),
        Refusal("invalid_request", "x" * (MAX_KEPT_SENTENCE + 1)),
        Refusal("a_code_that_no_table_has", "?"),
    ],
)
def test_an_answer_says_the_same_each_time(refusal: Refusal, write: Callable[[Problem], bytes]) -> None:
    made = write(problem_of(refusal.code, refusal.detail, refusal.extra))
    first, second = refused(refusal, write), refused(refusal, write)
    assert first.body == second.body == made
    assert first.status == second.status == msgspec.json.decode(made.lower())["status"]
    assert first.headers == second.headers
    assert ("WWW-Authenticate" in first.headers) is (first.status == 401)


def test_what_one_answer_adds_is_not_in_the_next() -> None:
    replayed = Refusal("insufficient_funds", "Too little.", retry_after=1.0)
    replayed.replayed = True
    assert {"Idempotent-Replayed", "Retry-After"} <= set(refused(replayed).headers)
    assert list(refused(Refusal("insufficient_funds", "Too little.")).headers) == ["Content-Type"]
