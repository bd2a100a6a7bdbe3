"""Destinations of outgoing calls: public addresses, and what the operator allows besides.

The judgement is made on the address of the socket (`core.outbox.egress`), because a name says nothing: it may resolve
to a private address, and to another one a moment later. A URL is judged before that only by its text.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from core.errors import Refusal
from core.settings.hosts import Network, is_translated, leads_to, name_in, network_in
from core.settings.metadata import METADATA, Address

if TYPE_CHECKING:
    from collections.abc import Iterable

MAX_URL_LENGTH: Final = 2048
# The wallet contract's developers name this URL in the place of a receiver: it takes everything, without a network.
ECHO: Final = "app://echo"

# Networks without public unicast addresses, by https://www.iana.org/assignments/iana-ipv4-special-registry.
_NOT_PUBLIC_V4: Final = tuple(
    ipaddress.IPv4Network(text)
    for text in (
        "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24",
        "192.0.2.0/24", "192.31.196.0/24", "192.52.193.0/24", "192.88.99.0/24", "192.168.0.0/16", "192.175.48.0/24",
        "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4",
    )
)  # fmt: skip
# Only 2000::/3 is global unicast; these of its networks are for documentation, benchmarks, or tunnels of IPv4.
_PUBLIC_V6: Final = ipaddress.IPv6Network("2000::/3")
_NOT_PUBLIC_V6: Final = tuple(
    ipaddress.IPv6Network(text)
    for text in ("2001::/23", "2001:db8::/32", "2002::/16", "2620:4f:8000::/48", "3fff::/20")
)

# A label of a name. Underscores are not allowed in hosts (RFC 1123, section 2.1), but exist.
_LABEL: Final = re.compile(r"[a-z0-9](?:[a-z0-9_-]{0,61}[a-z0-9])?", re.IGNORECASE)
MAX_NAME_LENGTH: Final = 253
# Names that lead nowhere outside: special-use (RFC 6761, 6762, 7686, 8375, 9476), ICANN's .internal, and names that
# were never delegated because they are used privately so often.
_LOCAL_NAMES: Final = (
    "localhost", "local", "internal", "home.arpa", "onion", "alt", "test", "invalid", "localdomain", "intranet", "lan",
    "home", "corp", "private",
)  # fmt: skip
# Ports of protocols that could take a request for one of theirs (https://fetch.spec.whatwg.org/#port-blocking).
_BAD_PORTS: Final = frozenset(
    {
        1, 7, 9, 11, 13, 15, 17, 19, 20, 21, 22, 23, 25, 37, 42, 43, 53, 69, 77, 79, 87, 95, 101, 102, 103, 104, 109,
        110, 111, 113, 115, 117, 119, 123, 135, 137, 139, 143, 161, 179, 389, 427, 465, 512, 513, 514, 515, 526, 530,
        531, 532, 540, 548, 554, 556, 563, 587, 601, 636, 989, 990, 993, 995, 1719, 1720, 1723, 2049, 3659, 4045, 4190,
        5060, 5061, 6000, 6379, 6566, 6665, 6666, 6667, 6668, 6669, 6679, 6697, 10080, 11211,
    }
)  # fmt: skip


def is_public(address: Address) -> bool:
    """Say whether `address` is a public unicast address."""
    if isinstance(address, ipaddress.IPv4Address):
        return not any(address in network for network in _NOT_PUBLIC_V4)
    return address in _PUBLIC_V6 and not any(address in network for network in _NOT_PUBLIC_V6)


@dataclass(frozen=True, slots=True)
class Destinations:
    """The rule of one deployment for outgoing calls.

    `allowed_hosts` are names in lower case; `require_https` is off in development and tests.
    """

    allowed_hosts: frozenset[str]
    allowed_networks: tuple[Network, ...]
    require_https: bool

    @classmethod
    def of(cls, allow: Iterable[str], *, require_https: bool) -> Destinations:
        """Read an allow-list of names, addresses and networks.

        A wildcard counts as a name that no host has, and so allows nothing.
        """
        hosts: set[str] = set()
        networks: list[Network] = []
        for entry in allow:
            network = network_in(entry)
            if network is None:
                hosts.add(name_in(entry))
            else:
                networks.append(network)
        return cls(frozenset(hosts), tuple(networks), require_https)

    def permits(self, address: Address, *, host_allowed: bool) -> bool:
        """Say whether a socket may be opened to `address`; `host_allowed` when the operator named its host."""
        inner = leads_to(address)
        if inner in METADATA:
            return False
        real = inner if is_translated(address) else address
        if host_allowed or any(real in network for network in self.allowed_networks):
            return True
        return is_public(real)

    def allows_host(self, host: str) -> bool:
        """Say whether the operator named this host."""
        return host.lower().rstrip(".") in self.allowed_hosts

    def is_echo(self, url: str) -> bool:
        """Say whether `url` is the stand-in of a receiver, ECHO, which production does not have."""
        return url.startswith(ECHO) and not self.require_https

    def check_url(self, url: str) -> None:
        """Raise Refusal `invalid_request` when the text of `url` shows that no call may go there."""
        reason = self._objection(url)
        if reason is not None:
            raise Refusal("invalid_request", f"The URL cannot be used: {reason}.")

    def _objection(self, url: str) -> str | None:
        if len(url) > MAX_URL_LENGTH:
            return f"it is longer than {MAX_URL_LENGTH} characters"
        if not url.isascii() or not url.isprintable() or " " in url or "\\" in url:
            return "it has characters that must be percent-encoded"
        if self.is_echo(url):
            return None
        try:
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port
        except ValueError:
            return "it is not well-formed"
        if parts.scheme != "https" and (self.require_https or parts.scheme != "http"):
            return "it has to begin with https://"
        if not host or port == 0:
            return "it names no host"
        if parts.username is not None or parts.password is not None:
            return "it carries a user name or password"
        if parts.fragment:
            return "it has a fragment"
        return self._objection_to_host(host, bracketed="[" in parts.netloc) or self._objection_to_port(
            host, port
        )

    def _objection_to_port(self, host: str, port: int | None) -> str | None:
        if port not in _BAD_PORTS or self.allows_host(host):
            return None
        try:
            address = ipaddress.ip_address(host)
        except ValueError:
            address = None
        # The operator decides what a port means on a network of the operator's own.
        if address is not None and any(address in network for network in self.allowed_networks):
            return None
        return "its port belongs to another protocol than HTTP"

    def _objection_to_host(self, host: str, *, bracketed: bool) -> str | None:
        allowed = self.allows_host(host)
        try:
            literal = ipaddress.ip_address(host)
        except ValueError:
            name = host.removesuffix(".").lower()
            labels = name.split(".")
            # A name whose last label is a number is an IPv4 address in disguise (WHATWG URL, section 3.5).
            sound = len(name) <= MAX_NAME_LENGTH and all(_LABEL.fullmatch(label) for label in labels)
            if bracketed or not sound or labels[-1][:1].isdigit():
                return "its host is not a name or an address"
            local = len(labels) == 1 or any(f".{name}".endswith(f".{end}") for end in _LOCAL_NAMES)
            # Private names are allowed where private networks are; then the address of the socket decides alone.
            if local and not allowed and not self.allowed_networks:
                return "its host is a name of private networks"
            return None
        if not self.permits(literal, host_allowed=allowed):
            return "its address is not a public one"
        return None
