import os
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import UUID

import pytest

from core import ids

ROOT = Path(__file__).parents[2]
PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
TRACE_ID = PARENT[3:35]


def test_uuids_are_version_7_of_now_and_grow() -> None:
    before = time.time_ns() // 1_000_000
    made = [ids.new_uuid() for _ in range(10_000)]
    after = time.time_ns() // 1_000_000
    assert {uuid.version for uuid in made} == {7}
    assert {uuid.variant for uuid in made} == {"specified in RFC 4122"}
    # A millisecond whose random part is used up borrows from the next one, so a little slack above.
    assert all(before <= uuid.int >> 80 <= after + 1 for uuid in made)
    assert made == sorted(set(made))


def test_row_ids_are_uuids_of_the_same_row() -> None:
    first, row, last = ids.new_uuid(), ids.new_row_id(), ids.new_uuid()
    assert first < row < last
    assert isinstance(row, UUID)
    assert row.version == 7
    assert (row, hash(row), str(row)) == (UUID(str(row)), hash(UUID(str(row))), str(UUID(str(row))))


def test_uuids_of_several_threads_are_distinct() -> None:
    with ThreadPoolExecutor(4) as threads:
        made = [*threads.map(lambda _: ids.new_uuid(), range(4_000))]
    assert len(set(made)) == len(made)


def test_uuids_grow_while_the_clock_goes_back_or_the_random_part_is_used_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first = ids.new_uuid()
    monkeypatch.setattr(time, "time_ns", lambda: 1_000_000)
    second = ids.new_uuid()
    monkeypatch.setattr(ids, "_last_random", 2**74 - 1)
    third = ids.new_uuid()
    assert first < second < third
    assert third.int >> 80 == (second.int >> 80) + 1
    assert third.version == 7


def test_a_forked_child_makes_other_uuids_than_its_parent() -> None:
    program = (
        "import os, sys\n"
        "from core import ids\n"
        "ids.new_uuid()\n"
        "child = os.fork()\n"
        "if child: os.waitpid(child, 0)\n"
        "print(*[ids.new_request_id() for _ in range(20)], sep='\\n', flush=True)\n"
        "if not child: os._exit(0)\n"
    )
    made = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env={**os.environ},
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    assert len(made) == len(set(made)) == 40


def test_a_request_id_of_the_caller_is_kept_if_it_fits_a_header_and_a_log_line() -> None:
    assert ids.request_id_of("Shop-42/abc") == "Shop-42/abc"
    for bad in (None, "", " ", "a b", "a\r\nSet-Cookie: x", "é", "x" * 129):
        assert re.fullmatch(r"[0-9a-f]{32}", ids.request_id_of(bad))
    assert ids.new_request_id() != ids.new_request_id()


@pytest.mark.parametrize(
    ("header", "flags"),
    [
        (PARENT, "01"),
        (PARENT[:-2] + "00", "00"),
        # Unknown flags are not handed on, and a later version is read as far as version 00 goes.
        (PARENT[:-2] + "ff", "01"),
        ("cc" + PARENT[2:], "01"),
        ("cc" + PARENT[2:] + "-what-the-future-brings", "01"),
    ],
)
def test_a_trace_is_continued(header: str, flags: str) -> None:
    ours = ids.continue_trace(header)
    assert re.fullmatch(rf"00-{TRACE_ID}-[0-9a-f]{{16}}-{flags}", ours)
    assert ours[36:52] not in header
    assert ids.continue_trace(ours)[:35] == ours[:35]


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "nodash",
        PARENT.upper(),
        "ff" + PARENT[2:],
        PARENT + "-more",
        PARENT + " ",
        f"00-{'0' * 32}-00f067aa0ba902b7-01",
        f"00-{TRACE_ID}-{'0' * 16}-01",
        f"00-{TRACE_ID[:-1]}-00f067aa0ba902b7-01",
        "cc" + PARENT[2:] + "x",
        "cc" + PARENT[2:] + "-" + "x" * 1000,
    ],
)
def test_a_trace_that_cannot_be_read_is_begun_anew(header: str | None) -> None:
    ours = ids.continue_trace(header)
    assert re.fullmatch(r"00-[0-9a-f]{32}-[0-9a-f]{16}-00", ours)
    assert TRACE_ID not in ours


def test_a_new_exchange_has_a_request_id_and_a_trace_that_others_continue() -> None:
    exchanges = [ids.new_exchange() for _ in range(1000)]

    for request_id, traceparent in exchanges:
        assert ids.request_id_of(request_id) == request_id
        assert ids.continue_trace(traceparent)[:36] == traceparent[:36]
    assert len({part for pair in exchanges for part in pair}) == 2000
