import asyncio
import io
import json
import logging
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import structlog
from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.contextvars import bound_contextvars

from core import masking
from core.log import access_log, begin_exchange, configure_logging
from core.masking import MOST_CHARACTERS, MOST_ITEMS, TOO_DEEP, mask
from core.settings import load_settings

ROOT = Path(__file__).parents[2]

Lines = Callable[[], list[dict[str, Any]]]


class Terminal(io.BytesIO):
    def isatty(self) -> bool:
        return True


pytestmark = pytest.mark.usefixtures("logging_as_before")


def configured(stream: io.BytesIO, **settings: Any) -> None:
    configure_logging(load_settings(env_file=None, **{"env": "test"} | settings), stream)


@pytest.fixture
def lines() -> Lines:
    stream = io.BytesIO()
    configured(stream, log_level="debug")

    def read() -> list[dict[str, Any]]:
        found = [json.loads(line) for line in stream.getvalue().splitlines()]
        stream.seek(0)
        stream.truncate()
        return found

    return read


def test_an_event_is_one_json_line_with_what_is_bound_to_the_task(lines: Lines) -> None:
    log = structlog.get_logger("core.inbox")
    with bound_contextvars(request_id="r" * 32):
        log.info("inbox.batch", events=3, seconds=0.5)
    log.debug("two\nlines")
    first, second = lines()
    assert first.pop("timestamp").endswith("Z")
    assert first == {
        "level": "info",
        "logger": "core.inbox",
        "event": "inbox.batch",
        "request_id": "r" * 32,
        "events": 3,
        "seconds": 0.5,
    }
    assert second["event"] == "two\nlines"
    assert "request_id" not in second


def test_lines_below_the_level_are_not_written() -> None:
    stream = io.BytesIO()
    configured(stream, log_level="warning")
    structlog.get_logger("x").info("no")
    logging.getLogger("x").info("no")
    access_log("GET", "/health", 200, 0.001)
    structlog.get_logger("x").warning("yes")
    logging.getLogger("x").warning("yes")
    assert [json.loads(line)["event"] for line in stream.getvalue().splitlines()] == ["yes", "yes"]


def test_the_standard_librarys_loggers_take_the_same_way(lines: Lines) -> None:
    logging.getLogger("arq.worker").warning("job of %s is 100%% done", "a@b.example")
    logging.getLogger("odd").log(35, "between two levels")
    try:
        raise ValueError("card 4111 1111 1111 1111")
    except ValueError:
        logging.getLogger("asyncio").exception("task failed")
    warning, odd, error = lines()
    assert (warning["logger"], warning["level"]) == ("arq.worker", "warning")
    assert warning["event"] == "job of ***EMAIL*** is 100% done"
    assert odd["level"] == "warning"
    assert "ValueError: card ***CARD***" in error["exception"]
    assert "test_log.py" in error["exception"]


def test_a_record_whose_arguments_do_not_fit_is_written_all_the_same() -> None:
    # Configured here and not by the fixture, since pytest's own handler, which raises, must be gone.
    stream = io.BytesIO()
    configured(stream)
    logging.getLogger("x").warning("%d seats", "a@b.example")
    assert json.loads(stream.getvalue())["event"] == "%d seats ('***EMAIL***',)"


def test_values_that_json_does_not_know_are_still_written(lines: Lines) -> None:
    folder = Path("/srv")
    structlog.get_logger("x").info(
        "odd", huge=2**70, raw=b"\xff", lone="\udc80", folder=folder, error=KeyError("k")
    )
    structlog.get_logger("x").info("known", folder=folder)
    odd, known = lines()
    assert (odd["huge"], odd["raw"], odd["lone"]) == (2**70, "\\xff", "\udc80")
    assert odd["folder"] == known["folder"] == repr(folder)


async def test_the_access_line_has_the_contracts_fields(lines: Lines) -> None:
    begin_exchange("r", "t")
    access_log("POST", "/v1/transfers", 201, 0.0123456)
    access_log("GET", "/v1/accounts/{id}", 404, 0.001)
    await asyncio.sleep(0)
    first, second = [line for line in lines() if line["logger"] == "app.request"]
    assert first.pop("timestamp").endswith("Z")
    assert first == {
        "level": "info",
        "logger": "app.request",
        "event": "request",
        "request_id": "r",
        "traceparent": "t",
        "method": "POST",
        "path": "/v1/transfers",
        "status": 201,
        "duration_ms": 12.346,
    }
    assert second["path"] == "/v1/accounts/{id}"


def test_the_access_line_is_written_at_once_outside_an_event_loop(lines: Lines) -> None:
    access_log("GET", "/\udcff", 404, 0.001)
    (line,) = lines()
    assert line["path"] == "/\udcff"


def test_a_developers_terminal_gets_readable_lines() -> None:
    stream = Terminal()
    configured(stream, env="dev")
    structlog.get_logger("x").info("sent", to="a@b.example", name="Zoë")
    access_log("GET", "/health", 200, 0.001)
    text = stream.getvalue().decode()
    assert "{" not in text
    assert "***EMAIL***" in text
    assert "Zoë" in text
    assert "/health" in text


