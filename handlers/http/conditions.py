"""Conditions of a request (RFC 9110): the ETag of an object is its revision, and `If-Match` names the expected one.

`Cache-Control: no-cache` asks for the newest data where a list or a report may come from the standby.
"""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from aiohttp import hdrs

from core.errors import Refusal
from handlers.http.middleware import EXCHANGE

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aiohttp import web

    from core.database import Database
    from core.storage.replica import Kind
    from handlers.http.route import Call

_TAG = re.compile(r'(?P<weak>W/)?"(?P<tag>[\x21\x23-\x7e\x80-\xff]*)"')
_REVISION = re.compile(r"[0-9]{1,18}", re.ASCII)
# The header that tells how old the data of an answer may be, in milliseconds; those of the primary have none.
DATA_AGE = "X-Data-Age-Ms"
# The clocks of our machines and the database's are closer than that.
CLOCKS = timedelta(minutes=1)
# No object has this revision: a tag that is not ours matches nothing.
_NONE = -1


def etag(revision: int) -> Mapping[str, str]:
    """Return the header that tells the revision."""
    return {hdrs.ETAG: f'"{revision}"'}


def reader(call: Call, kind: Kind, until: datetime | None = None) -> Database:
    """Return what the list or report of `call` is read from: the standby, if it may be, else the primary.

    A period that ends at `until` is read from the standby once all of it must have arrived there. Call this once for a
    request, so that its pages belong together. An answer that decides about money never comes from here.
    """
    replica, primary = call.parts.replica, call.service.database
    if replica is None or "no-cache" in call.request.headers.get(hdrs.CACHE_CONTROL, "").lower():
        return primary
    newest = datetime.now(UTC) - timedelta(milliseconds=call.parts.settings.replica_max_lag_ms) - CLOCKS
    if until is not None and until > newest:
        return primary
    age = replica.age
    database = replica.reader(kind)
    if database is not primary:
        exchange = call.request[EXCHANGE]
        exchange.rate_headers = (*exchange.rate_headers, (DATA_AGE, str(math.ceil(age * 1000))))
    return database


def expected_revision(request: web.Request) -> int | None:
    """Return the revision that the request expects of its object; None where any will do.

    Raises Refusal `invalid_request` for a header that is not one ETag or `*`. A weak tag matches nothing, since
    `If-Match` compares strongly.
    """
    values = request.headers.getall(hdrs.IF_MATCH, ())
    if not values:
        return None
    value = values[0].strip()
    if len(values) == 1 and value == "*":
        return None
    found = _TAG.fullmatch(value)
    if len(values) > 1 or found is None:
        raise Refusal("invalid_request", "Send one ETag in If-Match, in its quotes as it came, or *.")
    if found["weak"] or not _REVISION.fullmatch(found["tag"]):
        return _NONE
    return int(found["tag"])
