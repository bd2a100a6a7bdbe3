"""Addresses at which clouds tell a machine about itself: the one list of them.

These servers hand out credentials, so no allow-list opens them, and prod refuses settings that name them.
"""

import ipaddress
from typing import Final, TypeAlias

Address: TypeAlias = "ipaddress.IPv4Address | ipaddress.IPv6Address"

METADATA: Final[frozenset[Address]] = frozenset(
    ipaddress.ip_address(text)
    for text in (
        # AWS, GCP, Azure and most others; containers of AWS; Alibaba; Azure's wire server, which looks public; Oracle.
        "169.254.169.254", "169.254.170.2", "169.254.170.23", "100.100.100.200", "168.63.129.16", "192.0.0.192",
        # AWS and its containers; GCP.
        "fd00:ec2::254", "fd00:ec2::23", "fd20:ce::254",
    )
)  # fmt: skip
