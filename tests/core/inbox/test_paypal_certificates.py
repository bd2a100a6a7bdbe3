"""The certificates of PayPal's webhooks: which chains hold, and how often and for how long an address is asked."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.verification import Store

from core.errors import Refusal
from core.inbox.paypal.certificates import MAX_FETCHES, Certificates, read_chain
from core.inbox.paypal.client import MAX_BYTES, Client, UnreachableError
from core.inbox.verifying import NotGenuine
from tests.core.inbox.authority import (
    LIVE_SIGNER,
    SANDBOX_SIGNER,
    VALID_DAYS,
    authority,
    leaf,
    rsa_key,
)
from tests.core.inbox.paypal_server import PayPal, running

DAY = 86_400.0
KEY = rsa_key()
ROOT = authority("Root")
MIDDLE = authority("Intermediate", ROOT)
STORE = Store([ROOT.certificate])


def refusal(pem: bytes, *, now: float | None = None, sandbox: bool = True) -> str:
    with pytest.raises(NotGenuine) as refused:
        read_chain(pem, STORE, now=time.time() if now is None else now, sandbox=sandbox)
    return refused.value.reason


def test_chains_that_hold() -> None:
    now = time.time()
    sandbox = leaf(MIDDLE, SANDBOX_SIGNER, key=KEY)
    found = read_chain(sandbox.pem + MIDDLE.pem, STORE, now=now, sandbox=True)
    assert found.key.public_numbers() == KEY.public_key().public_numbers()
    assert now + (VALID_DAYS - 1) * DAY < found.good_until < now + (VALID_DAYS + 1) * DAY
    live = leaf(MIDDLE, LIVE_SIGNER, "paypal.com", key=KEY)
    stranger = authority("Stranger")
    # What else is in the bundle does no harm.
    assert read_chain(live.pem + stranger.pem + MIDDLE.pem + ROOT.pem, STORE, now=now, sandbox=False)


@pytest.mark.parametrize("days", [-2, VALID_DAYS + 1])
def test_dates(days: int) -> None:
    pem = leaf(MIDDLE, SANDBOX_SIGNER, key=KEY).pem + MIDDLE.pem
    assert refusal(pem, now=time.time() + days * DAY) == "certificate_untrusted"


def test_an_expired_certificate() -> None:
    pem = leaf(MIDDLE, SANDBOX_SIGNER, key=KEY, days=(-10, -1)).pem + MIDDLE.pem
    assert refusal(pem) == "certificate_untrusted"


@pytest.mark.parametrize(
    "name",
    [
        "paypal.com",
        "www.paypal.com",
        "api.sandbox.paypal.com",
        "messageverificationcerts.paypal.com.evil.example",
        "messageverificationcerts.evil.example",
        "messageverificationcertsXsandbox.paypal.com",
        "evilmessageverificationcerts.sandbox.paypal.com",
        LIVE_SIGNER,
    ],
)
def test_names_that_are_not_the_signers(name: str) -> None:
    assert refusal(leaf(MIDDLE, name, key=KEY).pem + MIDDLE.pem) == "certificate_name"
    # Neither name alone is enough.
    two_faced = leaf(MIDDLE, name, key=KEY, common_name=SANDBOX_SIGNER)
    assert refusal(two_faced.pem + MIDDLE.pem) == "certificate_name"
    other_way = leaf(MIDDLE, SANDBOX_SIGNER, key=KEY, common_name=name)
    assert refusal(other_way.pem + MIDDLE.pem) == "certificate_name"


def test_the_sandbox_does_not_sign_for_live() -> None:
    pem = leaf(MIDDLE, SANDBOX_SIGNER, key=KEY).pem + MIDDLE.pem
    assert refusal(pem, sandbox=False) == "certificate_name"


def test_chains_that_do_not_hold() -> None:
    stranger = authority("Root")
    good = leaf(MIDDLE, SANDBOX_SIGNER, key=KEY)
    not_ca = leaf(MIDDLE, SANDBOX_SIGNER)
    for pem in (
        good.pem,
        leaf(stranger, SANDBOX_SIGNER, key=KEY).pem + stranger.pem,
        leaf(authority("Intermediate", stranger), SANDBOX_SIGNER, key=KEY).pem + MIDDLE.pem,
        # Signed by a certificate that may not sign others.
        leaf(not_ca, SANDBOX_SIGNER, key=KEY).pem + not_ca.pem + MIDDLE.pem,
    ):
        assert refusal(pem) == "certificate_untrusted"


def test_what_is_no_certificate() -> None:
    good = leaf(MIDDLE, SANDBOX_SIGNER, key=KEY)
    elliptic = leaf(MIDDLE, SANDBOX_SIGNER, key=ec.generate_private_key(ec.SECP256R1()))
    for pem in (
        b"",
        b"<html>",
        good.pem[:300],
        good.key_pem,
        good.pem.replace(b"M", b"N", 5),
        elliptic.pem + MIDDLE.pem,
        good.pem + MIDDLE.pem * 20,
    ):
        assert refusal(pem) == "certificate_malformed"
    assert refusal(authority(SANDBOX_SIGNER, MIDDLE).pem + MIDDLE.pem) == "certificate_name"


@pytest.fixture
async def paypal(tmp_path: Path) -> AsyncIterator[PayPal]:
    async with running(tmp_path) as server:
        yield server


@pytest.fixture
async def client(paypal: PayPal, tmp_path: Path) -> AsyncIterator[Client]:
    opened = Client(str(tmp_path / "roots.pem"))
    yield opened
    await opened.close()


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def certificates(client: Client, paypal: PayPal, clock: Clock) -> Certificates:
    return Certificates(client, hosts=[paypal.host], sandbox=True, clock=clock)


async def not_there(certificates: Certificates, url: str, now: float | None = None) -> str:
    with pytest.raises(NotGenuine) as refused:
        await certificates.key_at(url, now or time.time())
    return refused.value.reason


async def test_an_address_is_asked_once_whoever_waits(certificates: Certificates, paypal: PayPal) -> None:
    paypal.held = asyncio.Event()
    waiting = [asyncio.create_task(certificates.key_at(paypal.url(), time.time())) for _ in range(50)]
    impatient = asyncio.create_task(certificates.key_at(paypal.url(), time.time()))
    await asyncio.sleep(0)
    impatient.cancel()
    paypal.held.set()
    keys = await asyncio.gather(*waiting)
    assert {key.public_numbers() for key in keys} == {paypal.signer.key.public_key().public_numbers()}
    await certificates.key_at(paypal.url(), time.time())
    assert paypal.asked == ["CERT-1"]


async def test_a_certificate_is_good_until_it_ends(
    certificates: Certificates, paypal: PayPal, clock: Clock
) -> None:
    await certificates.key_at(paypal.url(), time.time())
    late = time.time() + (VALID_DAYS + 5) * DAY
    assert await not_there(certificates, paypal.url(), late) == "certificate_untrusted"
    assert paypal.asked == ["CERT-1"] * 2


async def test_a_bad_address_is_not_asked_again_for_a_while(
    certificates: Certificates, paypal: PayPal, clock: Clock
) -> None:
    for _ in range(5):
        assert await not_there(certificates, paypal.url("CERT-2")) == "certificate_missing"
    assert paypal.asked == ["CERT-2"]
    paypal.files["CERT-2"] = paypal.files["CERT-1"]
    clock.now += 61
    await certificates.key_at(paypal.url("CERT-2"), time.time())


@pytest.mark.parametrize("status", [301, 302, 307, 403, 500])
async def test_redirects_are_not_followed(certificates: Certificates, paypal: PayPal, status: int) -> None:
    paypal.files["CERT-2"] = status
    assert await not_there(certificates, paypal.url("CERT-2")) == "certificate_missing"
    assert paypal.asked == ["CERT-2"]


async def test_an_answer_that_is_too_long(certificates: Certificates, paypal: PayPal) -> None:
    good = paypal.files["CERT-1"]
    assert isinstance(good, bytes)
    paypal.files["CERT-2"] = good + b"\n" * MAX_BYTES
    assert await not_there(certificates, paypal.url("CERT-2")) == "certificate_unreachable"


async def test_forgers_cannot_have_any_number_of_addresses_asked(
    certificates: Certificates, paypal: PayPal
) -> None:
    paypal.held = asyncio.Event()
    waiting = [
        asyncio.create_task(certificates.key_at(paypal.url(f"CERT-{number}"), time.time()))
        for number in range(2, MAX_FETCHES + 2)
    ]
    await asyncio.sleep(0)
    with pytest.raises(Refusal) as refused:
        await certificates.key_at(paypal.url("CERT-99"), time.time())
    assert refused.value.code == "overloaded"
    paypal.held.set()
    await asyncio.gather(*waiting, return_exceptions=True)
    await certificates.key_at(paypal.url(), time.time())


async def test_a_server_that_no_root_vouches_for(paypal: PayPal) -> None:
    client = Client()
    try:
        with pytest.raises(UnreachableError):
            await client.call("GET", paypal.url())
        strict = Certificates(client, hosts=[paypal.host], sandbox=True)
        assert await not_there(strict, paypal.url()) == "certificate_unreachable"
    finally:
        await client.close()
    assert paypal.asked == []


def test_a_missing_file_of_roots_stops_the_start(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Client(str(tmp_path / "nothing.pem"))


def test_the_usual_roots_can_be_read() -> None:
    assert isinstance(Client().store, Store)
