"""Headers that an endpoint's owner adds to its deliveries: which may be, and how many."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from core.errors import Refusal

if TYPE_CHECKING:
    from collections.abc import Mapping

# Servers accept 8 KiB of headers in all (nginx: large_client_header_buffers); these leave room for ours.
MAX_HEADERS: Final = 16
MAX_HEADER_VALUE: Final = 1024
MAX_HEADER_BYTES: Final = 4096
# Names are tokens of RFC 9110, section 5.6.2; values hold visible ASCII, spaces and tabs.
_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,64}")
_HEADER_VALUE = re.compile(r"[\x21-\x7e](?:[\x20-\x7e\t]*[\x21-\x7e])?")
# Headers that frame the message, belong to the connection, or are ours to set.
_RESERVED: Final = frozenset(
    {
        "accept-encoding", "connection", "content-encoding", "content-length", "content-type", "expect", "host",
        "keep-alive", "te", "trailer", "transfer-encoding", "upgrade", "user-agent", "x-delivery-id",
    }
)  # fmt: skip
_RESERVED_PREFIXES: Final = ("webhook-", "x-webhook-", "proxy-", "sec-")


def check_headers(headers: Mapping[str, str]) -> None:
    """Raise Refusal `invalid_request` unless these headers may be sent with every delivery beside ours."""
    if len(headers) > MAX_HEADERS:
        raise _bad_headers(f"there are more than {MAX_HEADERS}")
    if len({_folded(name) for name in headers}) < len(headers):
        raise _bad_headers("one name occurs twice")
    if sum(len(name) + len(value) for name, value in headers.items()) > MAX_HEADER_BYTES:
        raise _bad_headers(f"they are longer than {MAX_HEADER_BYTES} characters in all")
    for name, value in headers.items():
        if _HEADER_NAME.fullmatch(name) is None:
            raise _bad_headers("a name is not a token of 1 to 64 characters")
        if _folded(name) in _RESERVED or _folded(name).startswith(_RESERVED_PREFIXES):
            raise _bad_headers(f"{name} may not be set by an endpoint")
        if len(value) > MAX_HEADER_VALUE or _HEADER_VALUE.fullmatch(value) is None:
            raise _bad_headers(f"the value of {name} is not 1 to {MAX_HEADER_VALUE} visible ASCII characters")


def _folded(name: str) -> str:
    """Return a header's name as the receiver may see it: CGI and proxies make all that is no letter one sign."""
    return re.sub(r"[^a-z0-9]", "-", name.lower())


def _bad_headers(reason: str) -> Refusal:
    return Refusal("invalid_request", f"The headers cannot be used: {reason}.", field="headers")
