"""Client addresses: nobody outside can choose the address that they are counted under."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.access.addresses import MAX_HOPS, UNKNOWN, Addresses, bucket

PROXY, INNER_PROXY, CLIENT = "10.0.0.1", "10.0.0.2", "203.0.113.9"
TRUSTED = Addresses(["10.0.0.0/8", "fd00::/8", "192.0.2.7"])


def test_without_trusted_proxies_the_peer_is_the_client() -> None:
    assert Addresses().client(PROXY, [CLIENT]) == PROXY


@pytest.mark.parametrize("peer", [None, ""])
def test_a_peer_without_an_address_has_a_name(peer: str | None) -> None:
    assert TRUSTED.client(peer, [CLIENT]) == UNKNOWN


@pytest.mark.parametrize(
    ("peer", "forwarded_for", "client"),
    [
        (PROXY, [CLIENT], CLIENT),
        (PROXY, [f"{CLIENT}, {INNER_PROXY}"], CLIENT),
        (PROXY, [CLIENT, INNER_PROXY], CLIENT),
        (PROXY, [f"  {CLIENT}\t,{INNER_PROXY} "], CLIENT),
        (PROXY, [], PROXY),
        (PROXY, [f"{INNER_PROXY}"], INNER_PROXY),
        ("192.0.2.7", [CLIENT], CLIENT),
        ("::ffff:10.0.0.1", [CLIENT], CLIENT),
        ("fd00::1", ["2001:db8::5"], "2001:db8::5"),
        (PROXY, ["2001:0DB8:0000::0005"], "2001:db8::5"),
        (PROXY, [f"{CLIENT}:51234"], CLIENT),
        (PROXY, ["[2001:db8::5]"], "2001:db8::5"),
        (PROXY, ["[2001:db8::5]:443"], "2001:db8::5"),
        (PROXY, [f"::ffff:{CLIENT}"], CLIENT),
    ],
)
def test_what_trusted_proxies_wrote_counts(peer: str, forwarded_for: list[str], client: str) -> None:
    assert TRUSTED.client(peer, forwarded_for) == client


@pytest.mark.parametrize(
    "forged",
    [
        "1.1.1.1",
        PROXY,
        f"1.1.1.1, {PROXY}",
        "127.0.0.1",
        "not an address",
        "",
        ",,,",
        "unix:",
        '1.1.1.1"',
        "for=1.1.1.1",
        "0x7f.1",
        "010.0.0.1",
        "2130706433",
        "1.1.1.1%eth0",
        "fe80::1%eth0",
        "[::1",
        "1.1.1.1:999999",
        "\u0661.\u0661.\u0661.\u0661",
        "\x00",
        "a" * 10_000,
        ", ".join(["1.1.1.1"] * 5_000),
    ],
)
def test_what_the_client_wrote_itself_does_not(forged: str) -> None:
    # A client that comes straight to us, with whatever header it likes.
    assert TRUSTED.client(CLIENT, [forged]) == CLIENT
    # A client behind our proxies, which append what they see to what it sent, in the same header or in another.
    assert TRUSTED.client(PROXY, [f"{forged}, {CLIENT}, {INNER_PROXY}"]) == CLIENT
    assert TRUSTED.client(PROXY, [forged, CLIENT, INNER_PROXY]) == CLIENT


@pytest.mark.parametrize(
    "garbage", ["", "unknown", "_hidden", "999.1.1.1", "[1.1.1.1", "10.0.0.1%25", "a" * 60]
)
def test_a_hop_that_cannot_be_read_ends_the_path(garbage: str) -> None:
    assert TRUSTED.client(PROXY, [f"{CLIENT}, {garbage}, {INNER_PROXY}"]) == INNER_PROXY


def test_a_path_is_read_only_so_far() -> None:
    assert TRUSTED.client(PROXY, [", ".join([CLIENT] + [INNER_PROXY] * (MAX_HOPS - 1))]) == CLIENT
    assert TRUSTED.client(PROXY, [", ".join([CLIENT] + [INNER_PROXY] * MAX_HOPS)]) == INNER_PROXY
    assert TRUSTED.client(PROXY, [CLIENT] + [INNER_PROXY] * MAX_HOPS) == INNER_PROXY


@given(st.one_of(st.text(), st.ip_addresses().map(str)), st.lists(st.text()))
def test_nothing_raises(peer: str, forwarded_for: list[str]) -> None:
    assert TRUSTED.client(peer, forwarded_for)
    bucket(peer)
    TRUSTED.client(PROXY, forwarded_for)


@pytest.mark.parametrize(
    ("address", "counted_as"),
    [
        ("203.0.113.9", "203.0.113.9"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::", "2001:db8:1:2::/64"),
        ("2001:db8:1:3::", "2001:db8:1:3::/64"),
        ("::ffff:203.0.113.9", "203.0.113.9"),
        ("fe80::1%eth0", "fe80::/64"),
        (UNKNOWN, UNKNOWN),
        ("not:an:address", UNKNOWN),
    ],
)
def test_an_ipv6_client_is_its_network(address: str, counted_as: str) -> None:
    assert bucket(address) == counted_as
