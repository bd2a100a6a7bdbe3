"""Parts that the tests of a module share: `@pytest.mark.shared` on a test, or `pytestmark` in its file.

A test may be marked if it adds only data of its own (a principal, a phone, a key that no other test uses) or none, and
if it asks nothing about whole tables. It gets the database and Redis of its module, and the service and the application
that the module has for the test's settings. `@pytest.mark.alone` takes one test out of a marked file.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from types import TracebackType
from typing import Any, Protocol, Self, TypeVar

from core.settings import Settings

T = TypeVar("T")


class Part(Protocol):
    """A function that opens a part under a name; the end of its context closes the part, unless others share it."""

    def __call__(
        self, name: str, opening: Callable[[], AbstractAsyncContextManager[T]], /
    ) -> AbstractAsyncContextManager[T]: ...


def named(kind: str, settings: Settings) -> str:
    """Return the name of a part that is made for `settings`. The state directory is each test's own."""
    return f"{kind} {settings.model_dump_json(exclude={'state_dir'})}"


def alone(
    _name: str, opening: Callable[[], AbstractAsyncContextManager[T]], /
) -> AbstractAsyncContextManager[T]:
    """Open a part for one test."""
    return opening()


class Parts:
    """The parts that one module's tests share, open until its last test has ended."""

    def __init__(self) -> None:
        self._stack = AsyncExitStack()
        self._open: dict[str, Any] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    @asynccontextmanager
    async def part(
        self, name: str, opening: Callable[[], AbstractAsyncContextManager[T]], /
    ) -> AsyncIterator[T]:
        """Open a part unless it is open, and leave it open."""
        if name not in self._open:
            self._open[name] = await self._stack.enter_async_context(opening())
        yield self._open[name]