@pytest.mark.parametrize(
    "program",
    [
        "raise ValueError('from a@b.example')",
        "import threading; t = threading.Thread(target=lambda: int('from a@b.example')); t.start(); t.join(); exit(1)",
    ],
)
def test_an_uncaught_exception_is_a_line_too(program: str) -> None:
    start = (
        "from core.log import configure_logging\n"
        "from core.settings import load_settings\n"
        "configure_logging(load_settings(env_file=None))\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", start + program], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 1
    line = json.loads(ended.stdout)
    assert (line["level"], line["event"]) == ("critical", "uncaught exception")
    assert "ValueError" in line["exception"]
    assert "a@b.example" not in ended.stdout + ended.stderr


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("write to jane.doe+pay@mail.example.com now", "write to ***EMAIL*** now"),
        ("sk_live_12345678", "***TOKEN***"),
        ("key pk_test_abcdefgh.", "key ***TOKEN***."),
        ("tk_abcdefgh", "***TOKEN***"),
        ("whsec_abcdefgh", "***TOKEN***"),
        ("whsec_c2VjcmV0+abc/def==, old", "***TOKEN***, old"),
        ("sent eyJhbGciOi.eyJzdWIiOi.ab-c_d.", "sent ***TOKEN***."),
        ("GET /x?Access_Token=a+b/c&page=2", "GET /x?Access_Token=***MASKED***&page=2"),
        ("host=h password=hunter2 user=u", "host=h password=***MASKED*** user=u"),
        ("sk_short", "sk_short"),
        ("key tsk_fvmu5o5wscla_8Uq0-x_Yz, sent", "key ***TOKEN***, sent"),
        ("postgresql://u:pw@postgres:5432/db", "postgresql://u:***MASKED***@postgres:5432/db"),
        ("redis://:pw@redis:6379", "redis://:***MASKED***@redis:6379"),
        ("to redis://:p@w:x@redis.example, lost", "to redis://:***MASKED***@redis.example, lost"),
        ("http://localhost:8080/a?at=5", "http://localhost:8080/a?at=5"),
        ("Authorization: Bearer abc.def-ghi", "Authorization: Bearer ***TOKEN***"),
        ("a" * 40, "***TOKEN***"),
        ("a" * 39, "a" * 39),
        ("4111111111111111", "***CARD***"),
        ("4111 1111-1111 1111.", "***CARD***."),
        ("3782 822463 10005", "***CARD***"),
        ("+963 944 123 456", "***PHONE***"),
        ("from +963944123456 to 00963944123456", "from ***PHONE*** to ***PHONE***"),
        ("amount 1000000 at +5", "amount 1000000 at +5"),
        ("0193e5a0-7b1c-7d3e-9f00-123456789012", "0193e5a0-7b1c-7d3e-9f00-123456789012"),
        ("2026-11-21T12:30:37.171732Z", "2026-11-21T12:30:37.171732Z"),
        ("insufficient_funds", "insufficient_funds"),
    ],
)
def test_masks_by_shape(text: str, masked: str) -> None:
    assert mask(text) == masked


@given(st.data())
@settings(max_examples=200, deadline=None)
def test_no_shape_is_missed_by_the_look_for_its_signs(data: st.DataObject) -> None:
    shape, _ = data.draw(st.sampled_from(masking._SHAPES))
    text = data.draw(st.text(max_size=5)) + data.draw(st.from_regex(shape)) + data.draw(st.text(max_size=5))
    if shape.search(text) is not None:
        assert masking._SIGNS.search(text) is not None


def test_masks_by_name_through_dicts_and_lists() -> None:
    value = {
        "amount": 5,
        "Client_Secret": "x",
        "api_key": {"nested": "x"},
        "x-signature": b"x",
        "authorization": ["x"],
        "password": "",
        "Credential-Id": "x",
        "private_note": "x",
        "people": [{"mail": "a@b.example", "tokens": 3}, ("a@b.example", None)],
    }
    assert mask(value) == {
        "amount": 5,
        "Client_Secret": "***MASKED***",
        "api_key": "***MASKED***",
        "x-signature": "***MASKED***",
        "authorization": "***MASKED***",
        "password": "",
        "Credential-Id": "***MASKED***",
        "private_note": "***MASKED***",
        "people": [{"mail": "***EMAIL***", "tokens": "***MASKED***"}, ["***EMAIL***", None]],
    }


def test_masking_is_bounded() -> None:
    deep: Any = "a@b.example"
    for _ in range(1_000):
        deep = [deep]
    assert TOO_DEEP in json.dumps(mask(deep))
    assert len(mask(["x"] * 10_000)) == len(mask({str(i): i for i in range(10_000)})) == MOST_ITEMS
    assert mask("a " * 10**6 + "ValueError: the point").endswith("ValueError: the point")
    # Runs that could make a naive pattern take quadratic time.
    for run in (
        "a." * 10**6,
        "a@" * 10**6,
        "1 " * 10**6,
        "+1" * 10**6,
        "bearer " * 10**6,
        "://:" * 10**6,
        b"\xff" * 10**6,
    ):
        assert len(mask(run)) <= 4 * MOST_CHARACTERS + 1
