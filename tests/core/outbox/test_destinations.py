"""Addresses that may be called: public ones, and those the operator allows; never any that hands out credentials."""

import ipaddress

import pytest

from core.errors import Refusal
from core.outbox.destinations import Destinations

PROD = Destinations.of((), require_https=True)
DEV = Destinations.of(("localhost", "127.0.0.0/8", "::1"), require_https=False)

PUBLIC = [
    "1.1.1.1",
    "8.8.8.8",
    "93.184.216.34",
    "172.15.255.255",
    "172.32.0.1",
    "100.63.255.255",
    "100.128.0.1",
]
PUBLIC += ["192.0.1.1", "223.255.255.255", "2606:4700:4700::1111", "2a00:1450:4001:830::200e"]
PUBLIC += ["::ffff:8.8.8.8", "64:ff9b::808:808"]

NOT_PUBLIC = [
    "0.0.0.0",  # noqa: S104 - refused, not bound
    "0.1.2.3",
    "10.0.0.1",
    "10.255.255.255",
    "100.64.0.1",
    "100.127.255.255",
    "127.0.0.1",
]
NOT_PUBLIC += [
    "127.255.255.254",
    "169.254.0.1",
    "169.254.169.254",
    "169.254.170.2",
    "172.16.0.1",
    "172.31.255.255",
]
NOT_PUBLIC += ["192.0.0.1", "192.0.0.170", "192.0.2.1", "192.88.99.1", "192.168.0.1", "192.168.255.255"]
NOT_PUBLIC += ["198.18.0.1", "198.19.255.255", "198.51.100.1", "203.0.113.1", "224.0.0.1", "239.255.255.255"]
NOT_PUBLIC += [
    "240.0.0.1",
    "255.255.255.255",
    "100.100.100.200",
    "::",
    "::1",
    "::2",
    "::7f00:1",
    "::ffff:127.0.0.1",
]
NOT_PUBLIC += [
    "::ffff:10.0.0.1",
    "::ffff:a9fe:a9fe",
    "64:ff9b::7f00:1",
    "64:ff9b::a00:1",
    "64:ff9b::a9fe:a9fe",
]
NOT_PUBLIC += [
    "64:ff9b:1::1",
    "100::1",
    "2001::1",
    "2001:10::1",
    "2001:20::1",
    "2001:db8::1",
    "2002:7f00:1::",
]
NOT_PUBLIC += [
    "2002:a00:1::1",
    "3fff::1",
    "5f00::1",
    "fc00::1",
    "fd00::1",
    "fd00:ec2::254",
    "fe80::1",
    "fec0::1",
]
NOT_PUBLIC += ["ff02::1", "ff0e::1", "4000::1", "::ffff:0:127.0.0.1"]


@pytest.mark.parametrize("address", PUBLIC)
def test_public(address: str) -> None:
    assert PROD.permits(ipaddress.ip_address(address), host_allowed=False)


@pytest.mark.parametrize("address", NOT_PUBLIC)
def test_not_public(address: str) -> None:
    assert not PROD.permits(ipaddress.ip_address(address), host_allowed=False)


def test_what_the_operator_allows() -> None:
    allowed = Destinations.of(("10.1.0.0/16", "Intern.Example.com.", "[fd12::1]", "*"), require_https=True)
    assert allowed.permits(ipaddress.ip_address("10.1.2.3"), host_allowed=False)
    assert allowed.permits(ipaddress.ip_address("::ffff:10.1.2.3"), host_allowed=False)
    assert allowed.permits(ipaddress.ip_address("fd12::1"), host_allowed=False)
    assert not allowed.permits(ipaddress.ip_address("10.2.0.1"), host_allowed=False)
    assert allowed.permits(ipaddress.ip_address("10.2.0.1"), host_allowed=True)
    assert allowed.allows_host("intern.example.com")
    assert allowed.allows_host("INTERN.example.com.")
    assert not allowed.allows_host("extern.example.com")


@pytest.mark.parametrize(
    "address",
    [
        "169.254.169.254",
        "::ffff:169.254.169.254",
        "64:ff9b::a9fe:a9fe",
        "2002:a9fe:a9fe::1",
        "::a9fe:a9fe",
        "fd00:ec2::254",
        "100.100.100.200",
    ],
)
def test_metadata_addresses_are_closed_to_every_allow_list(address: str) -> None:
    everything = Destinations.of(("0.0.0.0/0", "::/0", "metadata.google.internal"), require_https=False)
    assert not everything.permits(ipaddress.ip_address(address), host_allowed=True)


@pytest.mark.parametrize(
    "url", ["https://shop.example.com", "https://shop.example.com:8443/a?b=c", "https://1.1.1.1/"]
)
def test_usable_urls(url: str) -> None:
    PROD.check_url(url)


@pytest.mark.parametrize(
    "url",
    [
        "http://shop.example.com/",
        "HTTPS//shop.example.com/",
        "javascript:alert(1)",
        "file:///etc/passwd",
        "gopher://10.0.0.1/",
        "app://echo",
        "//shop.example.com/",
        "https://[::1/",
        "https://[fe80::1%25eth0]/",
        "https://127.1/",
        "https://0/",
        "https://017700000001/",
        "https://0x7f000001/",
        "https://1.2.3.4.5/",
        "https://127.0.0.1.:443/",
        "https://a@b/",
        "https://:443/",
        "https://shop.example.com\t/",
        "https://shop.example.com\n/",
        "https://shop.example.com/\x7f",
        "https://。example.com/",
    ],
)
def test_unusable_urls(url: str) -> None:
    with pytest.raises(Refusal) as refused:
        PROD.check_url(url)
    assert refused.value.code == "invalid_request"


def test_development_allows_plain_http_to_this_machine() -> None:
    for url in (
        "http://127.0.0.1:1234/",
        "http://localhost:1234/",
        "http://[::1]:1234/",
        "http://127.9.9.9/",
    ):
        DEV.check_url(url)
    with pytest.raises(Refusal):
        DEV.check_url("http://192.168.0.1/")
