"""Bodies are bounded in bytes, values and depth: no route's work before its refusal grows with the body."""

import re
import sys
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self
from unittest import mock

import orjson
import pytest
from aiohttp import web
from aiohttp.base_protocol import BaseProtocol
from aiohttp.streams import StreamReader
from aiohttp.test_utils import make_mocked_request
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from core.access.api_keys import SCOPES
from core.service import Service
from core.settings import Settings
from handlers.app import LISTENERS, SURFACES, contract_app, create_app
from handlers.http import bounds
from handlers.http.parts import PARTS
from handlers.http.route import Route
from handlers.http.surface import Surface
from tests.handlers.conftest import ApiKey
from tests.handlers.wallets.conftest import ADMIN, WALLET_SETTINGS

Bodies = Mapping[str, tuple[bytes, bytes, bytes]]
Headers = dict[str, str]

OURS = tuple(str(Path(__file__).parents[3] / package) for package in ("core", "handlers"))
SMALL_BYTES = 1_000
# Waits and other tasks take some lines, the same for any body; a look at each value would take 20,000 and more.
MOST_LINES = 3_000


def filled(head: bytes, piece: bytes, tail: bytes, size: int) -> bytes:
    """A body of `size` bytes at most: as many pieces as fit."""
    return head + piece * ((size - len(head) - len(tail)) // len(piece)) + tail


# Bodies that are too much, and one of so few values that no bound refuses it.
FROM_STRANGERS = {
    "lists": (b'{"a":[', b"[],", b"[]]}"),
    # One looks as if it held NULs, the other holds one where a search from either side finds it last.
    "NULs": (rb'{"z":"\u0000","a":[', rb'"aaaaaaaaaaaaaaaa",', b"1]}"),
    "texts": (b'{"a":[', rb'"\\u0000aaaaaaaaaaaa",', b"1]}"),
}
FROM_CALLERS = {
    "lists": (b'{"a":[', b"[],", b"[]]}"),
    "keys that come twice": (b"{", rb'"\u003a":1,', b'"b":1}'),
    "control characters": (b'{"a":[', rb'"\u0001",', b"1]}"),
    "one key": (b'{"', b"a", b'":1}'),
}


class Steps:
    """The lines of ours and the calls of Python that run within the block, in whatever task."""

    def __enter__(self) -> Self:
        self.lines = 0
        self._earlier = sys.gettrace()
        sys.settrace(self._see)
        return self

    def __exit__(self, *_: object) -> None:
        sys.settrace(self._earlier)

    def _see(self, frame: Any, event: str, _argument: object) -> Any:
        self.lines += event in {"line", "call"}
        # A library's own lines take long to count, and the calls into it are enough: it has no loop of ours.
        return self._see if frame.f_code.co_filename.startswith(OURS) else None


@pytest.fixture
async def apps(settings: Settings, service: Service) -> AsyncIterator[list[web.Application]]:
    """The application of the common port, and those of the contracts, started as a server starts them."""
    changed = Settings.model_validate(settings.model_dump() | WALLET_SETTINGS | {"rate_limit_enabled": False})
    common = create_app(changed, service)
    found = [common, *(contract_app(common, listener) for listener in LISTENERS.values())]
    runners = [web.AppRunner(app) for app in found]
    for runner in runners:
        await runner.setup()
    yield found
    for runner in reversed(runners):
        await runner.cleanup()


async def answered(
    app: web.Application, method: str, path: str, body: bytes, headers: Headers
) -> web.StreamResponse:
    payload = StreamReader(mock.Mock(spec=BaseProtocol), 2**24)
    payload.feed_data(body)
    payload.feed_eof()
    transport = mock.Mock()
    transport.get_extra_info.side_effect = lambda name, default=None: (
        ("192.0.2.7", 5) if name == "peername" else default
    )
    sent = {"Host": "x", "Content-Type": "application/json", "Content-Length": str(len(body)), **headers}
    request = make_mocked_request(
        method, path, headers=sent, payload=payload, app=app, transport=transport, sslcontext=None
    )
    found = await app.router.resolve(request)
    found.add_app(app)
    request._match_info = found
    return await found.handler(request)


def tried(surfaces: Sequence[Surface]) -> Iterator[tuple[Route, Surface]]:
    """Yield the routes that may get a body; the page's forms have a bound of 8 KiB and of ten fields."""
    for surface in surfaces:
        for route in surface.routes:
            if route.method not in {"GET", "DELETE"} and not route.path.startswith("/pay/"):
                yield route, surface


async def grows(app: web.Application, route: Route, limit: int, bodies: Bodies, headers: Headers) -> str:
    """Return the name of a body for which the route does more when it is larger, or an empty text."""
    path = re.sub(r"\{\w+\}", "1", route.path)
    least = 0
    for name, body in bodies.items():
        for size in (SMALL_BYTES, limit) if not least else (limit,):
            steps = Steps()
            with steps:
                answer = await answered(app, route.method, path, filled(*body, size), headers)
            assert answer.status < 500, (path, name, answer.status)
            least = least or steps.lines
            if steps.lines > least + MOST_LINES:
                return name
    return ""


async def test_no_work_before_a_refusal_grows_with_the_body(
    apps: list[web.Application], api_key: ApiKey
) -> None:
    """On every route, for strangers; where the caller is known first, also for callers with a good key or token."""
    key = await api_key(*SCOPES)
    known = {"Authorization": f"Bearer {key}", "X-Admin-Token": ADMIN, "Idempotency-Key": "k"}
    parts = apps[0][PARTS]
    for route, surface in tried(SURFACES):
        limit = parts.body_limit(route, surface.body_limit)
        assert not await grows(apps[0], route, limit, FROM_STRANGERS, {}), route.path
        if route.body is not None and (route.scope or route.admin or route.caller == "admin"):
            assert not await grows(apps[0], route, limit, FROM_CALLERS, known), route.path


async def test_wallets_take_64_kib(apps: list[web.Application]) -> None:
    for size, status in ((64 * 1024, 422), (64 * 1024 + 1, 413)):
        body = b"[" + b" " * (size - 2) + b"]"
        answer = await answered(apps[0], "POST", "/auth/login", body, {})
        assert answer.status == status, size


def parted(value: Any) -> tuple[int, int, int]:
    """Return the values, the depth and the keys of a document, by a slow, obvious walk."""
    if not isinstance(value, (list, dict)):
        return 0, 0, 0
    inner = [parted(one) for one in (value.values() if isinstance(value, dict) else value)]
    return (
        1 + max(0, len(inner) - 1) + sum(one[0] for one in inner),
        1 + max((one[1] for one in inner), default=0),
        (len(inner) if isinstance(value, dict) else 0) + sum(one[2] for one in inner),
    )


TEXTS = st.text(st.sampled_from('a"\\[]{},:é\n/'), max_size=8)
DOCUMENTS = st.recursive(
    TEXTS | st.integers(-9, 9),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(TEXTS, inner, max_size=4),
)


@given(DOCUMENTS, st.integers(0, 40), st.integers(1, 20))
@hypothesis_settings(max_examples=80, derandomize=True, database=None, deadline=None)
def test_bounds_agree_with_a_walk(document: Any, more_levels: int, most: int) -> None:
    for _ in range(more_levels):
        document = [document]
    raw = orjson.dumps(document)
    values, depth, keys = parted(document)
    # Commas in texts may make a body too large that holds fewer values, and never the other way round.
    assert bounds.too_many(raw, most) or values <= most
    assert not bounds.too_many(raw, max(values, len(raw) // 2))
    assert bounds.too_deep(raw) == (depth > bounds.MAX_DEPTH)
    assert bounds.pairs(raw) == keys


@given(st.binary(max_size=60) | st.text('[]{}",:\\', max_size=90).map(str.encode))
@hypothesis_settings(max_examples=80, derandomize=True, database=None, deadline=None)
def test_bounds_take_any_bytes(raw: bytes) -> None:
    bounds.too_many(raw, 3)
    bounds.too_deep(raw)
