"""Keys from the settings, and the first process's key for all of a machine."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from core.identity.keys import load_keys, thumbprint
from core.pem import private_keys
from core.settings import SettingsError, load_settings


def pem_of(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey, password: bytes | None = None) -> str:
    encryption = (
        serialization.NoEncryption() if password is None else serialization.BestAvailableEncryption(password)
    )
    kind = serialization.PrivateFormat.PKCS8
    return key.private_bytes(serialization.Encoding.PEM, kind, encryption).decode()


def test_processes_that_start_together_share_one_key(tmp_path: Path) -> None:
    settings = load_settings(env_file=None, env="test", jwt_alg="RS256", state_dir=str(tmp_path / "state"))
    with ThreadPoolExecutor(8) as threads:
        rings = list(threads.map(lambda _: load_keys(settings), range(8)))
    assert len({str(ring.jwks()) for ring in rings}) == 1


def test_thumbprint() -> None:
    """The example of RFC 7638, section 3.1."""
    n = (
        "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3"
        "oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdA"
        "ZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-"
        "kEgU8awapJzKnqDKgw"
    )
    from jwt.utils import base64url_decode  # noqa: PLC0415

    number = int.from_bytes(base64url_decode(n))
    key = rsa.RSAPublicNumbers(65537, number).public_key()
    assert thumbprint(key) == "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs"


@pytest.mark.parametrize(
    "pem",
    [
        "no key",
        pem_of(ec.generate_private_key(ec.SECP256R1())),
        pem_of(rsa.generate_private_key(public_exponent=65537, key_size=1024)),  # noqa: S505 - too short, and so refused
        pem_of(rsa.generate_private_key(public_exponent=65537, key_size=2048), b"passphrase"),
        "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----",
    ],
)
def test_keys_that_are_none_are_refused_at_the_start(pem: str) -> None:
    with pytest.raises(
        SettingsError, match=r"JWT_RS_PRIVATE_PEM=\*\*\*: expected RSA private keys"
    ) as caught:
        load_settings(env_file=None, env="test", jwt_rs_private_pem=pem)
    assert pem not in str(caught.value)


def test_several_keys_with_text_between() -> None:
    first, second = (rsa.generate_private_key(public_exponent=65537, key_size=2048) for _ in range(2))
    found = private_keys(f"# new\n{pem_of(first)}\n# old\n{pem_of(second)}")
    assert [key.public_key() for key in found] == [first.public_key(), second.public_key()]
    assert private_keys("") == []


def test_derived_keys_differ_by_purpose_and_secret() -> None:
    rings = [load_keys(load_settings(env_file=None, env="test", jwt_secret=secret * 32)) for secret in "ab"]
    assert len({ring.derive(purpose) for ring in rings for purpose in ("codes", "others")}) == 4
