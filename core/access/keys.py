"""One rule for idempotency keys, in headers and bodies of all surfaces.

The blanks around a key do not count, and the quoted form of the IETF's draft (a string of RFC 9651) is the text between
the quotes: `K`, `K␠` and `"K"` are one key. Parameters behind the quotes (`"K";a=1`) do not count either.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from core.database import queries
from core.ledger.items import operation_id

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable
    from uuid import UUID

    from core.database import Connection, Database

SQL = queries(__name__)

_STRING = r'"((?:[ !#-\[\]-~]|\\["\\])*)"'
# Parameters of an item (RFC 9651, section 3.1.2): a value is a string, or a token, number, date, switch or bytes.
_PARAMETER = r""";[ ]*[a-z*][a-z0-9_.*-]*(?:=(?:"(?:[ !#-\[\]-~]|\\["\\])*"|[A-Za-z0-9*:?@-][^\s;",\\]*))?"""
_QUOTED = re.compile(f"{_STRING}(?:{_PARAMETER})*")
_ESCAPED = re.compile(r'\\(["\\])')


def plain_key(spelled: str) -> str:
    r"""Return the key that a caller's spelling means; an empty text for blanks alone.

    >>> [plain_key(text) for text in ("K", " K ", '"K"', r'"a \"b\""', '"K', '""', '"K";a=1', "K;a=1")]
    ['K', 'K', 'K', 'a "b"', '"K', '', 'K', 'K;a=1']
    """
    key = spelled.strip()
    quoted = _QUOTED.fullmatch(key)
    return key if quoted is None else _ESCAPED.sub(r"\1", quoted[1]).strip()


async def kept_spellings(
    source: Connection | Database,
    principal_id: int,
    spellings: Iterable[str],
    *,
    prefixes: Collection[str] = ("",),
) -> frozenset[str]:
    """Return the spellings under which something is stored letter by letter.

    Keys were once taken as they were spelled. A call that is repeated from then finds what it made: its key is the
    spelling. Plain spellings are not asked for, so that they cost no query. `prefixes` stand before the keys of some
    operations.
    """
    ids: dict[UUID, str] = {
        operation_id(principal_id, prefix + spelled): spelled
        for spelled in spellings
        if spelled != plain_key(spelled)
        for prefix in prefixes
    }
    if not ids:
        return frozenset()
    return frozenset(ids[row["id"]] for row in await source.fetch(SQL.used_ids, list(ids)))
