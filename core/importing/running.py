"""Running: the steps of a service's import, page by page, each row by itself, with the progress in the database.

A page is a transaction and a row a savepoint within it: a row that cannot be carried over is told and costs no other.
Everything has the id that it had, or one that is derived from it, so a second run finds it and changes nothing; a row
that finds another one under its id is refused. A run that was ended goes on with the first step that it has not
finished, and repeats those that refused a row, so that its report names them all.
"""

from __future__ import annotations

from contextlib import aclosing, asynccontextmanager
from typing import TYPE_CHECKING, Final, NamedTuple

import asyncpg

from core.database import Connection, queries
from core.errors import Refusal, Unavailable
from core.importing.values import ValueProblemError, Values

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
    from contextlib import AbstractAsyncContextManager

    from core.database import Database, Query, Row
    from core.importing.sources import Page, Source
    from core.settings import Settings

    Opener = Callable[[], AbstractAsyncContextManager[Connection]]

_sql = queries(__name__)

# Problems that are kept for the report; all are counted.
MAX_TOLD: Final = 1_000


class Known(NamedTuple):
    """The row was there already, or is carried over but for a part that the note names."""

    note: str | None = None
    new: bool = False


NEW: Final = Known(new=True)
KNOWN: Final = Known()


class Context(NamedTuple):
    """The parts that writers need: the transaction of the page, and the settings of this service."""

    connection: Connection
    settings: Settings
    options: frozenset[str] = frozenset()
    lost: frozenset[tuple[str, str]] | set[tuple[str, str]] = frozenset()

    def need(self, step: str, number: int) -> None:
        """Raise ValueProblemError if the row `number` of a `needed` step was refused: the id may be another's here."""
        if (step, f"id={number}") in self.lost:
            raise ValueProblemError(f"row {number} of its {step} was not carried over")


class Step(NamedTuple):
    """A statement over the source and the writer of its rows. `tables` must be there; without them it is left out.

    `after` is run when the step is done. Rows of a `needed` step are named by others.

    A writer raises ValueProblemError or Refusal for a row that cannot be carried over.
    """

    name: str
    tables: frozenset[str]
    read: Query
    write: Callable[[Context, Values], Awaitable[Known]]
    label: Callable[[Values], str]
    after: Query | None = None
    needed: bool = False


class Problem(NamedTuple):
    """A row that was not carried over (`refused`), or not as a whole."""

    step: str
    row: str
    text: str
    refused: bool


class Count(NamedTuple):
    """The counts of a step. `skipped` is the reason why it did not run."""

    step: str
    read: int = 0
    new: int = 0
    known: int = 0
    refused: int = 0
    skipped: str | None = None


class Result(NamedTuple):
    """The result of a run: the steps in their order, and the first problems."""

    steps: list[Count]
    problems: list[Problem]

    @property
    def refused(self) -> int:
        """The number of rows that were not carried over."""
        return sum(step.refused for step in self.steps)


def known(there: Row | None, **written: object) -> Known:
    """Return KNOWN if the row that is there has what would be `written`. Raises ValueProblemError for another row."""
    if there is None:
        raise ValueProblemError("its number or name is another row's here")
    if other := [name for name, value in written.items() if there[name] != value]:
        raise ValueProblemError(f"another row is here in its place, with another {', '.join(other)}")
    return KNOWN


class _DryRunError(Exception):
    """Everything was tried, and nothing shall stay."""


class Run:
    """One run of an import. A dry run does everything in one transaction, and rolls it back."""

    def __init__(
        self,
        database: Database,
        settings: Settings,
        service: str,
        steps: Sequence[Step],
        *,
        dry_run: bool = False,
        options: frozenset[str] = frozenset(),
        on_page: Callable[[Count], None] = lambda _told: None,
    ) -> None:
        self._database = database
        self._settings = settings
        self._service = service
        self._steps = steps
        self._dry_run = dry_run
        self._options = options
        self._on_page = on_page
        self._problems: list[Problem] = []
        self._lost: set[tuple[str, str]] = set()

    async def run(self, source: Source) -> Result:
        """Carry everything over. Raises Unavailable when the database goes away; another run then goes on."""
        told: list[Count] = []
        if not self._dry_run:
            done = await self._begin()
            await self._run(source, told, done, self._database.transaction)
            await self._database.execute(_sql.end_import, self._service)
            return Result(told, self._problems)
        try:
            async with self._database.transaction() as whole:

                @asynccontextmanager
                async def page() -> AsyncIterator[Connection]:
                    yield whole

                await self._run(source, told, set(), page)
                raise _DryRunError
        except _DryRunError:
            return Result(told, self._problems)

    async def _begin(self) -> set[str]:
        """Return the steps that an ended run has done without a refusal; after a whole run all are done again."""
        rows = await self._database.fetch(_sql.import_progress, self._service)
        done = {row["step"] for row in rows if row["done"] and not row["rows_refused"]}
        return set() if "run" in done else done

    async def _run(self, source: Source, told: list[Count], done: set[str], transaction: Opener) -> None:
        tables = {name.lower() for name in await source.tables()}
        for step in self._steps:
            missing = sorted(step.tables - tables)
            if missing:
                told.append(Count(step.name, skipped=f"the source has no table {', '.join(missing)}"))
                continue
            if step.name in done:
                told.append(Count(step.name, skipped="done by the run before, which was ended"))
                continue
            counts = Count(step.name)
            async with aclosing(source.pages(step.read)) as pages:
                async for page in pages:
                    counts = await self._page(step, page, counts, transaction, done=False)
                    self._on_page(counts)
            counts = await self._page(step, [], counts, transaction, done=True)
            told.append(counts)

    async def _page(self, step: Step, page: Page, counts: Count, transaction: Opener, *, done: bool) -> Count:
        async with transaction() as connection:
            context = Context(connection, self._settings, self._options, self._lost)
            new = known = refused = 0
            for row in page:
                values = Values(row)
                written = await self._row(context, step, values)
                if written is None:
                    refused += 1
                else:
                    new += written.new
                    known += not written.new
            if done and step.after is not None:
                await connection.fetchval(step.after)
            counts = counts._replace(
                read=counts.read + len(page),
                new=counts.new + new,
                known=counts.known + known,
                refused=counts.refused + refused,
            )
            await connection.execute(
                _sql.record_import_step,
                self._service,
                step.name,
                counts.read,
                counts.new,
                counts.known,
                counts.refused,
                done,
            )
        return counts

    async def _row(self, context: Context, step: Step, values: Values) -> Known | None:
        """Write one row; None where it was refused. A lost server ends the run."""
        try:
            async with context.connection.raw.transaction():
                written = await step.write(context, values)
        except Unavailable:
            raise
        except (ValueProblemError, Refusal) as error:
            text = error.detail if isinstance(error, Refusal) else str(error)
        except (asyncpg.IntegrityConstraintViolationError, asyncpg.DataError) as error:
            # The message names the rule; the detail would repeat the row, which may hold a secret.
            text = str(error).partition("\n")[0]
        else:
            if written.note is not None:
                self._tell(step, values, written.note, refused=False)
            return written
        if step.needed:
            self._lost.add((step.name, step.label(values)))
        self._tell(step, values, text, refused=True)
        return None

    def _tell(self, step: Step, values: Values, text: str, *, refused: bool) -> None:
        if len(self._problems) < MAX_TOLD:
            self._problems.append(Problem(step.name, step.label(values), text, refused))
