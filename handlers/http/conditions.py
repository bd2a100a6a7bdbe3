"""Conditional requests (RFC 9110): the ETag of an object is its revision, and `If-Match` names the expected one."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from aiohttp import hdrs

from core.errors import Refusal

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aiohttp import web

_TAG = re.compile(r'(?P<weak>W/)?"(?P<tag>[\x21\x23-\x7e\x80-\xff]*)"')
_REVISION = re.compile(r"[0-9]{1,18}", re.ASCII)
# No object has this revision: a tag that is not ours matches nothing.
_NONE = -1


def etag(revision: int) -> Mapping[str, str]:
    """Return the header that tells the revision."""
    return {hdrs.ETAG: f'"{revision}"'}


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
