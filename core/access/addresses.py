"""The address that a request comes from, and the bucket that its rate is counted in.

`X-Forwarded-For` is text that anyone can send. It counts only as far as proxies that we trust have written it: read
from the right, the first hop that is not one of them is the client. No text of a client raises an exception here.
"""

from __future__ import annotations

import re
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

# A request without a readable peer counts under this name; a Unix socket has no peer.
UNKNOWN = "unknown"
# No real path has more hops; only so many are read, from the right.
MAX_HOPS = 16
# An IPv6 customer owns a /64 at least, so a limit per address would be none.
IPV6_BUCKET_BITS = 64

_CACHED_ADDRESSES = 10_000
MAX_HOP_LENGTH = len("[]:65535") + 45
# A hop is an address, to which some proxies add the port: 192.0.2.1:443, [2001:db8::1], [2001:db8::1]:443.
_HOP = re.compile(
    r"\[([0-9A-Fa-f:.]{2,45})\](?::\d{1,5})?|([0-9.]{7,15})(?::\d{1,5})?|([0-9A-Fa-f:.]{2,45})", re.ASCII
)


class Addresses:
    """The reader of client addresses, which believes the proxies in `trusted_proxies` (addresses or CIDR networks).

    Clients in `trusted_networks` (the same) are trusted in themselves.
    """

    def __init__(self, trusted_proxies: Iterable[str] = (), trusted_networks: Iterable[str] = ()) -> None:
        self._proxies = _read_networks(trusted_proxies)
        self._networks = _read_networks(trusted_networks)

    def client(self, peer: str | None, forwarded_for: Sequence[str] = ()) -> str:
        """Return the client's address, in its shortest spelling where a proxy named it.

        `peer` is the other end of the socket, `forwarded_for` every value of `X-Forwarded-For` in the order received.
        """
        if not peer:
            return UNKNOWN
        if not self._proxies or not forwarded_for or not _is_within(_read_peer(peer), self._proxies):
            return peer
        nearest = peer
        for hop in reversed(_hops(forwarded_for)):
            address = _read(hop) if len(hop) <= MAX_HOP_LENGTH else None
            if address is None:
                break  # the client may have written this hop, so the known path ends before it
            nearest = str(address)
            if not _is_within(address, self._proxies):
                break
        return nearest

    def trusts(self, peer: str | None, forwarded_for: Sequence[str] = (), *, passed_on: bool = False) -> bool:
        """Whether the client is in a trusted network. The first arguments are those of `client`.

        A proxy's own address is never trusted, for all the world comes through it. A request that was `passed_on`, as
        its headers say, by nobody whom we believe came through a proxy that the settings do not know.
        """
        if (forwarded_for or passed_on) and not _is_within(_read_peer(peer or ""), self._proxies):
            return False
        address = _read_peer(self.client(peer, forwarded_for))
        return _is_within(address, self._networks) and not _is_within(address, self._proxies)


def _read_networks(networks: Iterable[str]) -> tuple[IPv4Network | IPv6Network, ...]:
    return tuple(ip_network(network, strict=False) for network in networks)


def _is_within(
    address: IPv4Address | IPv6Address | None, networks: Iterable[IPv4Network | IPv6Network]
) -> bool:
    return address is not None and any(address in network for network in networks)


def bucket(address: str) -> str:
    """Return the part that all addresses of one client share: an IPv4 address itself, the /64 of an IPv6 address."""
    return address if ":" not in address else _ipv6_bucket(address)


@lru_cache(_CACHED_ADDRESSES)
def _ipv6_bucket(address: str) -> str:
    read = _read_peer(address)
    if not isinstance(read, IPv6Address):
        return str(read) if read is not None else UNKNOWN
    return str(IPv6Network((int(read), IPV6_BUCKET_BITS), strict=False))


@lru_cache(_CACHED_ADDRESSES)
def _read(text: str) -> IPv4Address | IPv6Address | None:
    """Return the address of a text, None for any other text; a mapped IPv4 address is the IPv4 address."""
    found = _HOP.fullmatch(text)
    if found is None:
        return None
    try:
        address = ip_address(found[1] or found[2] or found[3])
    except ValueError:
        return None
    return (address.ipv4_mapped or address) if isinstance(address, IPv6Address) else address


def _read_peer(peer: str) -> IPv4Address | IPv6Address | None:
    # A link-local peer carries the name of the interface: fe80::1%eth0.
    return _read(peer.partition("%")[0])


def _hops(forwarded_for: Sequence[str]) -> list[str]:
    hops: list[str] = []
    for value in reversed(forwarded_for):
        hops[:0] = value.rsplit(",", MAX_HOPS)
        if len(hops) > MAX_HOPS:
            break
    return [hop.strip(" \t") for hop in hops[-MAX_HOPS:]]
