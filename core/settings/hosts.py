"""Entries of OUTBOUND_ALLOW_HOSTS, read in one way by the rules of prod and by the calls themselves.

An IPv4 address has several spellings in IPv6, and a machine has several names for itself. A rule that knows one of
them only is walked around.
"""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING, Final, TypeAlias

if TYPE_CHECKING:
    from core.settings.metadata import Address

Network: TypeAlias = "ipaddress.IPv4Network | ipaddress.IPv6Network"

# The bits behind an embedded IPv4 address: mapped and compatible (RFC 4291), NAT64 (RFC 6052), 6to4 (RFC 3056).
_MAPPED: Final = ipaddress.IPv6Network("::ffff:0:0/96")
_COMPATIBLE: Final = ipaddress.IPv6Network("::/96")
_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")
_SIX_TO_FOUR: Final = ipaddress.IPv6Network("2002::/16")
_EMBEDDING: Final = (_MAPPED, _COMPATIBLE, _NAT64, _SIX_TO_FOUR)

# Names of this machine in the hosts files of Debian, Red Hat and macOS.
_OWN_NAMES: Final = frozenset(
    {
        "localhost", "localhost4", "localhost6", "ip6-localhost", "ip6-loopback", "loopback",
        "localhost.localdomain", "localhost4.localdomain4", "localhost6.localdomain6", "localhost6.localdomain",
        "broadcasthost",
    }
)  # fmt: skip


def network_in(entry: str) -> Network | None:
    """Return the address or network that an entry means, or None for a name."""
    try:
        return ipaddress.ip_network(name_in(entry), strict=False)
    except ValueError:
        return None


def name_in(entry: str) -> str:
    """Return an entry without what does not count in it: case, brackets and the dot of the root."""
    return entry.strip().strip("[]").rstrip(".").lower()


def is_own_name(host: str) -> bool:
    """Whether a name means this machine."""
    name = name_in(host)
    return name in _OWN_NAMES or name.endswith((".localhost", ".localhost.localdomain"))


def is_this_machine(host: str, bound: str) -> bool:
    """Whether a host means this machine, on which a server of ours is `bound` to an address or to all of them."""
    if is_own_name(host) or name_in(host) == name_in(bound):
        return True
    network = network_in(host)
    return network is not None and (network.is_loopback or network.is_unspecified)


def spellings(network: Network) -> tuple[Network, ...]:
    """Return a network, and the networks of IPv6 in which its IPv4 addresses are embedded."""
    if network.version == 6:
        return (network,)
    start = int(network.network_address)
    found: list[Network] = [network]
    for around in _EMBEDDING:
        behind = 128 - around.prefixlen - 32
        first = int(around.network_address) | start << behind
        found.append(ipaddress.IPv6Network((first, around.prefixlen + network.prefixlen)))
    return tuple(found)


def leads_to(address: Address) -> Address:
    """Return the IPv4 address that an address of IPv6 is another spelling of, or the address itself."""
    if isinstance(address, ipaddress.IPv6Address):
        for around in _EMBEDDING:
            # `::` and `::1` are no embedded addresses.
            if address in around and int(address) > 1:
                return ipaddress.IPv4Address(int(address) >> 128 - around.prefixlen - 32 & 0xFFFF_FFFF)
    return address


def is_translated(address: Address) -> bool:
    """Whether an address reaches the embedded one: systems do so for mapped ones, and gateways for NAT64."""
    return address in _MAPPED or address in _NAT64
