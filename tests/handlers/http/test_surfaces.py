"""A surface is an object: nothing outside of it asks which one it is."""

import ast
from collections.abc import Iterator
from pathlib import Path

import grpc

import handlers
from core.errors import Unavailable
from handlers.app import SURFACES
from handlers.http.problems import PROBLEMS
from handlers.http.route import Route, answer, table
from handlers.http.surface import Surface
from handlers.payments.orchestration.grpc_service import CODES
from handlers.payments.orders.problems import CREATE_TYPES, EDGE_WORDS

FOLDER = Path(handlers.__file__).parent
NAMES = {surface.name for surface in SURFACES}


def questions(tree: ast.Module) -> Iterator[ast.AST]:
    """Comparisons with a surface or its name, looks at a surface's name, and looks at its class."""
    kinds = {type(surface).__name__ for surface in SURFACES} | {Surface.__name__}
    for node in ast.walk(tree):
        below = list(ast.walk(node))
        names = {part.id for part in below if isinstance(part, ast.Name)}
        attributes = {part.attr for part in below if isinstance(part, ast.Attribute)}
        words = {
            part.value for part in below if isinstance(part, ast.Constant) and isinstance(part.value, str)
        }
        compared = isinstance(node, ast.Compare | ast.MatchValue)
        if (compared and ("surface" in attributes or ("name" in attributes and words & NAMES))) or (
            (isinstance(node, ast.Call) and ast.unparse(node.func) == "isinstance" and names & kinds)
            or (isinstance(node, ast.Attribute) and ast.unparse(node) == "surface.name")
        ):
            yield node


def test_nobody_asks_which_surface_it_is() -> None:
    found = {
        f"{path.relative_to(FOLDER)}:{getattr(node, 'lineno', 0)}"
        for path in FOLDER.rglob("*.py")
        for node in questions(ast.parse(path.read_text()))
    }
    assert found == set()


def test_the_search_finds_such_questions() -> None:
    for question in ('route.surface == "x"', "isinstance(it, WalletSurface)", "surface.name in {}"):
        assert list(questions(ast.parse(question))), question
    assert not hasattr(Route, "surface")


def test_every_surface_has_a_name_of_its_own_and_routes_of_its_own() -> None:
    assert len(NAMES) == len(SURFACES)
    places = [(route.method, route.path) for surface in SURFACES for route in surface.routes]
    assert len(set(places)) == len(places)
    # A hidden route is another spelling of a path, and does what the other one does.
    operations = [route.operation for surface in SURFACES for route in surface.routes if not route.hidden]
    assert len(set(operations)) == len(operations)


def test_a_table_fills_in_what_its_routes_leave_out() -> None:
    async def handle(_call: object) -> object:
        return answer(200, None)

    routes = table(
        Route("GET", "/things/{thing}", handle, "one", "One", limited=False),  # type: ignore[arg-type]
        Route("GET", "/things", handle, "all", "All", tag="other", answers={204: None}),  # type: ignore[arg-type]
        tag="things",
        answers={200: None},
        parameters={"thing": int},
    )
    assert [route.tag for route in routes] == ["things", "other"]
    assert [dict(route.answers) for route in routes] == [{200: None}, {204: None}]
    assert [dict(route.parameters) for route in routes] == [{"thing": int}, {}]
    assert [route.limited for route in routes] == [False, True]


def test_an_outage_is_one_on_every_surface() -> None:
    """The create route of orders has 502 for every failure, which old shops expect."""
    outages = {code for code, kind in PROBLEMS.items() if kind.status == 503}
    assert outages >= {"database_unavailable", "busy", "session_not_set", "overloaded", "shutting_down"}
    for surface in SURFACES:
        expected = 502 if surface.problem_types is CREATE_TYPES else 503
        for code in outages:
            response = surface.refuse(Unavailable("Away.", code=code, retry_after=3))
            assert (response.status, response.headers["Retry-After"]) == (expected, "3"), (surface.name, code)
    assert {code for code in outages if CODES.get(code) is not grpc.StatusCode.UNAVAILABLE} == set()
    assert {code for code in outages if EDGE_WORDS.get(code) != "payments_unavailable"} == set()
